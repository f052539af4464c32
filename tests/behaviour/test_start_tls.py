"""TLS in mid-stream, by `start_tls`; and TLS to elsewhere, by `moorage.connect`."""

import os
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest

import moorage
from moorage import Connection, ConnectionEnded
from moorage.events import Cause, Phase, TlsEstablished
from support.certificates import certificates, client_context
from support.client import SOON
from support.house import Background, House, Journal, Open
from support.tls_client import TlsClient

pytestmark = [
    pytest.mark.security("tls"),
    pytest.mark.runners("inline", "threads", "fibers", "forks"),
    pytest.mark.tls_families("tcp4", "unix"),
]

FEW = pytest.mark.runners("threads", "fibers")
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def echo(conn: Connection) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def upgrade(conn: Connection) -> None:
    """A little protocol: lines, until one asks for TLS; then whatever comes back."""
    conn.sendall(b"220 ready\n")
    while (line := conn.readline()) != b"STARTTLS\n":
        conn.sendall(line)
    conn.sendall(b"220 go ahead\n")
    conn.start_tls()
    assert conn.tls is not None
    conn.sendall(f"{conn.tls.version}\n".encode())
    echo(conn)


def in_plain(house: Open, handler: Any = upgrade, **settings: Any) -> House:
    return house(handler, tls_mode="starttls", **settings)


def greeted(opened: House) -> TlsClient:
    """A client that still speaks plain text."""
    client = opened.tls_client(secured=False)
    assert client.line() == b"220 ready\n"
    return client


def asked(opened: House) -> TlsClient:
    """One whose server waits for the handshake now."""
    client = greeted(opened)
    client.sendall(b"STARTTLS\n")
    assert client.line() == b"220 go ahead\n"
    return client


def only(version: str) -> ssl.SSLContext:
    context = client_context()
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


# As it should be


@pytest.mark.parametrize("version", VERSIONS)
def test_conversation_goes_on_in_tls(house: Open, version: str) -> None:
    opened = in_plain(house)
    client = greeted(opened)
    assert client.ask(b"plain\n") == b"plain\n"
    client.sendall(b"STARTTLS\n")
    assert client.line() == b"220 go ahead\n"
    client.secure(only(version))
    assert client.line() == f"{version}\n".encode()
    message = os.urandom(1_000_000)
    answer = Background(lambda: client.receive(len(message)))
    client.sendall(message)
    assert answer.result() == message
    client.say_no_more()
    assert client.rest() == b""
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.is_quiet()


@pytest.mark.runners("inline", "threads", "fibers")  # a child of `forks` has no event for the parent's subscribers
def test_handshake_in_mid_stream_is_an_event(house: Open) -> None:
    opened = in_plain(house)
    events = opened.server.events.queue(10, TlsEstablished)
    client = asked(opened)
    client.secure()
    assert client.line()
    event = events.get(SOON)
    assert isinstance(event, TlsEstablished)
    assert event.version == client.session.version()


@FEW
def test_context_of_the_handler_is_used(house: Open) -> None:
    """Also where the listener has no certificate."""
    files = certificates().first
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)

    def handle(conn: Connection) -> None:
        conn.start_tls(context)
        echo(conn)

    client = house(handle, tls_cert=None, tls_key=None).tls_client(name="first.example")
    assert client.ask(b"x") == b"x"


@FEW
def test_timeout_of_the_handler_is_none_of_the_handshakes(house: Open) -> None:
    def handle(conn: Connection) -> None:
        conn.settimeout(0.05)
        conn.start_tls()
        conn.settimeout(None)
        echo(conn)

    client = in_plain(house, handle).tls_client(secured=False)
    assert client.hears_nothing(0.2)
    client.secure()
    assert client.ask(b"x") == b"x"


