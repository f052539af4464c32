"""Listeners and the accept loop, seen from outside: every family, limits, lack of descriptors, the end."""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from moorage.connection import Connection
from moorage.errors import BindError
from moorage.events import AcceptFailed, Cause, ConnectionRefused, ServerSuspended
from moorage.server import Server

SOON = 20.0  # seconds after which a test gives up
QUICK: dict[str, Any] = {"drain_quiet": 0.05, "drain_timeout": SOON}

PROGRAM = """
import resource, sys
from moorage.events import AcceptPaused, AcceptResumed
from moorage.server import Server

def echo(conn):
    while data := conn.recv(100):
        conn.sendall(data)

bind, overflow, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
message = b"busy" if overflow == "refuse" else b""
server = Server(echo, bind, overflow=overflow, overflow_message=message, idle_timeout=None)
server.events.subscribe(lambda event: print(type(event).__name__, flush=True), AcceptPaused, AcceptResumed)
with server:
    print(server.address if isinstance(server.address, str) else server.address[1], flush=True)
    sys.stdin.read()
    server.close()
"""


def echo(conn: Connection) -> None:
    while data := conn.recv(100):
        conn.sendall(data)


def connect(address: Any) -> socket.socket:
    family = socket.AF_INET if isinstance(address, tuple) and len(address) == 2 else socket.AF_INET6
    client = socket.socket(family if isinstance(address, tuple) else socket.AF_UNIX)
    client.settimeout(SOON)
    try:
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


