"""Unit tests of `moorage.socketserver.threading_mixin`."""

import contextvars
import http.server
import re
import socket
import socketserver as stdlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from moorage.socketserver import BaseRequestHandler, ThreadingMixIn, ThreadingTCPServer, ThreadingUDPServer
from moorage.socketserver.engine import engine_of
from moorage.socketserver.threading_mixin import Threads
from support.client import Client
from support.old_door_serving import HOST, Echo, serving
from support.waiting import eventually, in_thread


class Report(BaseRequestHandler):
    """Hands its thread to the test."""

    server: Any

    def handle(self) -> None:
        self.server.seen.append((threading.current_thread(), threading.current_thread().name, threading.active_count()))
        self.request.sendall(self.request.recv(100))


class Server(ThreadingTCPServer):
    """Remembers what its handlers saw."""

    def __init__(self, handler: Any = Echo) -> None:
        self.seen: list[Any] = []
        super().__init__(HOST, handler)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with serving(server):
        yield server


def test_many_clients_are_served_at_once(server: Server) -> None:
    clients = [Client(server.server_address) for _ in range(20)]
    assert [client.ask(b"hello\n") for client in clients] == [b"hello\n"] * 20
    for client in clients:
        client.close()


def test_thread_bears_the_name_of_the_standard_library_while_it_serves() -> None:
    server = Server(Report)
    with serving(server), Client(server.server_address) as client:
        client.ask(b"x")
    thread, name, _ = server.seen[0]
    assert re.fullmatch(r"Thread-\d+ \(process_request_thread\)", name)
    assert not thread.is_alive()
    assert thread.name != name


@pytest.mark.parametrize(("reuse", "threads"), [(True, 1), (False, 3)])
def test_thread_is_reused_unless_told_otherwise(reuse: bool, threads: int) -> None:
    server = Server(Report)
    server.reuse_threads = reuse
    with serving(server):
        for _ in range(3):
            with Client(server.server_address) as client:
                client.ask(b"x")
                client.rest()
            eventually(lambda: not engine_of(server).busy.threads())
            if reuse:
                eventually(lambda: engine_of(server).pool.idle == 1)  # type: ignore[union-attr]
    assert len({thread for thread, _, _ in server.seen}) == threads


def test_threads_and_connections_are_bounded() -> None:
    server = Server()
    server.max_connections = 3
    with serving(server):
        clients = [Client(server.server_address) for _ in range(10)]
        for client in clients[:3]:
            assert client.ask(b"x\n") == b"x\n"
        assert engine_of(server).gate.free == 0  # type: ignore[union-attr]
        assert len(vars(server)["_threads"]) == 3
        for client in clients:
            assert client.ask(b"x\n") == b"x\n"
            client.close()


def test_programs_own_attribute_of_our_name_is_no_limit() -> None:
    server = Server()
    server.threads = [1, 2, 3]  # type: ignore[assignment]
    with serving(server), Client(server.server_address) as client:
        assert client.ask(b"x\n") == b"x\n"


def test_each_request_begins_with_an_empty_context() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    class Handler(BaseRequestHandler):
        server: Any

        def handle(self) -> None:
            self.server.seen.append(variable.get())
            variable.set(1)

    server = Server(Handler)
    with serving(server):
        for _ in range(3):
            with Client(server.server_address) as client:
                client.rest()
    assert server.seen == [0, 0, 0]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_of_a_handler_goes_to_the_excepthook_and_the_pool_keeps_its_thread(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooked: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: hooked.append((args.exc_type, args.thread)))

    class Handler(BaseRequestHandler):
        server: Any

        def handle(self) -> None:
            if self.request.recv(1) == b"!":
                raise error
            self.server.seen.append(threading.current_thread())

    server = Server(Handler)
    with serving(server):
        for data in (b"!", b"."):
            with Client(server.server_address) as client:
                client.sendall(data)
                client.rest()
            eventually(lambda: engine_of(server).pool.idle == 1)  # type: ignore[union-attr]
    assert hooked == [(error, server.seen[0])]