@FEW
@pytest.mark.families("tcp4")  # two servers at one place
def test_second_start_and_one_without_a_certificate_are_mistakes(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        try:
            conn.start_tls()
        except ValueError as error:
            journal.write(error)

    assert house(handle).tls_client().rest() == b""
    assert "TLS already" in journal.read()
    assert house(handle, tls_cert=None, tls_key=None).raw_client().rest() == b""
    assert "certificate" in journal.read()


def test_drain_ends_a_quiet_conversation_in_tls(house: Open) -> None:
    opened = in_plain(house)
    client = asked(opened)
    client.secure()
    assert client.line()
    assert client.ask(b"x") == b"x"
    drain = opened.drain()
    assert client.rest() == b""
    assert drain.result()
    assert opened.cause() is Cause.DRAINED


# As it should not be


@pytest.mark.parametrize("injected", [b"QUIT\r\n", b"\x16\x03\x01"], ids=["command", "looks-like-tls"])
def test_plain_text_read_ahead_is_an_injection(house: Open, journal: Journal, injected: bytes) -> None:
    """CVE-2011-0411: somebody in between has put it there, to be taken for the client's own words."""

    def handle(conn: Connection) -> None:
        assert conn.readline() == b"STARTTLS\n"
        try:
            conn.start_tls()
        except ConnectionEnded as error:
            journal.write(error.cause)
            raise

    opened = in_plain(house, handle)
    client = opened.raw_client()
    client.sendall(b"STARTTLS\n" + injected)
    assert journal.read() == "tls_error"
    assert client.is_cut()
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.TLS_ERROR, Phase.HANDLER)
    assert opened.is_quiet()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"])
def test_handshake_that_fails_ends_the_connection(house: Open, journal: Journal, said: bytes) -> None:
    def handle(conn: Connection) -> None:
        try:
            upgrade(conn)
        except ConnectionEnded as error:
            journal.write(error.cause)
            raise

    opened = in_plain(house, handle)
    client = asked(opened)
    client.sendall(said)
    assert journal.read() == "tls_error"
    try:
        assert client.rest()[:2] in (b"\x15\x03", b"")
    except ConnectionError:
        pass
    assert opened.cause() is Cause.TLS_ERROR
    assert opened.is_quiet()


@pytest.mark.runners("inline", "threads", "fibers")
def test_handshake_that_fails_is_an_event(house: Open) -> None:
    opened = in_plain(house)
    client = asked(opened)
    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    failed = opened.setup_failure()
    client.close()
    assert failed.cause is Cause.TLS_ERROR
    assert "HTTP" in failed.reason
    assert failed.id == opened.end().id


def test_client_that_does_not_trust_the_certificate_ends_it(house: Open) -> None:
    opened = in_plain(house)
    client = asked(opened)
    client.secure(ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        client.wait_for_handshake()
    client.close()
    assert opened.cause() is Cause.TLS_ERROR
    assert opened.is_quiet()


@pytest.mark.parametrize("leaves", ["close", "half-close"])
def test_client_that_leaves_instead_is_gone(house: Open, leaves: str) -> None:
    opened = in_plain(house)
    client = asked(opened)
    if leaves == "close":
        client.close()
    else:
        client.say_no_more()
        assert client.rest()[:2] in (b"\x15\x03", b"")
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.is_quiet()
    assert not opened.setup_failures()


@pytest.mark.families("tcp4", "tcp6")
def test_client_that_resets_instead_is_gone(house: Open) -> None:
    opened = in_plain(house)
    asked(opened).reset()
    assert opened.cause() is Cause.RESET
    assert opened.is_quiet()
    assert not opened.setup_failures()


@pytest.mark.parametrize("said", [b"", b"\x16"], ids=["mute", "a-byte"])
def test_client_that_stays_mute_instead_is_ended_in_time(house: Open, said: bytes) -> None:
    opened = in_plain(house, setup_timeout=0.3)
    client = asked(opened)
    begun = time.monotonic()
    client.sendall(said)
    assert client.is_cut()
    assert time.monotonic() - begun < 1.5
    assert opened.cause() is Cause.SETUP_DEADLINE
    assert opened.is_quiet()


def test_operator_ends_it_in_the_handshake(house: Open) -> None:
    opened = in_plain(house)
    client = asked(opened)
    begun = time.monotonic()
    opened.server.close()
    assert client.is_cut()
    assert time.monotonic() - begun < 4.0
    assert opened.cause() is Cause.CLOSED_BY_OPERATOR
    assert opened.is_quiet()


# To elsewhere


@pytest.fixture
def upstream() -> Iterator[Any]:
    """The address of a server that echoes over TLS; it runs in threads."""
    files = certificates().server
    quick: dict[str, Any] = {"drain_quiet": 0.05, "drain_timeout": 5.0}
    with moorage.Server(echo, "127.0.0.1:0", tls_cert=files.cert, tls_key=files.key, **quick) as server:
        yield server.address


def test_handler_speaks_tls_to_elsewhere(house: Open, upstream: Any) -> None:
    def relay(conn: Connection) -> None:
        with moorage.connect(upstream, tls=client_context()) as other:
            assert other.tls is not None
            while data := conn.recv(65536):
                other.sendall(data)
                conn.sendall(other.read_exactly(len(data)))
            other.shutdown(socket.SHUT_WR)
            assert other.recv(1) == b""

    opened = house(relay)
    client = opened.client()
    for size in (1, 20_000, 200_000):
        message = os.urandom(size)
        answer = Background(lambda size=size: client.receive(size))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        client.sendall(message)
        assert answer.result() == message
    client.say_no_more()
    assert client.rest() == b""
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.is_quiet()


@FEW
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"tls": True}, "certificate"),  # this system does not trust the authority of the tests
        ({"server_name": "first.example"}, "first.example"),
    ],
    ids=["stranger", "other-name"],
)
def test_certificate_from_elsewhere_is_verified(
    house: Open, journal: Journal, upstream: Any, how: dict[str, Any], words: str
) -> None:
    def handle(_conn: Connection) -> None:
        try:
            moorage.connect(upstream, **{"tls": client_context(), **how})
        except ssl.SSLCertVerificationError as error:
            journal.write(str(error).replace("\n", " "))

    house(handle).client().rest()
    said = journal.read()
    assert words in said
    assert str(upstream[1]) in said


