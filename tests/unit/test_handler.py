"""Handler: what is a handler, what its exceptions mean, and that `finish()` always runs."""

import contextvars
import functools
import socketserver as stdlib
import threading
from typing import Any

import pytest

from moorage.errors import TargetError
from moorage.events import Cause, ConnectionClosed, Events, HandlerFailed
from moorage.handler import BaseRequestHandler, Service, StreamRequestHandler, adapt
from support.guests import Guest, guest
from support.sink import Sink
from support.sockets import read_all

SERVER = object()


def serve(one: Guest, handler: Any) -> Cause:
    """Serve this guest to the end; returns the cause."""
    Service(adapt(handler, SERVER), one.home.events)(one.connection)
    one.home.watch.release_lingering()
    [event] = one.home.sink.of(ConnectionClosed)
    return event.cause


def failures(one: Guest) -> list[BaseException]:
    return [event.error for event in one.home.sink.of(HandlerFailed)]


# What is a handler


class Plain(stdlib.BaseRequestHandler):
    """Of the standard library."""

    def handle(self) -> None:
        seen.append((self.request, self.client_address, self.server))


seen: list[Any] = []


class Callable3:
    def __call__(self, request: Any, client_address: Any, server: Any) -> None:
        seen.append((request, client_address, server))


def three(request: Any, client_address: Any, server: Any) -> None:
    seen.append((request, client_address, server))


def one_argument(conn: Any) -> None:
    seen.append(conn)


def with_default(conn: Any, greeting: str = "hello") -> None:
    seen.append(conn)


class Method:
    def handle(self, conn: Any) -> None:
        seen.append(conn)


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


@pytest.mark.parametrize("handler", [Plain, three, Callable3(), functools.partial(three)])
def test_handler_of_three_gets_connection_peer_and_server(handler: Any) -> None:
    with guest() as one:
        adapt(handler, SERVER)(one.connection)
        assert seen == [(one.connection, "peer", SERVER)]


@pytest.mark.parametrize(
    "handler", [one_argument, with_default, seen.append, Method().handle, functools.partial(one_argument)]
)  # fmt: skip
def test_function_of_one_gets_the_connection(handler: Any) -> None:
    with guest() as one:
        adapt(handler, SERVER)(one.connection)
        assert seen == [one.connection]


class OneArgument:
    def __init__(self, conn: Any) -> None: ...


@pytest.mark.parametrize(
    "handler", [None, 42, "module:name", lambda: None, lambda a, b: None, OneArgument, lambda *, conn: None]
)
def test_what_is_no_handler_is_refused_with_a_sentence(handler: Any) -> None:
    with pytest.raises(TargetError, match="is no handler") as caught:
        adapt(handler, SERVER)
    assert "\n" not in str(caught.value)


# The base classes


def test_base_classes_are_those_of_the_standard_library_too() -> None:
    assert issubclass(BaseRequestHandler, stdlib.BaseRequestHandler)
    assert issubclass(StreamRequestHandler, stdlib.StreamRequestHandler)


def test_steps_run_in_their_order() -> None:
    steps: list[str] = []

    class Handler(BaseRequestHandler):
        def setup(self) -> None:
            steps.append("setup")

        def handle(self) -> None:
            steps.append("handle")

        def finish(self) -> None:
            steps.append("finish")

    with guest() as one:
        serve(one, Handler)
    assert steps == ["setup", "handle", "finish"]


@pytest.mark.parametrize("base", [BaseRequestHandler, StreamRequestHandler])
@pytest.mark.parametrize("failing", ["setup", "handle"])
def test_finish_runs_whatever_raises(base: Any, failing: str) -> None:
    steps: list[str] = []

    class Handler(base):  # type: ignore[misc]
        def setup(self) -> None:
            if failing == "setup":
                raise ZeroDivisionError
            super().setup()

        def handle(self) -> None:
            raise ZeroDivisionError

        def finish(self) -> None:
            super().finish()
            steps.append("finish")

    with guest() as one:
        assert serve(one, Handler) is Cause.HANDLER_ERROR
        assert [type(error) for error in failures(one)] == [ZeroDivisionError]
    assert steps == ["finish"]


