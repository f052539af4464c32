"""Hostile and clumsy peers of TLS: each fault is one quiet cause in its phase, and costs nobody else anything."""

import logging
import os
import socket
import ssl
import time
from collections.abc import Callable

import pytest

from moorage import Connection, ConnectionEnded
from moorage.events import Cause, ConnectionClosed, Phase
from support.certificates import client_context
from support.client import SOON, Client
from support.house import House, Journal, Open, Place
from support.tls_client import TlsClient

pytestmark = [pytest.mark.security("tls"), pytest.mark.runners("threads", "fibers")]

EVERY_RUNNER = pytest.mark.runners("inline", "threads", "fibers", "forks")
TCP = pytest.mark.families("tcp4", "tcp6")
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
ALERT = b"\x15\x03"
#: a record of data with nothing of a key in it
FORGED = b"\x17\x03\x03\x00\x40" + bytes(64)


def echo(conn: Connection) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def client_hello() -> bytes:
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


HELLO = client_hello()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the operator reads of connections; never a traceback."""
    caplog.set_level(logging.INFO, "moorage")

    def lines() -> list[str]:
        assert not [record for record in caplog.records if record.exc_info], caplog.text
        return [record.getMessage() for record in caplog.records if " connection " in record.getMessage()]

    return lines


def tls_end(opened: House, cause: Cause, phase: Phase = Phase.TLS) -> ConnectionClosed:
    """How it ended, with nobody's handler to blame."""
    event = opened.end()
    assert (event.cause, event.phase) == (cause, phase)
    assert opened.is_quiet()
    return event


# Instead of a handshake


@EVERY_RUNNER
@pytest.mark.tls_families("tcp4", "unix")
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP"),
        (b"EHLO localhost\r\n", ""),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", ""),
        (b"\x80\x2e\x01\x00\x02" + bytes(43), ""),
        (bytes(range(256)) * 300, ""),
    ],
    ids=["http", "smtp", "hello-too-short", "sslv2", "noise"],
)
def test_what_is_no_tls_is_told_to_the_operator_and_to_nobodys_handler(
    house: Open, lines: Callable[[], list[str]], said: bytes, reason: str
) -> None:
    opened = house(echo)
    client = opened.raw_client()
    client.sendall(said)
    try:
        assert client.rest()[:2] in (ALERT, b"")
    except ConnectionError:
        pass  # it did not read all of the noise
    event = tls_end(opened, Cause.TLS_ERROR)
    failed = opened.setup_failure()
    assert (failed.id, failed.cause) == (event.id, Cause.TLS_ERROR)
    assert reason in failed.reason
    assert "\n" not in failed.reason
    assert sum(failed.reason in line for line in lines()) <= 1
    assert opened.client().ask(b"x") == b"x"


@EVERY_RUNNER
@pytest.mark.parametrize("said", [b"", HELLO[:1], HELLO[:-1]], ids=["mute", "a-byte", "most-of-it"])
def test_client_that_leaves_in_the_handshake_is_not_worth_a_line(
    house: Open, lines: Callable[[], list[str]], said: bytes
) -> None:
    """As health checks do."""
    opened = house(echo)
    client = opened.raw_client()
    client.sendall(said)
    client.close()
    tls_end(opened, Cause.PEER_CLOSED)
    assert lines() == []
    assert not opened.setup_failures()


@TCP
@EVERY_RUNNER
@pytest.mark.parametrize("said", [b"", HELLO[:1], HELLO], ids=["mute", "a-byte", "all-of-it"])
def test_client_that_resets_in_the_handshake_is_not_worth_a_line(
    house: Open, lines: Callable[[], list[str]], said: bytes
) -> None:
    opened = house(echo)
    client = opened.raw_client()
    client.sendall(said)
    if said == HELLO:
        assert client.receive(1)
    client.reset()
    tls_end(opened, Cause.RESET)
    assert lines() == []
    assert not opened.setup_failures()


