"""TLS: what both sides agree on, what a handler is told of it, and that bytes and ends arrive; against Python and OpenSSL."""

import hashlib
import os
import shutil
import socket
import ssl
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from moorage import Connection
from moorage.events import Cause, Phase, SetupFailed, TlsEstablished
from support.certificates import FIRST_NAME, Files, certificates, client_context
from support.client import SOON
from support.house import Background, House, Journal, Open, Place
from support.tls_client import TlsClient

pytestmark = [pytest.mark.security("tls"), pytest.mark.runners("threads", "fibers")]

ANYWHERE = pytest.mark.tls_families("tcp4", "unix")
EVERY_RUNNER = pytest.mark.runners("inline", "threads", "fibers", "forks")
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def echo(conn: Connection) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def echo_a_line(conn: Connection) -> None:
    conn.sendall(conn.readline())


def tell(conn: Connection) -> None:
    """What it knows of its TLS, in a line."""
    assert conn.tls is not None
    subject = dict(part[0] for part in conn.tls.peer_certificate["subject"]) if conn.tls.peer_certificate else None
    conn.sendall(f"{conn.tls.version} {conn.tls.server_name} {conn.tls.alpn} {subject}\n".encode())


def only(version: str, files: Files | None = None) -> ssl.SSLContext:
    context = client_context(files)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


def names(client: TlsClient) -> list[str]:
    """The names in the certificate that a client was shown."""
    shown: Any = client.session.getpeercert()
    return [value for _kind, value in shown["subjectAltName"]]


def refused(opened: House, client: TlsClient) -> SetupFailed:
    """The client gets nowhere, is told so by an alert, and the operator hears why."""
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        client.recv(1)
    client.close()
    event = opened.end()
    assert (event.cause, event.phase, event.handled) == (Cause.TLS_ERROR, Phase.TLS, 0.0)
    assert opened.is_quiet()
    return opened.setup_failure()


# What is agreed on


@EVERY_RUNNER
@ANYWHERE
@pytest.mark.parametrize("version", VERSIONS)
def test_version_of_the_client_is_spoken_and_told(house: Open, version: str) -> None:
    client = house(tell).tls_client(only(version))
    assert client.line() == f"{version} localhost None None\n".encode()
    assert client.session.version() == version
    assert client.rest() == b""


def test_handshake_is_an_event(house: Open) -> None:
    opened = house(echo_a_line)
    events = opened.server.events.queue(10, TlsEstablished)
    client = opened.tls_client()
    assert client.ask(b"x\n") == b"x\n"
    event = events.get(SOON)
    assert isinstance(event, TlsEstablished)
    cipher = client.session.cipher()
    assert cipher is not None
    assert (event.version, event.cipher) == (client.session.version(), cipher[0])
    assert 0 < event.seconds < 1.0
    client.close()
    assert event.id == opened.end().id


def test_version_below_the_oldest_is_refused(house: Open) -> None:
    opened = house(echo, tls_min_version="1.3")
    assert "version" in refused(opened, opened.tls_client(only("TLSv1.2"))).reason
    assert opened.tls_client(only("TLSv1.3")).ask(b"x") == b"x"


@pytest.mark.parametrize(("offered", "agreed"), [(["echo/1", "other"], "echo/1"), (["other"], None), ([], None)])
def test_protocol_is_chosen_as_the_server_prefers(house: Open, offered: list[str], agreed: str | None) -> None:
    context = client_context()
    context.set_alpn_protocols(offered)
    client = house(tell, tls_alpn=["echo/2", "echo/1"]).tls_client(context)
    assert client.line().split()[2] == str(agreed).encode()
    assert client.session.selected_alpn_protocol() == agreed


@pytest.mark.security("plain")
def test_connection_without_tls_says_so(house: Open, journal: Journal) -> None:
    house(lambda conn: journal.write(conn.tls)).client().rest()
    assert journal.read() == "None"


# Several certificates


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("first.example", "first"),
        ("second.example", "second"),
        ("SECOND.example", "second"),
        ("a.second.example", "second"),
        ("a.b.second.example", "first"),
        ("third.example", "first"),
        (None, "first"),
    ],
)
def test_certificate_is_chosen_by_the_name(house: Open, asked: str | None, shown: str) -> None:
    known = certificates()
    cert, key = [known.first.cert, known.second.cert], [known.first.key, known.second.key]
    context = client_context()
    context.check_hostname = False
    client = house(tell, tls_cert=cert, tls_key=key).tls_client(context, asked)
    assert (names(client) == [FIRST_NAME]) == (shown == "first")
    assert client.line().split()[1].lower() == str(asked).lower().encode()


# Certificates of clients


