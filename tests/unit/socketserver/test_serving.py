"""Unit tests of `moorage.socketserver.serving`: the loop, `shutdown()`, the gate, the hooks."""

import os
import signal
import socket
import socketserver as stdlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from moorage.errors import SettingError
from moorage.socketserver import BaseRequestHandler, BaseServer, TCPServer, ThreadingMixIn, UDPServer
from moorage.socketserver.engine import engine_of
from support.client import Client
from support.old_door_serving import HOST, Echo, serving
from support.waiting import eventually, in_thread


class Server(TCPServer):
    """Remembers which hooks ran, and in which thread."""

    def __init__(self, handler: Any = Echo) -> None:
        self.hooks: list[tuple[str, threading.Thread]] = []
        super().__init__(HOST, handler)


def recorded(name: str) -> Callable[..., Any]:
    def hook(self: Server, *args: Any) -> Any:
        self.hooks.append((name, threading.current_thread()))
        return getattr(super(Server, self), name)(*args)

    return hook


HOOKS = ["get_request", "verify_request", "process_request", "finish_request", "shutdown_request", "close_request"]
for _name in HOOKS:
    setattr(Server, _name, recorded(_name))


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.server_close()


def test_hooks_run_in_the_order_of_the_standard_library_in_the_serving_thread(server: Server) -> None:
    with serving(server) as running, Client(server.server_address) as client:
        assert client.ask(b"hello\n") == b"hello\n"
        client.shutdown(socket.SHUT_WR)
        assert client.rest() == b""
        eventually(lambda: len(server.hooks) >= len(HOOKS))
    assert server.hooks == [(name, running.thread) for name in HOOKS]


def test_handle_request_handles_one(server: Server) -> None:
    with Client(server.server_address) as client:
        client.sendall(b"hello\n")
        client.shutdown(socket.SHUT_WR)
        server.handle_request()
        assert client.rest() == b"hello\n"
    assert [name for name, _ in server.hooks] == HOOKS


def test_handle_request_without_a_client_calls_handle_timeout(server: Server) -> None:
    called = []
    server.timeout = 0.01
    server.handle_timeout = lambda: called.append("timeout")
    server.handle_request()
    assert called == ["timeout"]


def test_handle_request_at_the_limit_waits_for_a_ticket_then_calls_handle_timeout() -> None:
    called, kept = [], []

    class Keeper(TCPServer):
        timeout = 0.05
        max_connections = 1

        def process_request(self, request: Any, client_address: Any) -> None:
            kept.append(request)

        def handle_timeout(self) -> None:
            called.append("timeout")

    with Keeper(HOST, Echo) as server, Client(server.server_address), Client(server.server_address):
        server.handle_request()
        server.handle_request()
        assert (len(kept), called) == (1, ["timeout"])
        kept[0].close()
        server.handle_request()
        assert (len(kept), called) == (2, ["timeout"])
        kept[1].close()


def test_request_that_is_not_verified_is_shut_down(server: Server) -> None:
    server.verify_request = lambda *_: False
    with serving(server), Client(server.server_address) as client:
        assert client.rest() == b""
    assert "process_request" not in [name for name, _ in server.hooks]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_error_of_a_handler_goes_where_the_standard_library_sends_it(
    error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            raise error("a bug")

    with Server(Handler) as server, Client(server.server_address) as client:
        if error is SystemExit:
            with pytest.raises(SystemExit):
                server.handle_request()
        else:
            server.handle_request()
        assert client.rest() == b""
    assert ("Traceback" in capsys.readouterr().err) == (error is ValueError)


def test_handle_error_runs_inside_the_except_block(server: Server) -> None:
    seen: list[BaseException | None] = []

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            raise LookupError

    def handle_error(*_: Any) -> None:
        seen.append(sys.exc_info()[1])

    server.RequestHandlerClass = Handler
    server.handle_error = handle_error  # type: ignore[assignment, method-assign]
    with Client(server.server_address):
        server.handle_request()
    assert isinstance(seen[0], LookupError)


def test_shutdown_ends_every_loop_and_waits_for_them(server: Server) -> None:
    with in_thread(server.serve_forever) as one, in_thread(server.serve_forever) as other:
        one.wait_asleep()
        other.wait_asleep()
        server.shutdown()
        assert not engine_of(server).loops
    server.shutdown()


def test_shutdown_before_serving_makes_it_return_at_once(server: Server) -> None:
    server.shutdown()
    server.serve_forever()
    with in_thread(server.serve_forever) as running:
        running.wait_asleep()
        server.shutdown()


def test_shutdown_from_a_handler_does_not_wait(server: Server) -> None:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            self.server.shutdown()

    server.RequestHandlerClass = Handler
    with in_thread(server.serve_forever), Client(server.server_address):
        pass


def test_shutdown_from_a_signal_handler_in_the_serving_thread_does_not_wait(server: Server) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: server.shutdown())
    try:

        def interrupt() -> None:
            eventually(lambda: engine_of(server).loops)
            os.kill(os.getpid(), signal.SIGUSR1)

        with in_thread(interrupt):
            server.serve_forever()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_private_flag_of_the_standard_library_ends_the_loop(server: Server) -> None:
    with in_thread(server.serve_forever) as running:
        running.wait_asleep()
        assert not server._BaseServer__is_shut_down.is_set()
        assert server._BaseServer__shutdown_request is False
        server._BaseServer__shutdown_request = True
    assert server._BaseServer__is_shut_down.is_set()


