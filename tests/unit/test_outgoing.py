"""Outgoing: a connection to elsewhere, from threads and from fibers; through real servers in behaviour/."""

import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from moorage import outgoing, twins
from moorage.config import ServerSettings
from moorage.config.address import describe
from moorage.connection import Connection
from moorage.deadline import Deadline, monotonic
from moorage.errors import ConnectionEnded, SettingError, TooLarge
from moorage.events import Cause
from moorage.handler import Service
from moorage.outgoing import Limits, connect
from moorage.server import Server
from moorage.state import State
from support.guests import guest
from support.sockets import PATIENCE, open_fds, read_all
from support.strands import THREADS, FiberStrands, Strands, fibers, run_all, strands_of
from support.tls_pairs import NAME, client_context, server_context
from support.twins import NATIVE, PURE
from support.waiting import Running, eventually, in_thread

SHORT = 0.1
#: a loop takes connections of its own twin only: those that were chosen when this process began
FIBERS = f"fibers-{NATIVE if twins.NATIVE else PURE}"


class Stop(BaseException):
    """As `HandlerStopped`: no handler expects it."""


@pytest.fixture(params=[THREADS, FIBERS])
def strands(request: pytest.FixtureRequest) -> Iterator[Strands]:
    with strands_of(request.param) as strands:
        yield strands


@pytest.fixture
def loop() -> Iterator[FiberStrands]:
    with fibers(FIBERS) as strands:
        yield strands


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        yield listener


@contextmanager
def full(listener: socket.socket) -> Iterator[None]:
    """Nobody more gets in: clients wait for an answer until somebody is accepted."""
    listener.listen(0)
    with ExitStack() as stack:
        while True:
            sock = stack.enter_context(socket.socket(listener.family))
            sock.settimeout(SHORT)
            try:
                sock.connect(listener.getsockname())
            except (TimeoutError, BlockingIOError):
                break
        yield


def text_of(listener: socket.socket) -> str:
    return describe(listener.getsockname())


def call(strands: Strands, use: Callable[[], object]) -> Any:
    return strands.start(use).result()


# Addresses


def tcp(stack: ExitStack, folder: Path) -> tuple[socket.socket, list[Any]]:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return listener, [text_of(listener), listener.getsockname(), ("localhost", listener.getsockname()[1])]


def tcp6(stack: ExitStack, folder: Path) -> tuple[socket.socket, list[Any]]:
    try:
        listener = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
    except OSError:
        pytest.skip("this host has no IPv6 loopback")
    port = listener.getsockname()[1]
    return listener, [f"[::1]:{port}", ("::1", port), listener.getsockname()]


def unix(stack: ExitStack, folder: Path) -> tuple[socket.socket, list[Any]]:
    path = str(folder / "s")
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen()
    return listener, [f"unix:{path}", path, path.encode()]


def abstract(stack: ExitStack, folder: Path) -> tuple[socket.socket, list[Any]]:
    name = f"moorage-test-{os.getpid()}"
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(f"\0{name}")
    listener.listen()
    return listener, [f"unix:@{name}", f"\0{name}", f"\0{name}".encode()]


@pytest.mark.parametrize("family", [tcp, tcp6, unix, abstract])
@pytest.mark.parametrize("form", range(3))
def test_address_may_be_written_in_every_form(family: Any, form: int, strands: Strands, tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener, forms = family(stack, tmp_path)

        def ask() -> bytes:
            with connect(forms[form]) as conn:
                conn.sendall(b"question\n")
                return conn.readline()

        task = strands.start(ask)
        listener.settimeout(PATIENCE)
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(100) == b"question\n"
            peer.sendall(b"answer\n")
            assert task.result() == b"answer\n"
            assert peer.recv(100) == b""


@pytest.mark.parametrize("address", ["nowhere", "fd://3", ":80", "[::1]", "::1:80", "a b:80"])
def test_text_that_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingError, match="cannot be"):
        connect(address)


@pytest.mark.parametrize("address", [80, None, ("127.0.0.1",), ("127.0.0.1", "80"), ["a"]])
def test_thing_that_is_no_address_is_refused(address: Any) -> None:
    with pytest.raises(TypeError, match="host and port"):
        connect(address)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_timeout_that_leaves_no_time_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be above zero"):
        connect("127.0.0.1:1", timeout=timeout)


# What it gives