@EVERY_RUNNER
@pytest.mark.tls_families("tcp4", "unix")
@pytest.mark.parametrize("said", [b"", HELLO[:1], HELLO], ids=["mute", "a-byte", "no-answer"])
def test_client_that_stays_in_the_handshake_is_ended_in_time(house: Open, said: bytes) -> None:
    opened = house(echo, setup_timeout=0.3)
    begun = time.monotonic()
    client = opened.raw_client()
    client.sendall(said)
    client.rest()
    assert 0.3 <= time.monotonic() - begun < 1.3
    event = tls_end(opened, Cause.SETUP_DEADLINE)
    assert event.handled == 0.0


def test_byte_now_and_then_does_not_outlive_the_setup(house: Open) -> None:
    opened = house(echo, setup_timeout=0.3)
    client = opened.raw_client()
    begun = time.monotonic()
    for byte in HELLO:
        client.sendall(bytes([byte]))
        if not client.hears_nothing(0.02):
            break
    assert time.monotonic() - begun < 1.3
    client.close()
    tls_end(opened, Cause.SETUP_DEADLINE)


def test_hello_in_pieces_is_a_hello(house: Open) -> None:
    """Cut at every byte."""
    opened = house(echo)
    client = opened.raw_client()
    for byte in HELLO:
        client.sendall(bytes([byte]))
    assert client.receive(3) == b"\x16\x03\x03"


@EVERY_RUNNER
def test_client_that_does_not_trust_the_certificate_says_why(house: Open) -> None:
    opened = house(echo)
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        client = opened.tls_client(context)
        try:
            client.wait_for_handshake()
        finally:
            client.close()
    tls_end(opened, Cause.TLS_ERROR)
    assert "trust" in opened.setup_failure().reason


@pytest.mark.runners("threads", "fibers", "inline")
def test_mute_clients_hold_no_thread_and_nobody_up(house: Open, place: Place) -> None:
    opened = house(echo, threads=1) if place.runner == "threads" else house(echo)
    for number in range(20):
        opened.raw_client().sendall(HELLO[: number * 10])
    client = opened.client()
    begun = time.monotonic()
    assert client.ask(b"x") == b"x"
    assert time.monotonic() - begun < 2.0


def test_server_name_of_any_bytes_is_quiet(house: Open, lines: Callable[[], list[str]]) -> None:
    opened = house(echo)
    client = opened.raw_client()
    client.sendall(HELLO.replace(b"localhost", b"l\xf6cal\x00ost"))
    assert client.rest()[:2] in (ALERT, b"")
    tls_end(opened, Cause.TLS_ERROR)
    assert opened.setup_failure().reason
    lines()


# In mid-stream


def established(opened: House, version: str = "TLSv1.3") -> TlsClient:
    """A client whose handler is there and reads."""
    context = client_context()
    context.minimum_version = context.maximum_version = VERSIONS[version]
    client = opened.tls_client(context)
    assert client.ask(b"x") == b"x"
    return client


def read_on(conn: Connection, journal: Journal) -> None:
    """Echo, and tell how that ended."""
    try:
        echo(conn)
        journal.write("end of stream")
    except ConnectionEnded as error:
        journal.write(error.cause)
        raise
    except OSError as error:
        journal.write(type(error).__name__)
        raise


def forge(client: TlsClient) -> None:
    socket.socket.sendall(client, FORGED)


def speak_plain(client: TlsClient) -> None:
    socket.socket.sendall(client, b"QUIT\r\nQUIT\r\n")


def break_a_record(client: TlsClient) -> None:
    client.wait_for_handshake()
    client.session.write(b"important")
    record = bytearray(client._out.read())
    record[-1] ^= 1
    socket.socket.sendall(client, record)


@EVERY_RUNNER
@pytest.mark.tls_families("tcp4", "unix")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("act", [forge, speak_plain, break_a_record])
def test_record_that_is_none_ends_the_connection(
    house: Open,
    journal: Journal,
    lines: Callable[[], list[str]],
    act: Callable[[TlsClient], None],
    version: str,
) -> None:
    opened = house(lambda conn: read_on(conn, journal))
    client = established(opened, version)
    act(client)
    assert journal.read() == "tls_error"
    with pytest.raises(OSError):  # an alert
        client.recv(1)
    client.close()
    tls_end(opened, Cause.TLS_ERROR, Phase.HANDLER)
    lines()


