"""Unit tests of `moorage.socketserver.forking_mixin`, with real forks."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from moorage.socketserver import BaseRequestHandler, ForkingTCPServer, ForkingUDPServer
from moorage.socketserver.engine import engine_of
from support.client import Client
from support.old_door_serving import HOST, Echo, serving
from support.waiting import eventually, in_thread

# pytest and the serving thread make this process multi-threaded; that the children are fit is what is tested
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


class Pid(BaseRequestHandler):
    """Says in which process it runs, then waits for the end."""

    def handle(self) -> None:
        self.request.sendall(f"{os.getpid()}\n".encode())
        self.request.recv(1)


@pytest.fixture
def server() -> Iterator[ForkingTCPServer]:
    server = ForkingTCPServer(HOST, Pid)
    with serving(server):
        yield server


def test_each_request_has_a_process_of_its_own(server: ForkingTCPServer) -> None:
    with Client(server.server_address) as one, Client(server.server_address) as other:
        pids = {int(one.line()), int(other.line())}
        assert len(pids) == 2
        assert server.active_children == pids
    eventually(lambda: not server.active_children)


def test_many_clients_are_served_at_once() -> None:
    server = ForkingTCPServer(HOST, Echo)
    with serving(server):
        clients = [Client(server.server_address) for _ in range(10)]
        assert [client.ask(b"x\n") for client in clients] == [b"x\n"] * 10
        for client in clients:
            client.close()


def test_active_children_are_none_before_the_first_and_empty_after_server_close() -> None:
    server = ForkingTCPServer(HOST, Pid)
    assert server.active_children is None
    with serving(server), Client(server.server_address) as client:
        client.line()
    assert not server.active_children


def test_children_are_bounded_and_clients_wait_in_the_backlog() -> None:
    server = ForkingTCPServer(HOST, Pid)
    server.max_children = 2
    with serving(server):
        clients = [Client(server.server_address) for _ in range(4)]
        for client in clients[:2]:
            client.line()
        eventually(lambda: next(iter(engine_of(server).loops)).is_waiting)
        assert len(server.active_children or ()) == 2
        for client in clients[:2]:
            client.close()
        for client in clients[2:]:
            assert client.line()
            client.close()


def test_own_subprocess_keeps_its_exit_status_at_the_limit() -> None:
    server = ForkingTCPServer(HOST, Pid)
    server.max_children = 1
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "raise SystemExit(7)"]) as own:
        os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
        with serving(server):
            for _ in range(3):
                with Client(server.server_address) as client:
                    client.line()
        assert own.wait() == 7


def test_child_has_no_listener_and_no_descriptor_of_the_loop() -> None:
    class Handler(BaseRequestHandler):
        server: Any

        def handle(self) -> None:
            links = [
                os.readlink(f"/proc/self/fd/{fd}")
                for fd in os.listdir("/proc/self/fd")
                if os.path.lexists(f"/proc/self/fd/{fd}")
            ]
            kinds = [link for link in links if "eventfd" in link or "eventpoll" in link]
            self.request.sendall(f"{self.server.fileno()} {len(kinds)}\n".encode())

    own = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    ]
    before = len([link for link in own if "eventfd" in link or "eventpoll" in link])
    server = ForkingTCPServer(HOST, Handler)
    with serving(server), Client(server.server_address) as client:
        fileno, kinds = client.line().split()
    assert fileno == b"-1"
    assert int(kinds) == before


def test_error_in_a_child_is_printed_by_the_child(capfd: pytest.CaptureFixture[str]) -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            raise LookupError("a bug")

    server = ForkingTCPServer(HOST, Handler)
    with serving(server), Client(server.server_address) as client:
        assert client.rest() == b""
    assert "LookupError: a bug" in capfd.readouterr().err


def test_collect_children_takes_note_of_those_that_ended(server: ForkingTCPServer) -> None:
    with Client(server.server_address) as client:
        pid = int(client.line())
        server.collect_children()
        assert server.active_children == {pid}
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not server.active_children)
    server.handle_timeout()


def test_server_close_ends_the_child_of_a_deaf_handler_within_the_drain_timeout() -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"x\n")
            while True:
                signal.pause()

    server = ForkingTCPServer(HOST, Handler)
    server.drain_timeout = 0.1
    with serving(server), Client(server.server_address) as client:
        client.line()
    assert not server.active_children


def test_handle_request_forks_too() -> None:
    with ForkingTCPServer(HOST, Pid) as server, Client(server.server_address) as client:
        server.handle_request()
        assert int(client.line()) != os.getpid()
        client.close()


def test_child_of_a_datagram_server_replies() -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            sock.sendto(data, self.client_address)

    server = ForkingUDPServer(HOST, Handler)
    with serving(server), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(b"hello", server.server_address)
        assert client.recv(10) == b"hello"


def test_failed_fork_is_an_error_of_that_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Any] = []
    server = ForkingTCPServer(HOST, Pid)
    server.handle_error = lambda *_: errors.append(sys.exc_info()[1])  # type: ignore[method-assign]
    with in_thread(server.serve_forever) as running:
        running.wait_asleep()
        with monkeypatch.context() as patched:

            def fail() -> int:
                raise BlockingIOError("no process to give")

            patched.setattr(os, "fork", fail)
            with Client(server.server_address) as client:
                assert client.rest() == b""
        with Client(server.server_address) as client:
            assert client.line()
        server.shutdown()
    server.server_close()
    assert [str(error) for error in errors] == ["no process to give"]