@pytest.mark.parametrize("daemon", [True, False])
def test_threads_of_a_handler_inherit_what_they_would_from_the_standard_librarys(daemon: bool) -> None:
    class Handler(BaseRequestHandler):
        server: Any

        def handle(self) -> None:
            self.server.seen.append(threading.Thread().daemon)

    server = Server(Handler)
    server.daemon_threads = daemon
    with serving(server), Client(server.server_address) as client:
        client.rest()
    assert server.seen == [daemon]


def test_server_close_waits_for_a_handler_at_work() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Handler(BaseRequestHandler):
        server: Any

        def handle(self) -> None:
            begun.set()
            go_on.wait(10)
            self.server.seen.append("done")

    server = Server(Handler)
    with in_thread(server.serve_forever), Client(server.server_address):
        assert begun.wait(10)
        server.shutdown()
        with in_thread(server.server_close) as closing:
            closing.wait_asleep()
            assert server.seen == []
            go_on.set()
    assert server.seen == ["done"]


@pytest.mark.parametrize("setting", [{"daemon_threads": True}, {"block_on_close": False}])
def test_server_close_does_not_wait_when_told_so(setting: dict[str, bool]) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Handler(BaseRequestHandler):
        server: Any

        def handle(self) -> None:
            begun.set()
            go_on.wait(10)

    server = type("Server", (ThreadingTCPServer,), setting)(HOST, Handler)
    with in_thread(server.serve_forever), Client(server.server_address):
        assert begun.wait(10)
        server.shutdown()
        server.server_close()
    threads = engine_of(server).busy._at_work.copy()
    go_on.set()
    for thread in threads:
        thread.join(10)


def test_server_close_leaves_no_thread() -> None:
    before = threading.active_count()
    server = Server(Report)
    with serving(server), Client(server.server_address) as client:
        client.ask(b"x")
        client.rest()
        eventually(lambda: engine_of(server).pool.idle == 1)  # type: ignore[union-attr]
    assert threading.active_count() == before


def test_threads_of_the_program_are_waited_for_as_in_the_standard_librarys_list() -> None:
    server = Server()
    threads = Threads(engine_of(server))
    go_on = threading.Event()
    own = threading.Thread(target=go_on.wait, args=(10,))
    threads.append(own)
    threads.append(threading.Thread(daemon=True))
    own.start()
    assert list(threads) == [own]
    threads.reap()
    assert len(threads) == 1
    go_on.set()
    threads.join()
    assert not own.is_alive()
    assert len(threads) == 0
    server.server_close()


def test_threads_forget_the_programs_own_that_ended() -> None:
    with Server() as server:
        threads = Threads(engine_of(server))
        for _ in range(500):
            threads.append(threading.Thread(daemon=False))
        assert len(threads) <= 64


def test_mix_in_works_on_a_stdlib_server_without_install() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(threading.current_thread().name.encode())

        def log_message(self, *_: Any) -> None:
            pass

    class Mixed(ThreadingMixIn, http.server.HTTPServer):
        pass

    assert not issubclass(http.server.HTTPServer, ThreadingMixIn.__mro__[1])
    server = Mixed(HOST, Handler)
    assert isinstance(server, stdlib.ThreadingMixIn)
    with serving(server), Client(server.server_address) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"(process_request_thread)" in client.rest()
        assert engine_of(server).gate.limit == 1024  # type: ignore[union-attr]


def test_datagrams_are_served_in_threads() -> None:

    class Handler(BaseRequestHandler):
        server: Any

        def handle(self) -> None:
            data, sock = self.request
            sock.sendto(data + threading.current_thread().name.encode(), self.client_address)

    server = ThreadingUDPServer(HOST, Handler)
    with serving(server), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        for _ in range(3):
            client.sendto(b"hello ", server.server_address)
            assert re.match(rb"hello Thread-\d+", client.recv(100))
        eventually(lambda: engine_of(server).gate.taken == 0)  # type: ignore[union-attr]