@pytest.fixture
def ends(strands: Strands, listener: socket.socket) -> Iterator[tuple[Connection, socket.socket]]:
    """A connection that was made in such a strand, and its peer."""
    conn: Connection = call(strands, lambda: connect(text_of(listener)))
    peer, _ = listener.accept()
    peer.settimeout(PATIENCE)
    with peer:
        yield conn, peer
        call(strands, conn.close)


def test_result_is_a_connection_in_the_callers_hands(
    ends: tuple[Connection, socket.socket], listener: socket.socket
) -> None:
    conn, peer = ends
    assert isinstance(conn, Connection)
    assert conn.state is State.HANDLER
    assert conn.peer == listener.getsockname()
    assert conn.local == peer.getpeername()
    assert conn.gettimeout() is None
    assert not conn.draining
    assert conn.cause is None
    assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_nagle_may_be_left_on(listener: socket.socket) -> None:
    with connect(text_of(listener), nodelay=False) as conn:
        assert not conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_every_way_to_read_and_write_works(ends: tuple[Connection, socket.socket], strands: Strands) -> None:
    conn, peer = ends
    peer.sendall(b"line\nexact" + b"until;" + b"rest\n" + b"last")
    peer.shutdown(socket.SHUT_WR)

    def read() -> list[bytes]:
        conn.wfile.write(b"hello ")
        conn.sendall(b"there")
        conn.shutdown(socket.SHUT_WR)
        return [conn.readline(), conn.read_exactly(5), conn.read_until(b";"), *conn.rfile]

    assert call(strands, read) == [b"line\n", b"exact", b"until;", b"rest\n", b"last"]
    assert read_all(peer) == b"hello there"
    assert (conn.bytes_sent, conn.bytes_received) == (11, 25)


def test_large_blocks_pass_both_ways(ends: tuple[Connection, socket.socket], strands: Strands) -> None:
    conn, peer = ends
    data = os.urandom(3_000_000)

    def echo() -> bytes:
        conn.sendall(conn.read_exactly(len(data)))
        conn.shutdown(socket.SHUT_WR)
        return b"done"

    task = strands.start(echo)
    peer.sendall(data)
    assert read_all(peer) == data
    assert task.result() == b"done"


def test_timeout_is_recoverable(ends: tuple[Connection, socket.socket], strands: Strands) -> None:
    conn, peer = ends
    peer.sendall(b"half ")

    def read() -> bytes:
        conn.settimeout(SHORT)
        with pytest.raises(TimeoutError):
            conn.readline()
        with pytest.raises(TimeoutError), conn.deadline(SHORT):
            conn.readline()
        peer.sendall(b"a line\n")
        conn.settimeout(None)
        return conn.readline()

    assert call(strands, read) == b"half a line\n"


# Limits


def test_default_limits_are_those_of_a_server_without_its_final_deadlines() -> None:
    settings = ServerSettings()
    assert (Limits().line_limit, Limits().message_limit) == (settings.line_limit, settings.message_limit)
    assert (Limits().idle_timeout, Limits().message_timeout, Limits().write_timeout) == (None, None, None)


def test_line_limit_may_be_given(strands: Strands, listener: socket.socket) -> None:
    def read() -> None:
        with connect(text_of(listener), line_limit=10) as conn:
            conn.readline()

    task = strands.start(read)
    peer, _ = listener.accept()
    with peer:
        peer.sendall(b"x" * 20)
        assert isinstance(task.error(), TooLarge)


def test_idle_timeout_may_be_given_and_is_final(strands: Strands, listener: socket.socket) -> None:
    def read() -> list[str]:
        with connect(text_of(listener), idle_timeout=SHORT) as conn:
            causes = []
            for _ in range(2):
                try:
                    conn.recv(1)
                except ConnectionEnded as error:
                    causes.append(error.cause)
            conn.sendall(b"farewell")
            return causes

    task = strands.start(read)
    peer, _ = listener.accept()
    with peer:
        assert task.result() == [Cause.IDLE, Cause.IDLE]
        assert read_all(peer) == b"farewell"


# The end