class Echo(StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class StdlibEcho(stdlib.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


@pytest.mark.parametrize("wbufsize", [0, -1, 1024])
@pytest.mark.parametrize("base", [Echo, StdlibEcho])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_stream_handler_echoes_lines(base: Any, wbufsize: int, family: str) -> None:
    handler = type("Handler", (base,), {"wbufsize": wbufsize, "timeout": 20.0})
    with guest(family) as one:
        one.peer.sendall(b"one\ntwo\nthree")
        one.peer.shutdown(1)
        assert serve(one, handler) is Cause.PEER_CLOSED
        assert read_all(one.peer) == b"one\ntwo\nthree"
        assert failures(one) == []


def test_class_settings_reach_the_socket() -> None:
    got: list[Any] = []

    class Handler(StreamRequestHandler):
        timeout = 5.0
        disable_nagle_algorithm = True

        def handle(self) -> None:
            got.extend([self.request.gettimeout(), self.request.getsockopt(6, 1), self.connection is self.request])

    with guest() as one:
        serve(one, Handler)
    assert got == [5.0, 1, True]


def test_buffered_reply_that_nobody_takes_is_no_handler_error() -> None:
    class Handler(StreamRequestHandler):
        wbufsize = -1

        def handle(self) -> None:
            self.wfile.write(b"reply")
            self.request.end(Cause.LIFETIME)

    with guest() as one:
        assert serve(one, Handler) is Cause.LIFETIME
        assert failures(one) == []


def test_handler_says_whether_it_wants_to_hear_of_a_drain() -> None:
    class Deaf(BaseRequestHandler):
        def handle(self) -> None:
            seen.append(self.request.on_drain)

    class Hearing(Deaf):
        def handle_shutdown(self) -> None:
            seen.append("goodbye")

    with guest() as one:
        serve(one, Deaf)
        assert seen == [None]
    with guest() as one:
        serve(one, Hearing)
        seen[-1]()
        assert seen[-1] == "goodbye"


# What an exception means


def test_handler_that_returns_is_done() -> None:
    with guest() as one:
        assert serve(one, lambda conn: None) is Cause.HANDLER_DONE
        assert one.ticket.given_back == 1


def test_error_of_its_own_connection_is_quiet() -> None:
    def handle(conn: Any) -> None:
        conn.end(Cause.LIFETIME)
        seen.append("served")
        conn.recv(100)

    with guest() as one:
        assert serve(one, handle) is Cause.LIFETIME
        assert seen == ["served"]
        assert failures(one) == []


def test_timeout_that_the_handler_lets_through_is_idle_and_quiet() -> None:
    def handle(conn: Any) -> None:
        conn.settimeout(0.001)
        conn.recv(1)

    with guest() as one:
        assert serve(one, handle) is Cause.IDLE
        assert failures(one) == []


def test_stop_of_a_handler_that_swallowed_too_often_is_quiet() -> None:
    def handle(conn: Any) -> None:
        conn.end(Cause.LIFETIME)
        while True:
            try:
                conn.recv(1)
            except TimeoutError:
                continue

    with guest() as one:
        assert serve(one, handle) is Cause.LIFETIME
        assert failures(one) == []


@pytest.mark.parametrize(
    "error", [TimeoutError("of a future"), ConnectionResetError("of a database"), KeyError("x"), SystemExit(1)]
)
def test_same_class_from_elsewhere_is_a_handler_error(error: BaseException) -> None:
    def handle(conn: Any) -> None:
        raise error

    with guest() as one:
        assert serve(one, handle) is Cause.HANDLER_ERROR
        assert failures(one) == [error]
        assert error.__traceback__ is not None


def test_error_raised_from_its_own_is_a_handler_error() -> None:
    def handle(conn: Any) -> None:
        conn.settimeout(0.001)
        try:
            conn.recv(1)
        except TimeoutError as error:
            raise RuntimeError("my own words") from error

    with guest() as one:
        assert serve(one, handle) is Cause.HANDLER_ERROR
        assert [str(error) for error in failures(one)] == ["my own words"]


def test_first_cause_stays_when_the_handler_fails_of_it() -> None:
    def handle(conn: Any) -> None:
        conn.end(Cause.LIFETIME)
        try:
            conn.recv(1)
        except TimeoutError:
            raise KeyError("clumsy") from None

    with guest() as one:
        assert serve(one, handle) is Cause.LIFETIME
        assert [type(error) for error in failures(one)] == [KeyError]


def test_connection_that_is_over_before_gets_no_handler() -> None:
    with guest(begin=False) as one:
        one.connection.queue()
        one.connection.end(Cause.DRAIN_DEADLINE)
        assert serve(one, lambda conn: seen.append("served")) is Cause.DRAIN_DEADLINE
        assert seen == []
        assert one.ticket.given_back == 1


def test_ctrl_c_ends_the_server_after_the_connection_was_finished() -> None:
    def handle(conn: Any) -> None:
        raise KeyboardInterrupt

    assert threading.current_thread() is threading.main_thread()
    with guest() as one:
        service = Service(handle, one.home.events)
        with pytest.raises(KeyboardInterrupt):
            service(one.connection)
        assert one.connection.cause is Cause.HANDLER_ERROR
        assert len(one.home.watch.lingering) == 1


def test_keyboard_interrupt_of_the_handler_itself_is_a_handler_error() -> None:
    """Nobody has pressed Ctrl-C."""

    def handle(conn: Any) -> None:
        raise KeyboardInterrupt

    with guest() as one:
        service = Service(handle, one.home.events)
        service.ctrl_c = lambda: False
        service(one.connection)
        assert one.connection.cause is Cause.HANDLER_ERROR


def test_keyboard_interrupt_in_a_pool_thread_is_a_handler_error() -> None:
    def handle(conn: Any) -> None:
        raise KeyboardInterrupt

    with guest() as one:
        thread = threading.Thread(target=lambda: seen.append(serve(one, handle)))
        thread.start()
        thread.join()
        assert seen == [Cause.HANDLER_ERROR]


# The context


def test_each_connection_starts_from_a_copy_of_the_context() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    variable.set(1)
    values: list[int] = []

    def handle(_: Any) -> None:
        values.append(variable.get())
        variable.set(99)

    events = Events()
    Sink(events)
    service = Service(handle, events)
    for _ in range(2):
        with guest() as one:
            service(one.connection)
    assert values == [1, 1]
    assert variable.get() == 1
