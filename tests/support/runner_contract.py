"""The contract of runners, as clients see it: one class of tests that every runner inherits.

Owns      the handlers and the client that these tests need, and the log of a server's events.
Promises  nothing here knows how a runner works: handlers may run in another thread or process, so they talk
          through their connection only.
"""

import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from moorage.connection import Connection
from moorage.errors import ConnectionEnded
from moorage.events import Cause, ConnectionClosed, DrainStarted, Event, HandlerFailed, Phase
from moorage.handler import StreamRequestHandler
from moorage.server import Server

from .client import SOON, Client
from .house import Place
from .places import has_ipv6

__all__ = [
    "SOON", "ConcurrentRunnerContract", "EventLog", "RunnerContract", "Running", "Start",
    "descriptors", "echo", "greet", "in_background",
]  # fmt: skip

QUICK: dict[str, Any] = {"drain_quiet": 0.1, "drain_timeout": SOON}

#: places that `make test` leaves to `make test-full`
FULL = [pytest.param(name, marks=pytest.mark.full) for name in ("tcp6-plain", "tcp6-tls", "unix-tls")]

E = TypeVar("E", bound=Event)


class EventLog:
    """All events of a server, to wait for."""

    def __init__(self, server: Server) -> None:
        self._events: list[Event] = []
        self._more = threading.Condition()  # guards `_events`
        server.events.subscribe(self._add)

    def _add(self, event: Event) -> None:
        with self._more:
            self._events.append(event)
            self._more.notify_all()

    def wait(self, kind: type[E], count: int = 1) -> list[E]:
        """The first so many events of this class."""

        def found() -> list[E]:
            return [event for event in self._events if isinstance(event, kind)]

        with self._more:
            assert self._more.wait_for(lambda: len(found()) >= count, SOON), f"no {kind.__name__} in {self._events}"
            return found()[:count]

    def has(self, kind: type[Event]) -> bool:
        with self._more:
            return any(isinstance(event, kind) for event in self._events)


class Running:
    """A server that runs, its events, and its clients, which are closed at the end."""

    def __init__(self, server: Server, stack: ExitStack, where: Place | None = None) -> None:
        self.server = server
        self.log = EventLog(server)
        self._stack = stack
        self._where = where or Place("", "tcp4")

    def client(self) -> Client:
        return self._stack.enter_context(self._where.client(self.server.address))

    def ended(self) -> ConnectionClosed:
        """How the first connection ended."""
        return self.log.wait(ConnectionClosed)[0]


Start = Callable[..., Running]


class Background:
    """A call in another thread, and its result."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._thread = threading.Thread(target=lambda: self._results.append(call()))
        self._results: list[Any] = []
        self._thread.start()

    def result(self) -> Any:
        self._thread.join(SOON)
        assert self._results, "the call did not come back"
        return self._results[0]


in_background = Background


# Handlers


def echo(conn: Connection) -> None:
    while data := conn.recv(8192):
        conn.sendall(data)


def echo_lines(conn: Connection) -> None:
    for line in conn.rfile:
        conn.sendall(line)


def greet(conn: Connection) -> None:
    """Say that the handler runs, then read until the end of the stream."""
    conn.sendall(b"!")
    while conn.recv(8192):
        pass


def reply_early(conn: Connection) -> None:
    conn.sendall(b"r" * 200_000)


def send_while_not_draining(conn: Connection) -> None:
    while not conn.draining:
        conn.sendall(b"x" * 1000)
    conn.sendall(b"the end")


def send_more_than_fits(conn: Connection) -> None:
    conn.sendall(b"x" * 50_000_000)


def end_oneself(conn: Connection) -> None:
    conn.end()


def give_away(conn: Connection) -> None:
    with socket.socket(fileno=conn.detach()) as sock:
        sock.sendall(b"mine")


def report_the_end(conn: Connection) -> None:
    """Read; at an end that leaves writing possible, say what it was."""
    try:
        conn.recv(1)
    except ConnectionEnded as error:
        conn.sendall(error.cause.encode())


def raise_what_is_named(conn: Connection) -> None:
    """Raise what the client asks for, which may be an exit."""
    errors: dict[bytes, type[BaseException]] = {
        b"V": ValueError, b"T": TimeoutError, b"S": SystemExit, b"K": KeyboardInterrupt, b"C": ConnectionResetError,
    }  # fmt: skip
    while letter := conn.recv(1):
        if letter in errors:
            raise errors[letter]("asked for")
        conn.sendall(letter)


class Lines(StreamRequestHandler):
    """The handler of every Python book."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class Farewell(Lines):
    """Says goodbye at a drain."""

    def handle_shutdown(self) -> None:
        self.request.sendall(b"bye\n")


