"""The socket contract: a connection goes wherever a connected socket goes."""

import array
import io
import os
import select
import selectors
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage import Connection
from moorage.events import Cause
from support.house import House, Journal, Open, Place

RAW = pytest.mark.security("plain")  # over TLS the descriptor has bytes that only the connection can read

# Through the modules of the standard library


def by_select(conn: Connection) -> None:
    while True:
        readable, writable, broken = select.select([conn], [conn], [conn], 10)
        assert writable == [conn]
        assert not broken
        if not readable:
            readable, _, _ = select.select([conn], [], [], 10)
        data = conn.recv(100)
        if not data:
            return
        conn.sendall(data)


def by_selectors(conn: Connection) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(conn, selectors.EVENT_READ, "the data")
        while True:
            ((key, _mask),) = selector.select(10)
            assert (key.fileobj, key.data) == (conn, "the data")
            data = conn.recv(100)
            if not data:
                return
            conn.sendall(data)


def by_text(conn: Connection) -> None:
    with io.TextIOWrapper(conn.makefile("rb"), encoding="utf-8") as text:  # type: ignore[type-var]
        for line in text:
            conn.sendall(line.encode())


def by_text_of_makefile(conn: Connection) -> None:
    with conn.makefile("r", encoding="utf-8") as text:
        for line in text:
            conn.sendall(str(line).encode())


def by_file_for_both(conn: Connection) -> None:
    file: Any = conn.makefile("rwb")
    with file:
        for line in file:
            file.write(line)
            file.flush()


def by_buffered_reader(conn: Connection) -> None:
    raw: Any = conn.makefile("rb", 0)
    writer: Any = conn.makefile("wb", 0)
    with io.BufferedReader(raw) as reader, writer:
        for line in reader:
            writer.write(line)


def by_plain_socket(conn: Connection) -> None:
    with conn.dup() as sock:
        while data := sock.recv(100):
            sock.sendall(data)


def by_program(conn: Connection) -> None:
    own: Any = conn
    subprocess.run(["cat"], stdin=own, stdout=own, check=True)


def by_program_in_the_middle(conn: Connection) -> None:
    own: Any = conn
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=own) as cat:
        assert cat.stdin is not None
        while data := conn.recv(100):
            cat.stdin.write(data)
            cat.stdin.flush()


def by_recv_into(conn: Connection) -> None:
    buffer = bytearray(100)
    while count := conn.recv_into(buffer):
        conn.sendall(memoryview(buffer)[:count])


def by_recv_into_of_other_items(conn: Connection) -> None:
    buffer = array.array("H", [0] * 50)
    while count := conn.recv_into(buffer, 10):
        conn.sendall(buffer.tobytes()[:count])


def by_messages(conn: Connection) -> None:
    while True:
        data, ancillary, flags, _address = conn.recvmsg(100)
        assert (ancillary, flags & ~socket.MSG_EOR) == ([], 0)
        if not data:
            return
        sent = conn.sendmsg([data[:3], data[3:]])
        assert sent == len(data)


def by_recvfrom(conn: Connection) -> None:
    while data := conn.recvfrom(100)[0]:
        conn.sendall(data)


def by_peeking(conn: Connection) -> None:
    while peeked := conn.recv(5, socket.MSG_PEEK):
        assert conn.recv(len(peeked), socket.MSG_WAITALL) == peeked
        conn.sendall(peeked)


def by_not_blocking(conn: Connection) -> None:
    conn.setblocking(False)
    assert conn.gettimeout() == 0.0
    while True:
        try:
            data = conn.recv(100)
        except BlockingIOError:
            select.select([conn], [], [], 10)
            continue
        if not data:
            return
        conn.sendall(data)


def by_context(conn: Connection) -> None:
    with conn as same:
        assert same is conn
        while data := same.recv(100):
            same.sendall(data)


#: what needs the descriptor, or the kernel's own buffer
BY_DESCRIPTOR = [by_select, by_selectors, by_plain_socket, by_program, by_program_in_the_middle, by_peeking]


@pytest.mark.parametrize(
    "handler",
    [
        by_text, by_text_of_makefile, by_file_for_both, by_buffered_reader, by_recv_into, by_recv_into_of_other_items,
        by_messages, by_recvfrom, by_not_blocking, by_context,
    ],
)  # fmt: skip
def test_connection_passes_through(house: Open, handler: Callable[[Connection], None]) -> None:
    converse(house(handler))


@RAW
@pytest.mark.parametrize("handler", BY_DESCRIPTOR)
def test_descriptor_passes_through(house: Open, handler: Callable[[Connection], None]) -> None:
    converse(house(handler))


def converse(opened: House) -> None:
    client = opened.client()
    assert client.ask(b"first line\n") == b"first line\n"
    assert client.ask("zweite Zeile: äöü\n".encode()) == "zweite Zeile: äöü\n".encode()
    client.sendall(b"last\n")
    client.say_no_more()
    assert client.rest() == b"last\n"
    opened.end()
    assert opened.is_quiet()