@FEW
def test_mute_server_elsewhere_is_given_up_in_time(house: Open, journal: Journal) -> None:
    def handle(_conn: Connection) -> None:
        begun = time.monotonic()
        with socket.create_server(("127.0.0.1", 0)) as mute:
            try:
                moorage.connect(mute.getsockname(), timeout=0.2, tls=client_context())
            except TimeoutError:
                journal.write(round(time.monotonic() - begun, 1))

    house(handle).client().rest()
    assert 0.2 <= float(journal.read()) < 1.0


@FEW
def test_client_side_starts_tls_in_mid_stream(house: Open) -> None:
    opened = in_plain(house)

    def talk() -> bytes:
        with moorage.connect(opened.server.address) as other:
            assert other.readline() == b"220 ready\n"
            other.sendall(b"STARTTLS\n")
            assert other.readline() == b"220 go ahead\n"
            other.start_tls(client_context(), server_hostname="localhost")
            other.readline()
            other.sendall(b"hello")
            return other.read_exactly(5)

    assert Background(talk).result() == b"hello"
    assert opened.cause() is Cause.PEER_CLOSED


@FEW
@pytest.mark.parametrize("mode", ["r", "rw"])
def test_text_file_that_may_have_read_ahead_stands_in_the_way(house: Open, journal: Journal, mode: str) -> None:
    """What somebody in between put behind STARTTLS would come out of it, as if it had come by TLS."""

    def handler(conn: Connection) -> None:
        text = conn.makefile(mode)
        assert text.readline() == "STARTTLS\n"
        with pytest.raises(ValueError, match="may have read ahead"):
            conn.start_tls()
        assert conn.tls is None
        journal.write("refused")

    opened = in_plain(house, handler)
    client = opened.tls_client(secured=False)
    client.sendall(b"STARTTLS\nEVIL\n")
    assert journal.read() == "refused"
    client.close()
    opened.end()


@FEW
def test_text_file_that_is_gone_does_not(house: Open) -> None:
    def handler(conn: Connection) -> None:
        text = conn.makefile("rw", buffering=1)
        text.write("220 ready\n")  # type: ignore[arg-type]  # the stubs do not tell text files by mode
        text.close()
        del text
        upgrade(conn)

    opened = in_plain(house, handler)
    client = opened.tls_client(secured=False)
    assert client.line() == b"220 ready\n"
    assert client.line() == b"220 ready\n"
    client.sendall(b"STARTTLS\n")
    assert client.line() == b"220 go ahead\n"
    client.secure()
    assert client.line()
