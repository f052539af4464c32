"""Unit tests of `moorage.socketserver.process_pool`, with real forks."""

import os
import signal
import socket
from typing import Any

import pytest

from moorage.socketserver import BaseRequestHandler, ProcessPoolTCPServer
from support.client import Client
from support.old_door_serving import HOST, Echo, serving
from support.waiting import eventually, in_thread

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


class Pid(BaseRequestHandler):
    """Says in which process it runs, then waits for the end."""

    def handle(self) -> None:
        self.request.sendall(f"{os.getpid()}\n".encode())
        self.request.recv(1)


class Pool(ProcessPoolTCPServer):
    """Small."""

    processes = 3


def test_workers_serve_as_many_clients_at_once() -> None:
    server = Pool(HOST, Pid)
    with serving(server):
        clients = [Client(server.server_address) for _ in range(3)]
        pids = {int(client.line()) for client in clients}
        assert pids == server.active_children
        assert len(pids) == 3
        for client in clients:
            client.close()
    assert not server.active_children


def test_workers_are_there_before_the_first_client() -> None:
    server = Pool(HOST, Pid)
    with serving(server):
        eventually(lambda: len(server.active_children or ()) == 3)


def test_worker_that_dies_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    server = Pool(HOST, Pid)
    with serving(server), Client(server.server_address) as client:
        pid = int(client.line())
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: server.active_children and pid not in server.active_children)
        eventually(lambda: len(server.active_children or ()) == 3)
    assert f"worker process {pid} ended with status -9" in caplog.text


def test_shutdown_waits_for_a_worker_at_work() -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"begun\n")
            self.request.sendall(self.request.recv(100))

    server = Pool(HOST, Handler)
    with in_thread(server.serve_forever), Client(server.server_address) as client:
        client.line()
        with in_thread(server.shutdown) as stopping:
            stopping.wait_asleep()
            assert client.ask(b"late\n") == b"late\n"
    server.server_close()


def test_shutdown_ends_a_worker_whose_client_is_idle() -> None:
    server = Pool(HOST, Echo)
    with serving(server), Client(server.server_address) as client:
        assert client.ask(b"x\n") == b"x\n"
    assert not server.active_children


def test_worker_that_does_not_end_is_killed_after_the_drain_timeout(caplog: pytest.LogCaptureFixture) -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"x\n")
            while True:
                signal.pause()

    server = Pool(HOST, Handler)
    server.drain_timeout = 0.05
    with serving(server), Client(server.server_address) as client:
        client.line()
    assert "1 worker processes did not end within 0.05 s and are killed" in caplog.text


def test_shutdown_before_serving_forks_nobody() -> None:
    with Pool(HOST, Pid) as server:
        server.shutdown()
        server.serve_forever()
        assert server.active_children is None


def test_inherited_listener_is_served() -> None:
    listener = socket.create_server(HOST)
    server = Pool(listener.getsockname(), Pid, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=listener.detach())
    with serving(server), Client(server.server_address) as client:
        assert client.line()


def test_error_of_a_handler_does_not_end_its_worker(capfd: pytest.CaptureFixture[Any]) -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(f"{os.getpid()}\n".encode())
            raise LookupError("a bug")

    class One(ProcessPoolTCPServer):
        processes = 1

    server = One(HOST, Handler)
    with serving(server):
        pids = set()
        for _ in range(3):
            with Client(server.server_address) as client:
                pids.add(client.rest())
    assert len(pids) == 1
    assert capfd.readouterr().err.count("LookupError: a bug") == 3
