"""What the runner `forks` promises of its processes, with real ones."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from moorage.connection import Connection
from moorage.errors import ConnectionEnded
from moorage.events import AcceptPaused, Cause, ConnectionClosed, DrainStarted, HandlerFailed, HandlersCut
from moorage.server import Server
from support.runner_contract import QUICK, SOON, Running, Start, descriptors, echo, greet, in_background

pytestmark = pytest.mark.filterwarnings("ignore:runner 'forks' in a process with other threads:RuntimeWarning")


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def start(handler: Any, bind: str = "127.0.0.1:0", **settings: Any) -> Running:
            server = Server(handler, bind, runner="forks", **{**QUICK, **settings})
            running = Running(server, stack)
            stack.callback(server.close)
            server.start()
            return running

        yield start


def give_pid(conn: Connection) -> None:
    conn.sendall(b"%d\n" % os.getpid())
    echo(conn)


def list_descriptors(conn: Connection) -> None:
    """Say what this process has open, the connection left out."""
    kinds = []
    for number in os.listdir("/proc/self/fd"):
        try:
            kinds.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # the listing's own
            continue
    conn.sendall("\n".join(sorted(kinds)).encode())


def swallow_everything(conn: Connection) -> None:
    """Never leaves, whatever is raised."""
    conn.sendall(b"!")
    while True:
        try:
            signal.pause()
        except BaseException:
            continue


def clean_up(conn: Connection) -> None:
    """At its end, tell the client's next reader why."""
    report = conn.dup()
    with report:
        try:
            conn.sendall(b"!")
            while True:
                conn.recv(1)
        except ConnectionEnded as error:
            os.write(int(os.environ["MOORAGE_TEST_REPORT"]), str(error.cause).encode())


def stop_the_server(server: Server) -> Any:
    def handler(conn: Connection) -> None:
        conn.recv(1)
        server.shutdown()
        echo(conn)

    return handler


def pid_of(client: Any) -> int:
    return int(b"".join(iter(lambda: client.receive(1), b"\n")))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# A process for each


def test_each_connection_has_a_process_of_its_own(start: Start) -> None:
    running = start(give_pid)
    pids = {pid_of(running.client()) for _ in range(5)}
    assert len(pids) == 5
    assert os.getpid() not in pids


def test_child_has_no_descriptor_of_ours_but_its_own(start: Start) -> None:
    running = start(list_descriptors, max_connections=8)
    others = [running.client() for _ in range(3)]
    for client in others:
        client.receive(1)
    with running.client() as client:
        found = client.rest().decode().splitlines()
    sockets = {kind for kind in found if kind.startswith("socket:")}
    assert len(sockets) == 2, found  # its connection, and its way to the parent
    assert sockets.isdisjoint(descriptors().values())
    assert [kind for kind in found if "pidfd" in kind] == []
    assert [kind for kind in found if "eventpoll" in kind] == ["anon_inode:[eventpoll]"]  # of its own


def test_parent_keeps_no_copy_of_a_clients_socket(start: Start) -> None:
    running = start(give_pid)
    client = running.client()
    pid = pid_of(client)
    os.kill(pid, signal.SIGKILL)
    assert client.is_cut()


def test_descriptors_of_the_user_stay_open(start: Start) -> None:
    database, far = socket.socketpair()
    with database, far:

        def handler(conn: Connection) -> None:
            database.sendall(conn.recv(100))

        client = start(handler).client()
        client.send(b"query")
        far.settimeout(SOON)
        assert far.recv(100) == b"query"


# Ends


def test_child_killed_is_reported_as_killed(start: Start) -> None:
    running = start(give_pid)
    with running.client() as client:
        os.kill(pid_of(client), signal.SIGKILL)
        assert client.is_cut()
    assert running.ended().cause == Cause.KILLED


def test_child_that_exits_on_its_own_is_reported_as_killed(start: Start) -> None:
    running = start(lambda conn: os._exit(3))
    assert running.client().is_cut()
    assert running.ended().cause == Cause.KILLED


def test_child_dead_gives_its_place_to_the_next(start: Start) -> None:
    running = start(give_pid, max_connections=1)
    pids = set()
    for _ in range(5):
        with running.client() as client:
            pids.add(pid_of(client))
            os.kill(max(pids), signal.SIGKILL)
    assert len(pids) == 5


