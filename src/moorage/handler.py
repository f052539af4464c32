"""Handler: what users subclass, and how their code is called.

Owns      the two base classes, and the decision what an exception that leaves a handler means.
Promises  any class with the contract `Handler(request, client_address, server)` and any function of one
          connection works; `finish()` runs even when `setup()` raised; what this connection itself raised is
          quiet, everything else is a handler error with its traceback.
Refuses   to guess: the same exception class from a database or a future is not quiet.
"""

import contextvars
import inspect
import signal
import socket
import socketserver as stdlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .errors import TargetError
from .events import Cause, Events, HandlerFailed, SiblingsLeft
from .hub.parking import this_loop

Handle = Callable[[Any], object]

#: whose code is running: the service and the connection; in a fiber set by `served` when somebody asks
serving: contextvars.ContextVar[tuple["Service", Any]] = contextvars.ContextVar("moorage.serving")


class BaseRequestHandler(stdlib.BaseRequestHandler):
    """Serves one connection in `handle()`; `self.request` is the connection, `self.server` the server.

    Methods that may be overridden: `setup()`, `handle()`, `finish()`, and `handle_shutdown()`, which is
    called once when a drain begins, in another thread than `handle()`.
    """

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        self.request = request
        self.client_address = client_address
        self.server = server
        if type(self).handle_shutdown is not BaseRequestHandler.handle_shutdown:
            request.on_drain = self.handle_shutdown
        try:
            self.setup()
            self.handle()
        finally:
            self.finish()

    def handle_shutdown(self) -> None:
        """The server drains; say goodbye where the protocol has a word for it."""


class StreamRequestHandler(BaseRequestHandler, stdlib.StreamRequestHandler):
    """Adds `self.rfile` and `self.wfile`.

    Class settings, as in the standard library: `timeout` (seconds; recoverable), `rbufsize` (0: a read returns
    what is there; else the connection buffers), `wbufsize` (0: each write is sent at once), `disable_nagle_algorithm`.
    """

    def setup(self) -> None:
        """Make the files."""
        self.connection = self.request
        if self.timeout is not None:
            self.connection.settimeout(self.timeout)
        if self.disable_nagle_algorithm and self.connection.family != socket.AF_UNIX:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self.rfile = self.connection.rfile if self.rbufsize else self.connection.makefile("rb", 0)
        self.wfile = self.connection.wfile if self.wbufsize == 0 else self.connection.makefile("wb", self.wbufsize)

    def finish(self) -> None:
        """Send what is buffered; does nothing when `setup()` did not come this far."""
        if self.wbufsize and hasattr(self, "wfile"):
            try:
                self.wfile.close()  # which flushes; one left open would try again when it is collected
            except OSError:  # the peer is gone: the connection has recorded why
                pass


def served() -> "tuple[Service, Any] | None":
    """The service and the connection whose handler, or a sibling of it, is the caller; None for anybody else."""
    found = serving.get(None)
    if found is None and (loop := this_loop()) is not None:
        found = loop.served()
        if found is not None:
            serving.set(found)  # for those to whom this context is copied
    return found


class Conversation(Protocol):
    """What the service needs of a connection."""

    id: int
    peer: Any

    @property
    def is_over(self) -> bool: ...
    def is_own(self, error: BaseException) -> bool: ...
    def record(self, cause: Cause) -> None: ...
    def finish(self) -> None: ...

    #: what `moorage.spawn` has started beside the handler, which ends with it; None when nothing was
    siblings: Any


class Service:
    """Runs the user's code for one connection after another, each in its own copy of the context."""

    def __init__(self, handle: Handle, events: Events) -> None:
        self._handle = handle
        self._events = events
        #: what `worker_start` left; every connection starts from a copy of it
        self.context = contextvars.copy_context()
        #: whether a Ctrl-C was delivered to this program; set by who sees its signals
        self.ctrl_c: Callable[[], bool] = lambda: True

    def __call__(self, connection: Conversation) -> None:
        """Serve this connection in a context of its own, and finish it, whatever the handler does."""
        context = self.context.copy()
        context.run(serving.set, (self, connection))
        context.run(self.serve, connection)

    def serve(self, connection: Conversation) -> None:
        """As calling, in the context of the caller."""
        try:
            if not connection.is_over:
                self._handle(connection)
        except BaseException as error:
            if self.judge(connection, error):
                raise
        finally:
            if connection.siblings is None:
                connection.finish()
            else:
                self._finish_with_siblings(connection)

    def judge(self, connection: Conversation, error: BaseException) -> bool:
        """Report what left the user's code, unless it is quiet; whether it was a Ctrl-C, which is to be raised on."""
        self._report(connection, error)
        return isinstance(error, KeyboardInterrupt) and _may_be_ctrl_c() and self.ctrl_c()

    def emit_siblings_left(self, connection: Conversation, stacks: Sequence[str]) -> None:
        """These siblings of its handler did not leave."""
        if SiblingsLeft in self._events.wanted:
            self._events.emit(SiblingsLeft(connection.id, connection.peer, tuple(stacks)))

    def _finish_with_siblings(self, connection: Conversation) -> None:
        try:
            connection.siblings.end()
        finally:
            connection.finish()
            connection.siblings = None  # no cycles

    def _report(self, connection: Conversation, error: BaseException) -> None:
        if connection.is_own(error):
            if isinstance(error, TimeoutError):  # a recoverable timeout that the handler left to us
                connection.record(Cause.IDLE)
            return
        connection.record(Cause.HANDLER_ERROR)
        if HandlerFailed in self._events.wanted:
            self._events.emit(HandlerFailed(connection.id, connection.peer, error))


def adapt(handler: Any, server: object) -> Handle:
    """A function of one connection from whatever the user gave.

    Raises `TargetError` for what is neither a class of three arguments nor a function of one.
    """
    if not callable(handler):
        raise TargetError(f"{handler!r} is no handler: give a request handler class or a function of one connection")
    if isinstance(handler, type):
        _check_arguments(handler, 3)
        return _of_class(handler, server)
    if _takes(handler, 1):
        function: Handle = handler
        return function
    _check_arguments(handler, 3)
    return lambda connection: handler(connection, connection.peer, server)


def _of_class(handler: Any, server: object) -> Handle:
    """What calling the class does; without the C frame of that call, of which every waiting fiber keeps a copy."""
    if type(handler).__call__ is not type.__call__ or handler.__new__ is not object.__new__:
        return lambda connection: handler(connection, connection.peer, server)
    return lambda connection: handler.__init__(object.__new__(handler), connection, connection.peer, server)


def _check_arguments(handler: Any, count: int) -> None:
    if not _takes(handler, count):
        raise TargetError(
            f"{handler!r} is no handler: it must take (request, client_address, server), or one connection"
        )


def _takes(handler: Any, count: int) -> bool:
    try:
        inspect.signature(handler).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature: the call will tell
        return True
    return True


def _may_be_ctrl_c() -> bool:
    """Whether a KeyboardInterrupt here can be the terminal's: it ends the server, as it ends any program."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