def ask(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    return client.recv(100)


@contextmanager
def program(bind: str, overflow: str = "wait", limit: int = 1000) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server in a process of its own, and its port or path."""
    command = [sys.executable, "-c", PROGRAM, bind, overflow, str(limit)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def read_until(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdout is not None
    while (said := process.stdout.readline().strip()) != line:
        assert said, f"the program ended before it said {line}"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Every family


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0", "unix:{tmp}/a.sock", "unix:@moorage-{pid}", "fd://{fd}"])
def test_server_serves_every_kind_of_address(bind: str, tmp_path: Path) -> None:
    fd = socket.create_server(("127.0.0.1", 0)).detach() if bind.startswith("fd:") else -1
    bind = bind.format(tmp=tmp_path, pid=os.getpid(), fd=fd)
    with Server(echo, bind, **QUICK) as server, connect(server.address) as client:
        assert ask(client) == b"hello"
    assert list(tmp_path.iterdir()) == []


def test_server_serves_all_its_addresses_at_once(tmp_path: Path) -> None:
    with Server(echo, ["127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/a.sock"], **QUICK) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(address)) for address in server.addresses]
        assert [ask(client) for client in clients] == [b"hello"] * 3


def test_dual_stack_server_shows_v4_clients_as_v4() -> None:
    def tell(conn: Connection) -> None:
        conn.sendall(repr(conn.peer).encode())

    with Server(tell, "[::]:0", v6only=False, **QUICK) as server:
        address = ("127.0.0.1", server.address[1])
        with connect(address) as client:
            assert client.recv(100).decode() == repr(client.getsockname())


def test_server_on_localhost_serves_each_of_its_addresses_on_one_port() -> None:
    with Server(echo, "localhost:0", **QUICK) as server, ExitStack() as stack:
        assert {address[1] for address in server.addresses} == {server.address[1]}
        clients = [stack.enter_context(connect(address)) for address in server.addresses]
        assert [ask(client) for client in clients] == [b"hello"] * len(clients)


# What cannot be opened


def test_server_whose_port_is_taken_leaves_nothing_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Server(echo, [f"unix:{tmp_path}/a.sock", f"127.0.0.1:{taken.getsockname()[1]}"])
        with closing(server):
            with pytest.raises(BindError, match=f"in use by .*pid {os.getpid()}"):
                server.start()
            assert list(tmp_path.iterdir()) == []


def test_low_port_without_the_right_is_one_sentence() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give its rights up")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setuid(65534)
            Server(echo, "127.0.0.1:1").bind()
        except BindError as error:
            status = 0 if "does not let this user have port 1;" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_unix_path_of_a_killed_server_is_taken_over_and_of_a_live_one_is_not(tmp_path: Path) -> None:
    bind = f"unix:{tmp_path}/a.sock"
    with program(bind) as (process, path):
        with closing(Server(echo, bind)) as second, pytest.raises(BindError, match=rf"in use by .*pid {process.pid}"):
            second.start()
        with connect(path) as client:
            assert ask(client) == b"hello"
        process.send_signal(signal.SIGKILL)
        process.wait(SOON)
    assert Path(path).is_socket()
    with Server(echo, bind, **QUICK) as server, connect(server.address) as client:
        assert ask(client) == b"hello"
    assert list(tmp_path.iterdir()) == []


# Above the limit


def test_clients_above_the_limit_wait_for_their_turn() -> None:
    with Server(echo, "127.0.0.1:0", max_connections=2, **QUICK) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server.address)) for _ in range(6)]
        for client in clients:
            client.sendall(b"x")
        for client in clients:
            assert client.recv(10) == b"x"
            assert len(server.connections) <= 2
            client.close()


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_refused_client_reads_the_whole_message_although_it_has_spoken_first(family: str, tmp_path: Path) -> None:
    bind = "127.0.0.1:0" if family == "tcp" else f"unix:{tmp_path}/a.sock"
    limits: dict[str, Any] = {"max_connections": 1, "overflow": "refuse", "overflow_message": b"busy\r\n"}
    with Server(echo, bind, **limits, **QUICK) as server:
        refused = server.events.queue(10, ConnectionRefused)
        with connect(server.address) as guest:
            assert ask(guest) == b"hello"
            for _ in range(5):
                with connect(server.address) as client:
                    client.sendall(b"unread " * 100)
                    assert client.recv(100) == b"busy\r\n"
                    client.shutdown(socket.SHUT_WR)
                    assert client.recv(100) == b""
                assert refused.get(SOON) == ConnectionRefused(ANY, Cause.REFUSED_TOTAL)
            assert ask(guest) == b"hello"


def test_reset_client_is_reset() -> None:
    limits: dict[str, Any] = {"max_connections": 1, "overflow": "reset"}
    with Server(echo, "127.0.0.1:0", **limits, **QUICK) as server, connect(server.address) as guest:
        assert ask(guest) == b"hello"
        with pytest.raises(ConnectionResetError), connect(server.address) as client:  # the reset may beat connect
            client.recv(100)


# Out of descriptors


@contextmanager
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1024)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_server_out_of_descriptors_rests_reports_once_a_second_and_recovers() -> None:
    with many_files(), program("127.0.0.1:0", "wait", 48) as (process, port), ExitStack() as stack:
        clients = [stack.enter_context(connect(("127.0.0.1", int(port)))) for _ in range(80)]
        read_until(process, "AcceptPaused")
        started, before = time.monotonic(), cpu_seconds(process.pid)
        for _ in range(3):
            read_until(process, "AcceptPaused")
        elapsed, spent = time.monotonic() - started, cpu_seconds(process.pid) - before
        assert elapsed > 2.9  # three more reports: a second each
        assert spent / elapsed < 0.05
        for client in clients:  # in the order they came: those who wait get the places of those who leave
            assert ask(client) == b"hello"
            client.close()
        read_until(process, "AcceptResumed")


def test_server_out_of_descriptors_closes_clients_where_they_are_not_to_wait() -> None:
    with many_files(), program("127.0.0.1:0", "refuse", 48) as (_, port), ExitStack() as stack:
        clients = [stack.enter_context(connect(("127.0.0.1", int(port)))) for _ in range(80)]
        answers = []
        for client in clients:
            try:
                answers.append(ask(client, b"x"))
            except OSError:  # closed with our byte unread, which destroys the message
                answers.append(b"busy")
        served = answers.count(b"x")
        assert 20 < served < 48
        assert answers == [b"x"] * served + [b"busy"] * (80 - served)


# The end


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_drain_serves_those_in_the_backlog(family: str, tmp_path: Path) -> None:
    def once(conn: Connection) -> None:
        conn.sendall(conn.recv(100))

    bind = "127.0.0.1:0" if family == "tcp" else f"unix:{tmp_path}/a.sock"
    with Server(once, bind, max_connections=4, **QUICK) as server, ExitStack() as stack:
        suspended = server.events.queue(1, ServerSuspended)
        server.suspend()
        suspended.get(SOON)
        clients = [stack.enter_context(connect(server.address)) for _ in range(50)]
        for client in clients:
            client.sendall(b"x")
        drain = stack.enter_context(ThreadPoolExecutor(1)).submit(server.drain)
        for client in clients:
            assert client.recv(10) == b"x"
            client.close()
        assert drain.result(SOON)


def test_listener_ruined_by_the_program_ends_the_server_with_that_error() -> None:
    server = Server(echo, "127.0.0.1:0", **QUICK)
    failed = server.events.queue(1, AcceptFailed)
    server.start()
    server.socket.shutdown(socket.SHUT_RDWR)
    event = failed.get(SOON)
    assert isinstance(event, AcceptFailed)
    assert event.error.errno == errno.EINVAL
    with pytest.raises(OSError, match="Invalid argument"):
        server.serve_forever()
    server.close()