def test_close_leaves_no_descriptor_and_nothing_in_the_loop(strands: Strands, listener: socket.socket) -> None:
    def use() -> None:
        conn = connect(text_of(listener))
        conn.settimeout(0.001)
        with suppress(TimeoutError):
            conn.recv(1)  # so that it is registered, with a timer
        conn.close()
        conn.close()
        assert conn.state is State.CLOSED
        assert conn.fileno() == -1
        with pytest.raises(ConnectionEnded):
            conn.recv(1)
        with pytest.raises(ConnectionEnded):
            conn.sendall(b"x")

    call(strands, use)
    before = len(open_fds())
    run_all(strands, *[use] * 5)
    assert len(open_fds()) == before
    if isinstance(strands, FiberStrands):
        assert registered(strands) == 0


def registered(strands: FiberStrands) -> int:
    """How many sockets the loop's epoll has, its own bell excepted."""
    info = Path(f"/proc/self/fdinfo/{strands.loop.fileno()}").read_text()
    return info.count("tfd:") - 1


def test_close_wakes_who_waits(strands: Strands, listener: socket.socket) -> None:
    conn: Connection = call(strands, lambda: connect(text_of(listener)))
    before = len(open_fds())
    reading = strands.start(lambda: conn.recv(1))
    eventually(lambda: conn._waiting_since)
    call(strands, conn.close)
    assert isinstance(reading.error(), ConnectionEnded)
    eventually(lambda: len(open_fds()) < before)
    assert conn.state is State.CLOSED


def test_close_wakes_who_writes(strands: Strands, listener: socket.socket) -> None:
    conn: Connection = call(strands, lambda: connect(text_of(listener)))
    writing = strands.start(lambda: conn.sendall(bytes(50_000_000)))
    eventually(lambda: conn._writing)
    call(strands, conn.close)
    assert isinstance(writing.error(), ConnectionEnded)
    assert conn.fileno() == -1


def test_end_from_another_thread_is_heard(ends: tuple[Connection, socket.socket], strands: Strands) -> None:
    conn, _peer = ends
    reading = strands.start(lambda: conn.recv(1))
    eventually(lambda: conn._waiting_since)
    conn.end()
    error = reading.error()
    assert isinstance(error, ConnectionEnded)
    assert error.cause == Cause.CLOSED_BY_OPERATOR
    assert conn.fileno() >= 0  # its holder closes it


def test_detached_socket_is_the_callers(strands: Strands, listener: socket.socket) -> None:
    def use() -> int:
        with connect(text_of(listener)) as conn:
            return conn.detach()

    with socket.socket(fileno=call(strands, use)) as sock:
        peer, _ = listener.accept()
        with peer:
            sock.sendall(b"mine")
            assert peer.recv(4) == b"mine"


def test_connection_outlives_the_server_it_was_made_in(listener: socket.socket) -> None:
    made: list[Connection] = []

    def handle(conn: Connection) -> None:
        made.append(connect(text_of(listener)))
        made[0].settimeout(SHORT)
        with suppress(TimeoutError):
            made[0].recv(1)

    with Server(handle, "127.0.0.1:0", runner="fibers") as server, socket.create_connection(server.address) as client:
        assert read_all(client) == b""
    made[0].close()
    assert made[0].fileno() == -1


def test_connection_of_a_fiber_may_be_used_in_a_thread(loop: FiberStrands, listener: socket.socket) -> None:
    conn: Connection = call(loop, lambda: connect(text_of(listener)))
    peer, _ = listener.accept()
    with peer, in_thread(conn.readline) as task:
        peer.sendall(b"line\n")
        assert task.result() == b"line\n"
    call(loop, conn.close)


# What goes wrong