@RAW
def test_program_may_have_the_connection_for_all_its_streams(house: Open) -> None:
    program = "import sys; print('hello', sys.stdin.readline().strip()); sys.stderr.write('bye')"

    def handle(conn: Connection) -> None:
        own: Any = conn
        subprocess.run([sys.executable, "-c", program], stdin=own, stdout=own, stderr=own, check=True)

    client = house(handle).client()
    client.sendall(b"world\n")
    assert client.rest() == b"hello world\nbye"


@RAW
@pytest.mark.families("tcp4", "tcp6")
def test_connection_passes_through_ssl(house: Open) -> None:
    """`wrap_socket` takes the descriptor away; anonymous keys, so that no certificate is needed."""

    def context(side: int) -> ssl.SSLContext:
        made = ssl.SSLContext(side)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        made.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
        return made

    def handle(conn: Connection) -> None:
        with context(ssl.PROTOCOL_TLS_SERVER).wrap_socket(conn, server_side=True) as tls:  # type: ignore[arg-type]
            tls.sendall(b"secret: " + tls.recv(100))

    opened = house(handle)
    with context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(opened.client()) as tls:
        tls.sendall(b"hello")
        assert tls.recv(100) == b"secret: hello"
    assert opened.cause() is Cause.DETACHED
    assert opened.is_quiet()


def test_sendfile_sends_the_part_that_was_asked_for(house: Open, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 100_000)

    def handle(conn: Connection) -> None:
        with path.open("rb") as file:
            sent = conn.sendfile(file, offset=5, count=700_001)
            assert (sent, file.tell()) == (700_001, 700_006)

    opened = house(handle)
    assert opened.client().rest() == path.read_bytes()[5:700_006]
    opened.end()
    assert opened.is_quiet()


@RAW
@pytest.mark.families("unix")
def test_descriptors_pass_through_a_unix_connection(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        data, fds, _flags, _address = conn.recvmsg(10, socket.CMSG_SPACE(4))
        number = array.array("i")
        number.frombytes(fds[0][2])
        os.write(number[0], b"written by the handler\n")
        os.close(number[0])
        conn.sendall(data)

    client = house(handle).client()
    read, write = os.pipe()
    with open(read, "rb") as reader, open(write, "wb") as writer:
        socket.send_fds(client, [b"pipe"], [writer.fileno()])
        assert client.rest() == b"pipe"
        assert reader.readline() == b"written by the handler\n"


# What it says of itself


@RAW
def test_connection_answers_as_a_socket_does(house: Open, place: Place, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        with conn.dup() as sock:
            for name in ("family", "type", "timeout"):
                journal.write(getattr(conn, name) == getattr(sock, name))
            for name in ("getsockname", "getpeername", "gettimeout", "getblocking", "get_inheritable"):
                journal.write(getattr(conn, name)() == getattr(sock, name)())
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
            journal.write(
                conn.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
                == sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
                >= 20_000
            )
            missing = [name for name in dir(sock) if not name.startswith("_") and not hasattr(conn, name)]
            journal.write(missing)

    client = house(handle).client()
    assert client.rest() == b""
    assert [journal.read() for _ in range(9)] == ["True"] * 9
    of_no_use_when_connected = {
        "accept", "bind", "connect", "connect_ex", "listen", "sendto", "set_inheritable", "sendmsg_afalg",
        "recvmsg_into", "recv_fds", "send_fds", "share", "ioctl",
    }  # fmt: skip
    assert set(eval(journal.read())) <= of_no_use_when_connected


@RAW
@pytest.mark.families("tcp4", "tcp6")
def test_accepted_socket_has_the_options_of_its_listener(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        journal.write(
            [
                conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0,
                conn.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0,
                conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            ]
        )

    house(handle).client().rest()
    assert journal.read() == "[True, True, 60, 15, 4, 120000]"


def test_timeouts_that_make_no_sense_are_refused(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        for seconds in (-1, float("nan"), -0.001):
            try:
                conn.settimeout(seconds)
            except ValueError:
                journal.write("refused")
        try:
            conn.settimeout("soon")  # type: ignore[arg-type]
        except TypeError:
            journal.write("refused")
        journal.write(conn.gettimeout())

    house(handle).client().rest()
    assert [journal.read() for _ in range(5)] == ["refused"] * 4 + ["None"]


def test_recv_and_files_may_be_mixed(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        journal.write(conn.rfile.readline())
        journal.write(conn.recv(3))
        journal.write(conn.makefile("rb").read(3))
        journal.write(conn.read_until(b";"))
        journal.write(conn.readline())

    client = house(handle).client()
    client.sendall(b"line\nabcdefuntil;rest\n")
    assert [journal.read() for _ in range(5)] == ["b'line\\n'", "b'abc'", "b'def'", "b'until;'", "b'rest\\n'"]