def test_failure_in_a_child_is_logged_with_its_traceback(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def handler(conn: Connection) -> None:
        raise ValueError("what the child said")

    running = start(handler)
    running.client().is_cut()
    running.log.wait(HandlerFailed)
    assert "ValueError: what the child said" in caplog.text
    assert f'File "{__file__}"' in caplog.text


def test_children_leave_no_zombies(start: Start) -> None:
    running = start(give_pid)
    pids = []
    for _ in range(10):
        with running.client() as client:
            pids.append(pid_of(client))
    running.log.wait(ConnectionClosed, 10)
    assert [pid for pid in pids if is_alive(pid)] == []


def test_exit_status_of_the_programs_own_subprocess_is_not_stolen(start: Start) -> None:
    running = start(echo)
    own = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"])
    os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
    for _ in range(3):
        with running.client() as client:
            client.ask(b"x")
    running.log.wait(ConnectionClosed, 3)
    assert own.wait(SOON) == 7


def test_status_of_a_child_stolen_by_the_program_costs_nothing(start: Start) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    try:
        running = start(echo)
        with running.client() as client:
            client.ask(b"12345")
        event = running.ended()
        assert (event.cause, event.bytes_received) == (Cause.PEER_CLOSED, 5)
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.skipif(os.geteuid() == 0, reason="the limit of processes does not bind root")
def test_fork_that_fails_lets_the_client_wait(start: Start) -> None:
    running = start(echo)
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))
    try:
        client = running.client()
        running.log.wait(AcceptPaused)
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    with client:
        assert client.ask(b"x") == b"x"


def test_socket_pair_that_cannot_be_had_lets_the_client_wait(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start(echo)

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", refuse)
        client = running.client()
        assert "Too many open files" in str(running.log.wait(AcceptPaused)[0].error)
    with client:
        assert client.ask(b"x") == b"x"


# Being ended


def test_end_reaches_the_handler_with_its_cause(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    monkeypatch.setenv("MOORAGE_TEST_REPORT", str(write))
    running = start(clean_up)
    with running.client() as client:
        client.receive(1)
        for connection in running.server.connections:
            connection.end(Cause.SHED)
        assert client.is_cut()
    assert running.ended().cause == Cause.SHED
    assert os.read(read, 100) == b"shed"
    os.close(read)
    os.close(write)


def test_child_that_ignores_its_end_is_killed_after_a_second(start: Start) -> None:
    running = start(swallow_everything)
    with running.client() as client:
        client.receive(1)
        assert not running.server.drain(0.1)
        assert client.is_cut()
    event = running.ended()
    assert event.cause == Cause.DRAIN_DEADLINE
    assert 1.0 < event.seconds < SOON / 2


def test_child_stopped_by_a_signal_is_killed_too(start: Start) -> None:
    running = start(give_pid)
    with running.client() as client:
        pid = pid_of(client)
        os.kill(pid, signal.SIGSTOP)
        assert not running.server.drain(0.1)
    assert not is_alive(pid)
    assert not running.log.has(HandlersCut)


def test_drain_with_many_children_tells_them_all(start: Start) -> None:
    running = start(give_pid)
    clients = [running.client() for _ in range(20)]
    pids = [pid_of(client) for client in clients]
    drain = in_background(running.server.drain)
    for client in clients:
        assert client.rest() == b""
        client.close()
    assert drain.result()
    assert [pid for pid in pids if is_alive(pid)] == []


def test_child_forked_during_a_drain_knows_of_it(start: Start) -> None:
    running = start(greet, max_connections=1)
    with running.client() as first, running.client() as second:
        first.receive(1)
        drain = in_background(running.server.drain)
        running.log.wait(DrainStarted)
        first.close()
        assert second.rest() == b"!"
    assert drain.result()
    assert [event.cause for event in running.log.wait(ConnectionClosed, 2)][1] == Cause.DRAINED


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_handler_that_shuts_the_server_down_shuts_the_parents_down(start: Start, family: str, tmp_path: Any) -> None:
    path = tmp_path / "s"
    holder: list[Server] = []

    def handler(conn: Connection) -> None:
        stop_the_server(holder[0])(conn)

    running = start(handler, "127.0.0.1:0" if family == "tcp" else f"unix:{path}")
    holder.append(running.server)
    quiet, client = running.client(), running.client()
    client.send(b"!")
    stopped = in_background(running.server.drain)
    assert client.rest() == b""
    assert quiet.rest() == b""
    client.close()
    quiet.close()
    assert stopped.result()
    assert not path.exists()


# Warning


def test_start_in_a_process_with_threads_warns_once_and_names_them(start: Start) -> None:
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, name="bystander")
    thread.start()
    with pytest.warns(RuntimeWarning, match=r"other threads \(.*bystander") as caught:
        assert [start(echo).client().ask(b"x") for _ in range(2)] == [b"x", b"x"]
    assert len(caught) == 2  # one for each server, not for each fork
    leave.set()
    thread.join()