def test_server_close_without_shutdown_ends_the_loop(server: Server) -> None:
    with in_thread(server.serve_forever) as running:
        running.wait_asleep()
        server.server_close()
    assert server.fileno() == -1
    assert running.error() is None


def test_service_actions_are_called_at_the_poll_interval_when_overridden() -> None:
    called = threading.Semaphore(0)

    class Ticking(TCPServer):
        def service_actions(self) -> None:
            called.release()

    with Ticking(HOST, Echo) as server, in_thread(lambda: server.serve_forever(0.01)):
        for _ in range(3):
            assert called.acquire(timeout=10)
        server.shutdown()


def test_gate_of_no_ticket_is_a_mistake_that_is_named(server: Server) -> None:
    server.max_connections = 0
    with pytest.raises(SettingError, match="max_connections is 0"), Client(server.server_address):
        server.handle_request()


def test_loop_at_the_limit_leaves_clients_in_the_backlog_until_a_request_is_closed() -> None:
    kept: list[socket.socket] = []

    class Keeper(TCPServer):
        max_connections = 1

        def process_request(self, request: Any, client_address: Any) -> None:
            kept.append(request)

    server = Keeper(HOST, Echo)
    with serving(server), Client(server.server_address), Client(server.server_address):
        eventually(lambda: kept)
        eventually(lambda: next(iter(engine_of(server).loops)).is_waiting)
        assert len(kept) == 1
        kept[0].close()  # without close_request: nobody is told
        eventually(lambda: len(kept) == 2)
    kept[1].close()


def test_loop_at_the_limit_goes_on_when_a_request_was_detached() -> None:
    arrived = threading.Semaphore(0)

    class Leaky(TCPServer):
        max_connections = 1

        def process_request(self, request: Any, client_address: Any) -> None:
            os.close(request.detach())  # neither closed by its method nor given to close_request
            arrived.release()

    server = Leaky(HOST, Echo)
    with serving(server):
        for _ in range(3):
            with Client(server.server_address):
                assert arrived.acquire(timeout=10)


def test_mix_in_leaves_the_overrides_of_a_stdlib_server_in_force() -> None:
    called = []

    class Theirs(stdlib.TCPServer):
        def serve_forever(self, poll_interval: float = 0.5) -> None:
            called.append("serve_forever")

        def shutdown(self) -> None:
            called.append("shutdown")

        def close_request(self, request: Any) -> None:
            called.append("close_request")
            super().close_request(request)

        def shutdown_request(self, request: Any) -> None:
            called.append("shutdown_request")
            super().shutdown_request(request)

        def handle_error(self, request: Any, client_address: Any) -> None:
            called.append("handle_error")

    class Mixed(ThreadingMixIn, Theirs):
        pass

    with Mixed(HOST, Echo) as server, socket.socket() as request:
        server.serve_forever()
        server.shutdown()
        server.shutdown_request(request)
        server.handle_error(request, None)
    assert called == ["serve_forever", "shutdown", "shutdown_request", "close_request", "handle_error"]


def test_base_server_serves_what_is_no_socket() -> None:
    read_end, write_end = os.pipe()
    handled = []

    class Pipe(BaseServer):
        def fileno(self) -> int:
            return read_end

        def get_request(self) -> tuple[bytes, str]:
            return os.read(read_end, 1), "pipe"

        def finish_request(self, request: Any, client_address: Any) -> None:
            handled.append((request, client_address))
            self.shutdown()

    server = Pipe("", BaseRequestHandler)
    os.write(write_end, b"x")
    server.serve_forever()
    os.close(read_end)
    os.close(write_end)
    assert handled == [(b"x", "pipe")]


def test_datagram_that_vanished_does_not_block_the_loop() -> None:
    with UDPServer(HOST, BaseRequestHandler) as server, engine_of(server).loop(), pytest.raises(BlockingIOError):
        server.get_request()


def test_parked_client_takes_no_handler_until_it_speaks() -> None:
    class Parking(Server):
        wait_for_data = True

    server = Parking()
    with serving(server), Client(server.server_address) as mute, Client(server.server_address) as client:
        assert client.ask(b"hello\n") == b"hello\n"
        client.close()
        assert mute.ask(b"hello\n") == b"hello\n"


def test_parked_client_that_stays_mute_is_closed() -> None:
    class Parking(Server):
        wait_for_data = True
        first_data_timeout = 0.02

    server = Parking()
    with serving(server), Client(server.server_address) as mute:
        assert mute.rest() == b""
    assert "process_request" not in [name for name, _ in server.hooks]