@EVERY_RUNNER
@pytest.mark.parametrize("version", VERSIONS)
def test_stream_that_ends_in_the_middle_of_a_record_is_a_reset(house: Open, journal: Journal, version: str) -> None:
    """What came before is delivered; the part is nobody's."""
    opened = house(lambda conn: read_on(conn, journal))
    client = established(opened, version)
    client.session.write(b"never whole")
    socket.socket.sendall(client, client._out.read()[:-1])
    socket.socket.shutdown(client, socket.SHUT_WR)
    assert journal.read() == "ConnectionResetError"
    client.close()
    event = opened.end()
    assert event.cause is Cause.RESET
    assert event.bytes_received == 1
    assert opened.is_quiet()


@EVERY_RUNNER
@pytest.mark.parametrize("settings", [{"idle_timeout": 0.3}, {"message_timeout": 0.3}], ids=["idle", "message"])
def test_record_that_never_becomes_whole_is_ended(house: Open, settings: dict[str, float]) -> None:
    """A byte now and then is none for `message_timeout`; nothing at all is idle."""
    opened = house(echo, **settings)
    client = established(opened)
    client.session.write(b"x" * 10_000)
    record = client._out.read()
    begun = time.monotonic()
    if "idle_timeout" in settings:
        socket.socket.sendall(client, record[:100])
        assert not client.hears_nothing(SOON)
    else:
        for number in range(200):
            socket.socket.sendall(client, record[number : number + 1])
            if not client.hears_nothing(0.02):
                break
    assert 0.25 <= time.monotonic() - begun < 2.5
    client.close()
    assert opened.cause() is (Cause.IDLE if "idle_timeout" in settings else Cause.MESSAGE_DEADLINE)
    assert opened.is_quiet()


@TCP
@EVERY_RUNNER
@pytest.mark.parametrize("version", VERSIONS)
def test_reset_in_mid_stream_is_a_reset(house: Open, journal: Journal, version: str) -> None:
    opened = house(lambda conn: read_on(conn, journal))
    client = established(opened, version)
    client.reset()
    assert journal.read() == "ConnectionResetError"
    tls_end(opened, Cause.RESET, Phase.HANDLER)


@TCP
@EVERY_RUNNER
def test_reset_while_much_is_sent_is_a_reset(house: Open) -> None:
    def handle(conn: Connection) -> None:
        while True:
            conn.sendall(b"x" * 1_000_000)

    opened = house(handle)
    client = opened.tls_client()
    assert client.receive(100_000)
    client.reset()
    tls_end(opened, Cause.RESET, Phase.HANDLER)


def test_peer_that_reads_nothing_gets_no_close_notify_and_holds_nobody_up(house: Open) -> None:
    """Its own short deadline; the handler has left long before."""

    def handle(conn: Connection) -> None:
        conn.settimeout(0.2)
        try:
            while True:
                conn.send(b"x" * 100_000)
        except TimeoutError:
            pass

    opened = house(handle)
    client = opened.client()
    begun = time.monotonic()
    assert client.hears_nothing(0) in (True, False)
    event = opened.end()
    assert event.handled < 2.0
    assert time.monotonic() - begun < 5.0
    assert opened.is_quiet()


def test_noise_in_mid_stream_never_makes_a_traceback(house: Open, lines: Callable[[], list[str]]) -> None:
    opened = house(echo)
    for number in range(30):
        client = established(opened)
        noise = os.urandom(number * 7) + HELLO[:number] + FORGED[: number * 3]
        socket.socket.sendall(client, noise)
        client.reset() if number % 2 and isinstance(opened.server.address, tuple) else Client.close(client)
        assert opened.cause() in {Cause.TLS_ERROR, Cause.RESET, Cause.PEER_CLOSED}
    assert opened.is_quiet()
    lines()