def refused_address() -> tuple[str, int]:
    """A port of this host where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address: tuple[str, int] = listener.getsockname()
    return address


def test_refusal_names_the_address(strands: Strands) -> None:
    address = refused_address()
    text = f"cannot connect to {describe(address)}: Connection refused"
    before = len(open_fds())
    with pytest.raises(ConnectionRefusedError, match=text) as raised:
        call(strands, lambda: connect(address))
    assert raised.value.errno == errno.ECONNREFUSED
    assert len(open_fds()) == before


def test_path_that_is_not_there_is_named(strands: Strands, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"cannot connect to unix:{tmp_path}/s: No such file"):
        call(strands, lambda: connect(f"unix:{tmp_path}/s"))


def test_name_that_does_not_exist_is_named(strands: Strands, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror, match=r"cannot connect to no\.such\.host:80: Name or service not known"):
        call(strands, lambda: connect("no.such.host:80"))


def test_name_that_cannot_be_encoded_is_a_name_that_does_not_exist(strands: Strands) -> None:
    with pytest.raises(socket.gaierror, match=r"cannot connect to a\.\.b:80"):
        call(strands, lambda: connect("a..b:80"))


def test_silence_is_a_timeout_that_names_the_address(strands: Strands, listener: socket.socket) -> None:
    begun = monotonic()
    before = len(open_fds())
    with full(listener), pytest.raises(TimeoutError, match=f"cannot connect to {text_of(listener)}: no answer in time"):
        call(strands, lambda: connect(text_of(listener), timeout=SHORT))
    assert SHORT <= monotonic() - begun < PATIENCE
    assert len(open_fds()) == before


def test_full_unix_socket_is_tried_again(strands: Strands, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        with full(listener):
            with pytest.raises(TimeoutError, match="no answer in time"):
                call(strands, lambda: connect(path, timeout=SHORT))
            task = strands.start(lambda: connect(path))
            accepted = [listener.accept()[0]]
            conn: Any = task.result()
            call(strands, conn.close)
        for sock in accepted:
            sock.close()


def test_deadline_of_the_handlers_connection_counts(listener: socket.socket) -> None:
    errors: list[BaseException] = []

    def handle(conn: Connection) -> None:
        with conn.deadline(SHORT):
            try:
                connect(text_of(listener))
            except TimeoutError as error:
                errors.append(error)

    with full(listener), guest() as one:
        Service(handle, one.home.events)(one.connection)
    assert "no answer in time" in str(errors[0])


def test_other_fibers_run_meanwhile(loop: FiberStrands, listener: socket.socket) -> None:
    with full(listener):
        task = loop.start(lambda: connect(text_of(listener), timeout=4 * SHORT))
        assert loop.start(lambda: "ran").result() == "ran"
        assert not task.is_done()
        assert isinstance(task.error(), TimeoutError)


def test_killed_fiber_leaves_no_socket_behind(loop: FiberStrands, listener: socket.socket) -> None:
    with full(listener):
        before = len(open_fds())
        task = loop.start(lambda: connect(text_of(listener)))
        eventually(lambda: len(open_fds()) > before)
        loop.kill(task, Stop())
        assert isinstance(task.error(), Stop)
        assert len(open_fds()) == before
    assert registered(loop) == 0


# Several addresses


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: Any) -> list[str]:
    """Every name has these; returns the names of the threads that asked."""
    asked: list[str] = []

    def ask(host: str, port: int, flags: int = 0) -> list[Any]:
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        asked.append(threading.current_thread().name)
        return [(socket.AF_INET, address) for address in addresses]

    monkeypatch.setattr(outgoing, "_ask", ask)
    return asked


def test_next_address_is_tried(strands: Strands, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, refused_address(), listener.getsockname())
    conn: Connection = call(strands, lambda: connect("two.addresses:80"))
    assert conn.peer == listener.getsockname()
    call(strands, conn.close)


def test_mute_address_leaves_time_for_the_next(
    strands: Strands, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "LEAST_SHARE", SHORT)
    with socket.create_server(("127.0.0.1", 0)) as mute, full(mute):
        answers(monkeypatch, mute.getsockname(), listener.getsockname())
        conn: Connection = call(strands, lambda: connect("two.addresses:80", timeout=4 * SHORT))
        assert conn.peer == listener.getsockname()
        call(strands, conn.close)


def test_every_address_that_failed_is_named(strands: Strands, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = refused_address(), refused_address()
    answers(monkeypatch, one, other)
    text = f"two.addresses:80: {describe(one)}: Connection refused; {describe(other)}: Connection refused"
    with pytest.raises(ConnectionRefusedError, match=text):
        call(strands, lambda: connect("two.addresses:80"))


def test_name_is_asked_for_in_a_thread_by_fibers_only(
    strands: Strands, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, listener.getsockname())
    conn: Connection = call(strands, lambda: connect("one.address:80"))
    call(strands, conn.close)
    assert asked[0].startswith("moorage-blocking") == isinstance(strands, FiberStrands)


def test_resolver_that_hangs_is_a_timeout_in_a_fiber(loop: FiberStrands, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go = threading.Event()

    def hang(host: str, port: int, flags: int = 0) -> list[Any]:
        if not flags:
            may_go.wait(PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(outgoing, "_ask", hang)
    with pytest.raises(TimeoutError, match=r"cannot connect to slow\.name:80"):
        call(loop, lambda: connect("slow.name:80", timeout=SHORT))
    may_go.set()


@pytest.mark.parametrize(
    ("left", "count", "share"), [(None, 3, None), (30.0, 1, 30.0), (30.0, 3, 10.0), (3.0, 3, 2.0), (1.0, 3, 1.0)]
)
def test_share_of_the_time_is_even_with_a_least_part(left: float | None, count: int, share: float | None) -> None:
    remaining = outgoing._share(Deadline(left), count).remaining()
    assert remaining == (share if share is None else pytest.approx(share, abs=0.1))


# TLS


@contextmanager
def tls_echo(listener: socket.socket) -> Iterator[Running]:
    """A server that answers one client; the result of this call is what it received up to close_notify."""

    def serve() -> bytes:
        sock, _ = listener.accept()
        with server_context().wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as peer:
            peer.settimeout(PATIENCE)
            received = b""
            while data := peer.recv(100):
                received += data
                peer.sendall(data)
        return received

    serving = Running(serve)
    yield serving
    serving.thread.join(PATIENCE)


def test_connection_over_tls_is_a_connection(strands: Strands, listener: socket.socket) -> None:
    def ask() -> tuple[bytes, Any]:
        with connect(listener.getsockname(), tls=client_context(), server_name=NAME) as conn:
            conn.sendall(b"question\n")
            return conn.readline(), conn.tls

    with tls_echo(listener) as serving:
        line, info = call(strands, ask)
        assert serving.result() == b"question\n"  # and close_notify
    assert line == b"question\n"
    assert (info.version, info.server_name) == ("TLSv1.3", NAME)
    assert ("DNS", NAME) in info.peer_certificate["subjectAltName"]


def test_certificate_must_name_the_host_of_the_address(strands: Strands, listener: socket.socket) -> None:
    with tls_echo(listener) as serving:
        assert call(strands, lambda: _ask(("localhost", listener.getsockname()[1]), client_context())) == b"question\n"
        serving.result()
    with (
        tls_echo(listener) as serving,
        pytest.raises(ssl.SSLCertVerificationError, match="cannot connect to") as raised,
    ):
        call(strands, lambda: connect(listener.getsockname(), tls=client_context(), server_name="other.example"))
    assert "other.example" in raised.value.verify_message
    assert isinstance(serving.error(), OSError)


def _ask(address: Any, context: Any) -> bytes:
    with connect(address, tls=context) as conn:
        conn.sendall(b"question\n")
        line: bytes = conn.readline()
        return line


def test_certificate_of_a_stranger_is_refused_by_default(strands: Strands, listener: socket.socket) -> None:
    with (
        tls_echo(listener) as serving,
        pytest.raises(ssl.SSLCertVerificationError, match=r"cannot connect to 127.0.0.1:"),
    ):
        call(strands, lambda: connect(listener.getsockname(), tls=True))
    assert isinstance(serving.error(), OSError)


def test_handshake_is_within_the_timeout(strands: Strands, listener: socket.socket) -> None:
    before = open_fds()
    with pytest.raises(TimeoutError, match="cannot connect to"):
        call(strands, lambda: connect(listener.getsockname(), tls=client_context(), timeout=SHORT))
    eventually(lambda: open_fds() <= before)


def test_server_that_leaves_during_the_handshake_is_an_error_that_names_it(
    strands: Strands, listener: socket.socket
) -> None:
    def leave() -> None:
        listener.accept()[0].close()

    leaving = Running(leave)
    with pytest.raises(OSError, match="cannot connect to"):
        call(strands, lambda: connect(listener.getsockname(), tls=client_context()))
    leaving.result()


def test_start_tls_of_an_outgoing_connection_is_the_clients_side(strands: Strands, listener: socket.socket) -> None:
    def serve() -> bytes:
        sock, _ = listener.accept()
        assert sock.recv(100) == b"STARTTLS\n"
        sock.sendall(b"go\n")
        with server_context().wrap_socket(sock, server_side=True) as peer:
            data: bytes = peer.recv(100)
            return data

    def ask() -> None:
        with connect(listener.getsockname()) as conn:
            conn.sendall(b"STARTTLS\n")
            assert conn.readline() == b"go\n"
            conn.start_tls(client_context(), server_hostname=NAME)
            conn.sendall(b"secret")

    serving = Running(serve)
    call(strands, ask)
    assert serving.result() == b"secret"
