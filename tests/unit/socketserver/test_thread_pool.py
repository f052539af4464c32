"""Unit tests of `moorage.socketserver.thread_pool`."""

import threading

from moorage.socketserver import BaseRequestHandler, ThreadPoolTCPServer
from moorage.socketserver.engine import engine_of
from support.client import Client
from support.old_door_serving import HOST, Echo, serving
from support.waiting import eventually


class Pool(ThreadPoolTCPServer):
    """Small."""

    threads = 3


def test_threads_are_there_before_the_first_client() -> None:
    server = Pool(HOST, Echo)
    before = threading.active_count()
    with serving(server):
        eventually(lambda: engine_of(server).pool)
        assert threading.active_count() == before + 1 + 3
    assert threading.active_count() == before


def test_as_many_clients_as_threads_are_served_at_once() -> None:
    together = threading.Barrier(3)

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            together.wait(10)
            self.request.sendall(b"ok")

    server = Pool(HOST, Handler)
    with serving(server):
        clients = [Client(server.server_address) for _ in range(6)]
        assert [client.rest() for client in clients] == [b"ok"] * 6


def test_further_clients_wait_in_the_backlog() -> None:
    server = Pool(HOST, Echo)
    with serving(server):
        clients = [Client(server.server_address) for _ in range(4)]
        for client in clients[:3]:
            assert client.ask(b"x\n") == b"x\n"
        eventually(lambda: next(iter(engine_of(server).loops)).is_waiting)
        clients[0].close()
        assert clients[3].ask(b"x\n") == b"x\n"
        for client in clients[1:]:
            client.close()


def test_default_is_as_many_as_the_recipe_starts() -> None:
    assert ThreadPoolTCPServer.threads == 16