@pytest.mark.parametrize("verify", ["required", "optional"])
@pytest.mark.parametrize("version", VERSIONS)
def test_certificate_of_a_client_is_told(house: Open, verify: str, version: str) -> None:
    known = certificates()
    opened = house(tell, tls_verify=verify, tls_client_ca=known.ca)
    assert b"'commonName': 'device-1'" in opened.tls_client(only(version, known.client)).line()


@pytest.mark.parametrize("version", VERSIONS)
def test_client_without_a_certificate_is_refused_where_one_is_required(house: Open, version: str) -> None:
    opened = house(tell, tls_verify="required", tls_client_ca=certificates().ca)
    assert "no certificate" in refused(opened, opened.tls_client(only(version))).reason


def test_client_without_a_certificate_is_served_where_one_is_optional(house: Open) -> None:
    opened = house(tell, tls_verify="optional", tls_client_ca=certificates().ca)
    assert opened.tls_client().line().split()[3] == b"None"


@pytest.mark.parametrize("verify", ["required", "optional"])
def test_certificate_of_a_stranger_is_refused(house: Open, verify: str) -> None:
    known = certificates()
    opened = house(tell, tls_verify=verify, tls_client_ca=known.ca)
    assert "certificate" in refused(opened, opened.tls_client(client_context(known.stranger))).reason


# Bytes and ends


@EVERY_RUNNER
@ANYWHERE
@pytest.mark.parametrize("version", VERSIONS)
def test_much_in_both_directions_at_once_arrives(house: Open, version: str) -> None:
    client = house(echo).tls_client(only(version))
    message = os.urandom(3_000_000)
    answer = Background(lambda: hashlib.sha256(client.receive(len(message))).digest())
    client.sendall(message)
    assert answer.result() == hashlib.sha256(message).digest()
    client.say_no_more()
    assert client.rest() == b""


@EVERY_RUNNER
@ANYWHERE
@pytest.mark.parametrize("version", VERSIONS)
def test_end_said_by_close_notify_alone_leaves_the_reply_open(house: Open, version: str) -> None:
    """TCP stays open both ways."""

    def handle(conn: Connection) -> None:
        size = len(conn.rfile.read())
        conn.sendall(b"r" * size)

    opened = house(handle)
    client = opened.tls_client(only(version))
    client.sendall(b"x" * 500_000)
    client.say_no_more()
    assert client.rest() == b"r" * 500_000
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.is_quiet()


@EVERY_RUNNER
def test_end_of_the_stream_without_close_notify_is_an_end(house: Open, journal: Journal) -> None:
    """As in the standard library; many clients are so."""

    def handle(conn: Connection) -> None:
        journal.write(conn.rfile.read())
        conn.sendall(b"reply")

    opened = house(handle)
    client = opened.tls_client()
    client.wait_for_handshake()
    client.sendall(b"all")
    socket.socket.shutdown(client, socket.SHUT_WR)
    assert journal.read() == "b'all'"
    assert client.rest() == b"reply"
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.is_quiet()


@EVERY_RUNNER
@ANYWHERE
@pytest.mark.parametrize("version", VERSIONS)
def test_end_said_by_the_handler_leaves_reading_open(house: Open, journal: Journal, version: str) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(b"question")
        conn.shutdown(socket.SHUT_WR)
        journal.write(conn.readline())  # some of it is here by now, some not
        journal.write(len(conn.rfile.read()))
        try:
            conn.sendall(b"too late")
        except BrokenPipeError:
            journal.write("BrokenPipeError")

    opened = house(handle)
    client = opened.tls_client(only(version))
    client.sendall(b"early ")
    assert client.receive(100) == b"question"
    client.sendall(b"answer\n" + b"x" * 400_000)
    client.say_no_more()
    assert [journal.read() for _ in range(3)] == ["b'early answer\\n'", "400000", "BrokenPipeError"]
    assert opened.is_quiet()


@EVERY_RUNNER
def test_close_notify_comes_before_the_end_of_the_stream(house: Open) -> None:
    client = house(lambda conn: conn.sendall(b"bye")).tls_client()
    assert client.receive(10) == b"bye"
    assert socket.socket.recv(client, 1) == b""


def test_end_by_close_and_by_finish_says_close_notify_once(house: Open) -> None:
    def handle(conn: Connection) -> None:
        with conn:
            conn.sendall(b"bye")
        conn.close()

    client = house(handle).tls_client()
    assert client.receive(10) == b"bye"
    assert socket.socket.recv(client, 1) == b""


def test_blocks_around_the_size_of_a_record_arrive(house: Open) -> None:
    client = house(echo).tls_client()
    for size in (1, 16383, 16384, 16385, 32768, 65535, 65536, 65537):
        message = os.urandom(size)
        assert client.ask(message) == message