def descriptors() -> dict[str, str]:
    """What this process has open."""
    gc.collect()
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own is gone by now
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def children() -> bool:
    """Whether this process has any child, dead ones included."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


class RunnerContract:
    """What every runner does."""

    runner: ClassVar[str]

    @pytest.fixture(params=["tcp4-plain", "unix-plain", "tcp4-tls", *FULL])
    def where(self, request: pytest.FixtureRequest) -> Place:
        family, _, security = str(request.param).partition("-")
        if family == "tcp6" and not has_ipv6():
            pytest.skip("this host has no IPv6 loopback")
        return Place(self.runner, family, security)

    @pytest.fixture
    def start(self, where: Place, tmp_path: Path) -> Iterator[Start]:
        with ExitStack() as stack:

            def start(handler: Any, **settings: Any) -> Running:
                settings = {**QUICK, **where.settings(), **settings}
                server = Server(handler, where.bind(str(tmp_path)), runner=self.runner, **settings)
                running = Running(server, stack, where)
                stack.callback(server.close)
                server.start()
                return running

            yield start

    # Serving

    @pytest.mark.parametrize("handler", [echo, echo_lines, Lines])
    def test_echo_is_served(self, start: Start, handler: Any) -> None:
        client = start(handler).client()
        assert client.ask(b"one\n") == b"one\n"
        assert client.ask(b"two\n") == b"two\n"
        client.say_no_more()
        assert client.rest() == b""

    def test_many_clients_at_once_are_all_served(self, start: Start) -> None:
        running = start(echo)
        clients = [running.client() for _ in range(30)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
            client.say_no_more()
        assert [client.rest() for client in clients] == [b"%d" % number for number in range(30)]

    def test_large_message_arrives_whole(self, start: Start) -> None:
        client = start(echo).client()
        message = os.urandom(1_000_000)
        answer = in_background(lambda: client.receive(len(message)))
        client.sendall(message)
        assert answer.result() == message

    def test_limit_of_connections_is_kept(self, start: Start) -> None:
        running = start(greet, max_connections=3)
        clients = [running.client() for _ in range(9)]
        while clients:
            greeted = [client for client in clients if not client.hears_nothing(0.005)]
            assert len(greeted) <= 3
            for client in greeted:
                client.close()
                clients.remove(client)

    def test_waiting_clients_are_served_in_order(self, start: Start) -> None:
        running = start(greet, max_connections=1)
        clients = [running.client() for _ in range(5)]
        for number, client in enumerate(clients):
            client.sendall(b"x" * (number + 1))
        for client in clients:
            assert client.receive(1) == b"!"
            client.close()
        assert [event.bytes_received for event in running.log.wait(ConnectionClosed, 5)] == [1, 2, 3, 4, 5]

    def test_unread_input_does_not_destroy_the_reply(self, start: Start) -> None:
        client = start(reply_early).client()
        client.sendall(b"x" * 50_000)
        assert client.rest() == b"r" * 200_000

    # Errors

    @pytest.mark.parametrize("letter", [b"V", b"T", b"S", b"K", b"C"])
    def test_exception_of_a_handler_ends_its_connection_and_no_other(self, start: Start, letter: bytes) -> None:
        running = start(raise_what_is_named)
        with running.client() as bad:
            bad.sendall(letter)
            assert bad.is_cut()
        assert running.ended().cause == Cause.HANDLER_ERROR
        assert "asked for" in str(running.log.wait(HandlerFailed)[0].error)
        assert running.client().ask(b"still here") == b"still here"

    # Causes

    @pytest.mark.parametrize(
        ("handler", "settings", "act", "cause"),
        [
            (reply_early, {}, Client.rest, Cause.HANDLER_DONE),
            (echo, {}, lambda c: (c.ask(b"x"), c.close()), Cause.PEER_CLOSED),
            (echo, {"idle_timeout": 0.1}, Client.rest, Cause.IDLE),
            (echo, {"lifetime": 0.1}, Client.is_cut, Cause.LIFETIME),
            (echo_lines, {"message_timeout": 0.1}, lambda c: (c.sendall(b"half"), c.is_cut()), Cause.MESSAGE_DEADLINE),
            (echo_lines, {"line_limit": 10}, lambda c: (c.sendall(b"x" * 20), c.is_cut()), Cause.TOO_LARGE),
            (send_more_than_fits, {"write_timeout": 0.1}, lambda c: c.receive(1), Cause.WRITE_STALLED),
            (end_oneself, {}, Client.is_cut, Cause.CLOSED_BY_OPERATOR),
        ],
        ids=lambda value: value.value if isinstance(value, Cause) else "",
    )
    def test_cause_of_an_end_is_reported(
        self, start: Start, handler: Any, settings: dict[str, Any], act: Callable[[Client], object], cause: Cause
    ) -> None:
        running = start(handler, **settings)
        client = running.client()
        act(client)
        if cause is not Cause.WRITE_STALLED:  # that peer stays, and does not read
            client.close()
        assert running.ended().cause == cause
        assert not running.log.has(HandlerFailed)

    def test_reset_by_the_peer_is_quiet(self, start: Start, where: Place) -> None:
        if where.family == "unix":
            pytest.skip("Unix sockets know no reset")
        running = start(echo)
        client = running.client()
        assert client.ask(b"x") == b"x"
        client.reset()
        assert running.ended().cause == Cause.RESET
        assert not running.log.has(HandlerFailed)

    def test_event_of_an_end_has_the_right_numbers(self, start: Start) -> None:
        running = start(echo)
        with running.client() as client:
            client.ask(b"12345")
        event = running.ended()
        assert (event.bytes_received, event.bytes_sent, event.phase) == (5, 5, Phase.HANDLER)
        assert 0 < event.handled <= event.seconds
        assert 0 <= event.queued <= event.seconds

    def test_connection_detached_keeps_serving_its_client(self, start: Start, where: Place) -> None:
        if where.security == "tls":
            pytest.skip("behind the descriptor is no plain text")
        running = start(give_away)
        assert running.client().rest() == b"mine"
        assert running.ended().cause == Cause.DETACHED

    def test_end_by_the_operator_reaches_the_handler(self, start: Start) -> None:
        running = start(echo)
        client = running.client()
        client.ask(b"x")
        for connection in running.server.connections:
            connection.end()
        assert client.is_cut()
        client.close()
        assert running.ended().cause == Cause.CLOSED_BY_OPERATOR

    def test_idle_end_leaves_time_for_a_farewell(self, start: Start) -> None:
        assert start(report_the_end, idle_timeout=0.1).client().rest() == b"idle"

    # Drain

    def test_drain_without_clients_ends_at_once(self, start: Start) -> None:
        assert start(echo).server.drain()

    def test_drain_tells_a_quiet_client_end_of_stream(self, start: Start) -> None:
        running = start(echo)
        with running.client() as client:
            client.ask(b"x")
            drain = in_background(running.server.drain)
            assert client.rest() == b""
        assert drain.result()
        assert running.ended().cause == Cause.DRAINED

    def test_drain_waits_for_a_begun_line(self, start: Start) -> None:
        running = start(echo_lines)
        with running.client() as client:
            client.ask(b"whole\n")
            client.sendall(b"ha")
            drain = in_background(running.server.drain)
            running.log.wait(DrainStarted)
            assert client.hears_nothing(0.4)
            client.sendall(b"lf\n")
            assert client.rest() == b"half\n"
        assert drain.result()

    def test_drain_cuts_at_its_deadline(self, start: Start) -> None:
        running = start(echo_lines)
        with running.client() as client:
            client.ask(b"whole\n")
            client.sendall(b"half")
            drain = in_background(lambda: running.server.drain(0.3))
            assert client.is_cut()
        assert not drain.result()
        assert running.ended().cause == Cause.DRAIN_DEADLINE

    def test_drain_serves_who_is_in_the_backlog(self, start: Start) -> None:
        running = start(greet, max_connections=1)
        with running.client() as first, running.client() as second:
            first.receive(1)
            drain = in_background(running.server.drain)
            running.log.wait(DrainStarted)
            first.close()
            assert second.rest() == b"!"
        assert drain.result()

    def test_drain_lets_a_handler_say_goodbye(self, start: Start) -> None:
        running = start(Farewell)
        with running.client() as client:
            client.ask(b"hello\n")
            drain = in_background(running.server.drain)
            assert client.rest() == b"bye\n"
        assert drain.result()

    # Afterwards

    def test_close_ends_everybody_at_once(self, start: Start) -> None:
        running = start(echo_lines)
        client = running.client()
        client.ask(b"whole\n")
        client.sendall(b"half")
        begun = time.monotonic()
        running.server.close()
        assert time.monotonic() - begun < SOON / 2
        assert client.is_cut()
        assert running.ended().cause == Cause.CLOSED_BY_OPERATOR

    def test_nothing_is_left_behind(self, where: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # pytest keeps log records, those their tracebacks, and those the handlers' connections
        monkeypatch.setattr(logging.getLogger("moorage"), "disabled", True)
        where.settings()  # makes files, once
        before = descriptors()
        threads = set(threading.enumerate())
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
        settings = {**QUICK, **where.settings()}
        with Server(raise_what_is_named, where.bind(str(tmp_path)), runner=self.runner, **settings) as server:
            for farewell in (b"x", b"V", b"S", b"x"):
                with where.client(server.address) as client:
                    client.sendall(farewell)
            with where.client(server.address) as client:
                assert client.ask(b"x") == b"x"
            assert server.wait_for_connections(0, SOON)
        for thread in set(threading.enumerate()) - threads:
            thread.join(SOON)
        assert set(threading.enumerate()) == threads
        after = descriptors()
        assert after == before, f"{before.items() ^ after.items()}"
        assert not children()
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == handlers


class ConcurrentRunnerContract(RunnerContract):
    """What every runner does that serves several clients at the same time."""

    def test_conversations_go_on_side_by_side(self, start: Start) -> None:
        running = start(echo)
        clients = [running.client() for _ in range(20)]
        for _ in range(2):
            for number, client in enumerate(clients):
                assert client.ask(b"%d" % number) == b"%d" % number

    def test_exception_of_a_handler_leaves_conversations_alone(self, start: Start) -> None:
        running = start(raise_what_is_named)
        good, bad = running.client(), running.client()
        assert good.ask(b"x") == b"x"
        bad.sendall(b"S")
        assert bad.is_cut()
        assert good.ask(b"y") == b"y"

    def test_drain_serves_the_busy_while_it_tells_the_quiet(self, start: Start) -> None:
        running = start(echo_lines)
        with running.client() as quiet, running.client() as busy:
            quiet.ask(b"x\n")
            busy.ask(b"x\n")
            busy.sendall(b"half ")
            drain = in_background(running.server.drain)
            assert quiet.rest() == b""
            quiet.close()
            busy.sendall(b"line\n")
            assert busy.rest() == b"half line\n"
        assert drain.result()

    def test_drain_is_seen_by_a_handler_that_only_writes(self, start: Start) -> None:
        running = start(send_while_not_draining)
        with running.client() as client:
            rest = in_background(client.rest)
            drain = in_background(running.server.drain)
            assert rest.result().endswith(b"the end")
        assert drain.result()