def test_byte_in_a_record_of_its_own_is_a_line_all_the_same(house: Open) -> None:
    client = house(echo_a_line).tls_client()
    for byte in b"slow\n":
        client.sendall(bytes([byte]))
    assert client.rest() == b"slow\n"


def test_what_is_read_ahead_is_no_reason_to_wait(house: Open) -> None:
    """Several lines in one record: the descriptor has nothing any more."""

    def handle(conn: Connection) -> None:
        conn.settimeout(5.0)
        conn.sendall(conn.recv(1) + conn.recv(2) + conn.readline() + conn.recv(100))

    client = house(handle).tls_client()
    client.sendall(b"abcline\nrest")
    assert client.rest() == b"abcline\nrest"


def test_descriptor_is_not_given_away(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        for call in (conn.detach, conn.dup):
            try:
                call()
            except ValueError as error:
                journal.write(error)

    assert house(handle).client().rest() == b""
    assert all("TLS" in journal.read() for _ in range(2))


# The key log


def test_secrets_are_written_to_the_key_log_for_this_user_alone(house: Open, tmp_path: Path) -> None:
    log = tmp_path / "keys"
    opened = house(echo_a_line, tls_key_log=str(log))
    assert opened.tls_client(only("TLSv1.2")).ask(b"x\n") == b"x\n"
    assert opened.tls_client(only("TLSv1.3")).ask(b"x\n") == b"x\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert {"CLIENT_RANDOM", "SERVER_TRAFFIC_SECRET_0"} <= {line.split()[0] for line in log.read_text().splitlines()}


# OpenSSL's own client


def s_client(
    place: Place, opened: House, *arguments: str, said: bytes = b"hello\n"
) -> "subprocess.CompletedProcess[bytes]":
    """What `openssl s_client` hears; it stays until the server ends."""
    command = [*s_client_command(place, opened), *arguments]
    return subprocess.run(command, input=said, capture_output=True, timeout=SOON, check=False)


def s_client_command(place: Place, opened: House) -> list[str]:
    if shutil.which("openssl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no openssl here")
    address = opened.server.address
    where = ["-unix", address] if place.family == "unix" else ["-connect", f"{address[0]}:{address[1]}"]
    if place.family == "tcp6":
        where[1] = f"[{address[0]}]:{address[1]}"
    return ["openssl", "s_client", *where, "-CAfile", certificates().ca, "-verify_return_error"]


@EVERY_RUNNER
@ANYWHERE
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_is_served(house: Open, place: Place, version: str) -> None:
    opened = house(echo_a_line)
    done = s_client(place, opened, "-quiet", "-servername", "localhost", "-verify_hostname", "localhost", version)
    assert (done.stdout, done.returncode) == (b"hello\n", 0), done.stderr
    assert opened.cause() is Cause.HANDLER_DONE
    assert opened.is_quiet()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_shows_its_certificate_and_agrees_on_a_protocol(house: Open, place: Place, version: str) -> None:
    def handle(conn: Connection) -> None:
        conn.readline()
        tell(conn)

    known = certificates()
    own = ["-cert", known.client.cert, "-key", known.client.key]
    opened = house(handle, tls_verify="required", tls_client_ca=known.ca, tls_alpn=["echo/1"])
    done = s_client(place, opened, "-quiet", "-servername", "localhost", "-alpn", "other,echo/1", *own, version)
    assert b"localhost echo/1 {'organizationName'" in done.stdout or b"'device-1'" in done.stdout, done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("command", [b"K", b"k"], ids=["both", "own"])
def test_keys_may_be_changed_in_mid_stream(house: Open, place: Place, command: bytes) -> None:
    """By a command of `s_client`; what it asks of the server is answered."""
    opened = house(echo)
    with subprocess.Popen(
        [*s_client_command(place, opened), "-tls1_3"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
    ) as client:  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        for said, heard in (
            (b"one", b"one"),
            (command, b"KEYUPDATE"),
            (b"two", b"two"),
            (command, b"KEYUPDATE"),
            (b"three", b"three"),
        ):
            client.stdin.write(said + b"\n")
            while heard not in (line := client.stdout.readline()):
                assert line, f"no {heard!r}"
        client.stdin.write(b"Q\n")
        assert client.wait(SOON) == 0
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.is_quiet()


def test_renegotiation_is_refused(house: Open, place: Place) -> None:
    opened = house(echo)
    done = s_client(place, opened, "-tls1_2", said=b"R\n")
    assert b"no renegotiation" in done.stdout + done.stderr
    assert opened.cause() in {Cause.TLS_ERROR, Cause.PEER_CLOSED, Cause.RESET}
    assert opened.is_quiet()
