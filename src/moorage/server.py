"""Server: builds the corridor, wires it, and turns it.

Owns      the Watch, the gate, the listeners, the runner, and the table of open connections.
Promises  `drain`, `leave`, `shutdown` and `close` may be called from any thread, handler or signal handler, before,
          during and after serving, and twice; doors close in the order guests meet them (listener, gate,
          connections, runner) and open in the opposite one; what cannot be opened leaves nothing open.
Refuses   to touch signals, logging set-up or the process: `serve()` and the command line do.

    with Server(handler, "127.0.0.1:0") as server:
        ...  # server.address is the real address; a thread of its own serves
"""

import atexit
import contextvars
import enum
import threading
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from .acceptor import Acceptor
from .config import Configuration, check_order, resolve
from .config.settings import SPARE_FILES
from .connection import Connection
from .descriptor_table import grow_descriptor_table
from .door import Door
from .drain import LEAVE_SECONDS, Drain
from .errors import InternalError, MoorageError
from .events import Address, Cause, Events, HandlersCut, ServerResumed, ServerStarted, ServerStopped, ServerSuspended
from .handler import Service, adapt
from .interrupts import woken_by_signals
from .listener import Listener
from .observe.certificate_warnings import warn_of_certificates
from .observe.logs import log_events
from .pace import Pace
from .reception import Reception
from .runners import make_runner, make_watch
from .setup import make_setups
from .sharing import Shared, doors_of, gate_of, listeners_of, pace_of
from .shedding import Shedding
from .state import CLOSED, DETACHED

if TYPE_CHECKING:
    import socket

#: over: their place may be taken already, a moment before the reception forgets them
GONE = frozenset({CLOSED, DETACHED})

Hook = Callable[["Server"], object]


class Unset(enum.Enum):
    """What an argument is that was not given, where None means "no limit"."""

    AS_SET = "as in the settings"


class State(enum.Enum):
    """Where a server is in its one life; `NEXT` says what may follow."""

    NEW = "new"
    BOUND = "bound"  # clients wait in the backlog
    RUNNING = "running"
    CLOSED = "closed"


NEXT: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.BOUND, State.CLOSED}),
    State.BOUND: frozenset({State.RUNNING, State.CLOSED}),
    State.RUNNING: frozenset({State.CLOSED}),  # draining meanwhile; see drain
    State.CLOSED: frozenset(),
}


class Server:
    """Serves a handler on its listeners, in this process.

    handler       a class with the contract `Handler(request, client_address, server)`, or a function of one
                  connection
    bind          an address, or a list of addresses and `Listener`s: "127.0.0.1:20000", "unix:/run/x"
    worker_start  called with the server before the first connection, in the serving thread: fill `server.state`
    worker_stop   called with the server after the last one
    shared        what it has in common with servers in other processes; its supervisor speaks for all of them
    settings      see the reference page; the same names as in the file

    Raises `SettingError` and `TargetError` at once, `BindError` from `bind`, `start` or `serve_forever`.
    """

    def __init__(
        self,
        handler: Any,
        bind: Any = None,
        *,
        worker_start: Hook | None = None,
        worker_stop: Hook | None = None,
        configuration: Configuration | None = None,
        shared: Shared | None = None,
        **settings: Any,
    ) -> None:
        check_order(handler, bind)
        if configuration is None:
            self.settings, self._listener_settings = resolve(bind, settings)
        else:
            self.settings, self._listener_settings = configuration.server, configuration.listeners
        self.RequestHandlerClass = handler
        #: a namespace for the application's own things, filled in `worker_start`
        self.state = SimpleNamespace()
        self.events = Events()
        self._hooks = (worker_start, worker_stop)
        self._service = Service(adapt(handler, self), self.events)
        self.watch = make_watch(self.settings)  # from here on there are descriptors to close
        self._shared = shared
        self._gate = gate_of(shared, self.settings, self.watch)
        self._runner = make_runner(self.settings, self._service, self.watch, self.events, self._own_fds)
        self._runner.on_stop = self._begin_stop
        self._reception = Reception(self.settings, self.watch, self.events, Connection, self._runner.submit)
        self._drain = Drain(
            self.settings, self.watch, self.events, guests=self._reception, runner=self._runner, over=self._drained
        )
        self._listeners: list[Listener] = []
        self._acceptors: list[Acceptor] = []
        self._lifecycle = State.NEW
        self._is_staffed = False  # the runner was started
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None  # the one that serves
        self._started = threading.Event()
        self._stopped = threading.Event()
        log_events(self.events, self.settings, is_worker=shared is not None)

    # What it is

    @property
    def address(self) -> Address:
        """The address of the first listener, with the real port."""
        return self.addresses[0]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses of all listeners; raises `MoorageError` before `bind`."""
        self._check_bound()
        return tuple(listener.address for listener in self._listeners)

    @property
    def server_address(self) -> Address:
        """As in the standard library: `address`."""
        return self.address

    @property
    def socket(self) -> "socket.socket":
        """The first listening socket; raises `MoorageError` before `bind`."""
        self._check_bound()
        return self._listeners[0].socket

    def fileno(self) -> int:
        """The descriptor of the first listener; -1 when it is closed."""
        return self._listeners[0].fileno() if self._listeners else -1

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Who is here now, lingering ones included."""
        return tuple(connection for connection in self._reception if connection.state not in GONE)

    @property
    def draining(self) -> bool:
        """Whether a drain has begun."""
        return self._reception.draining

    def _check_bound(self) -> None:
        if not self._listeners:
            raise MoorageError("the server has no address yet: call bind(), start() or serve_forever() first")

    # Starting

    def bind(self) -> None:
        """Open the listeners: from now on clients wait in the backlog.  Raises `BindError`, and leaves nothing open."""
        if self._lifecycle is State.NEW:
            try:
                self._listeners = listeners_of(self._shared, self._listener_settings)
            except BaseException as error:
                self._error = error
                self._close_doors()
                raise
            self._move(State.BOUND)

    def start(self) -> Self:
        """Serve in a thread of its own; returns when clients are accepted.

        Raises `MoorageError` when the server has been closed: it lives once.
        """
        if self._lifecycle is State.CLOSED:
            raise self._error or MoorageError("the server has been closed: make a new one")
        self.bind()
        if self._lifecycle is State.BOUND and self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="moorage-serve", daemon=True)
            self._thread.start()
            if self._runner.ends_before_exit:
                atexit.register(self.close)
        self._started.wait()
        if self._error is not None:
            self._stopped.wait()
            raise self._error
        return self

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve in this thread until `drain`, `shutdown` or `close`; `poll_interval` is not needed and ignored.

        Raises the error that made every listener useless.
        """
        self.bind()
        if self._lifecycle is State.BOUND and self._thread is None:
            self._thread = threading.current_thread()
            self._serve()
        self._stopped.wait()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.drain()
        self.close()

    # The operator's verbs

    def suspend(self) -> None:
        """Leave new clients in the backlog; those who are here are served on.

        Takes effect in the serving thread, a moment after this returns; the event `ServerSuspended` says when.
        """
        self.watch.call_soon(self._suspend)

    def resume(self) -> None:
        """Accept clients again."""
        self.watch.call_soon(self._resume)

    def drain(self, timeout: float | Unset | None = Unset.AS_SET) -> bool:
        """Stop accepting after what is in the backlog, let handlers finish for `timeout` seconds, then end the rest.

        None waits for ever; the default is `drain_timeout`.  Waits for the end, except in the serving
        thread and in handlers, and returns whether it came without cutting anybody.
        """
        seconds = self.settings.drain_timeout if isinstance(timeout, Unset) else timeout
        self._stop(seconds, Cause.DRAIN_DEADLINE)
        return self._stopped.is_set() and not self._drain.cut

    def leave(self, last: Collection[Listener] = ()) -> None:
        """Drain, but accept nobody more: others serve on, save at those listeners of `last`, whose backlog is finished."""
        self._stop(self.settings.drain_timeout, Cause.DRAIN_DEADLINE, last)

    def shutdown(self) -> None:
        """As in the standard library, but from anywhere: `drain()`."""
        self.drain()

    def close(self) -> None:
        """End everything now; waits at most a few seconds for handlers to leave, see `drain` for where it does not."""
        self._stop(0.0, Cause.CLOSED_BY_OPERATOR)

    def wait_for_connections(self, at_most: int = 0, timeout: float | None = None) -> bool:
        """Wait until at most so many connections are left; False when `timeout` seconds were not enough."""
        return self._reception.wait_for(at_most, timeout)

    # Serving

    def _serve(self) -> None:
        try:
            self._open_doors()
            self.watch.call_soon(self._started.set)  # after a `suspend()` that came before
            with woken_by_signals(self.watch) as ctrl_c:
                self._service.ctrl_c = ctrl_c
                while self._lifecycle is not State.CLOSED:
                    self.watch.turn()
        except BaseException as error:
            self._error = error
        finally:
            self._close_doors()

    def _open_doors(self) -> None:
        grow_descriptor_table(self.settings.max_connections + SPARE_FILES)
        self._runner.start()
        self._is_staffed = True
        if self._hooks[0] is not None:
            self._hooks[0](self)
        self._service.context = contextvars.copy_context()
        doors = doors_of(self._shared, self.settings, self._listeners, self.events)
        self._reception.setups = make_setups(
            self._listeners, doors, self.settings, self.watch, self.events, self._runner.offload
        )
        warn_of_certificates(self._listeners, self.events, is_worker=self._shared is not None)
        pace, idle = pace_of(self._shared, self.settings, self.events), self.settings.shed_idle
        room = None if idle is None else Shedding(self._reception, idle)
        pairs = zip(self._listeners, doors, strict=True)
        self._acceptors = [self._make_acceptor(listener, door, pace, room) for listener, door in pairs]
        self._move(State.RUNNING)
        for acceptor in self._acceptors:
            acceptor.start()
        if ServerStarted in self.events.wanted:
            self.events.emit(ServerStarted(self.addresses, self.settings.runner))

    def _make_acceptor(
        self, listener: Listener, door: Door | None, pace: Pace | None, room: Shedding | None
    ) -> Acceptor:
        is_tls = listener.certificates is not None and listener.settings.tls_mode == "implicit"
        return Acceptor(
            listener, self._runner.guard(self._gate), self.watch, self._reception.admit, self.events,
            failed=self._accept_failed, overflow=self.settings.overflow,
            overflow_message=b"" if is_tls else self.settings.overflow_message,  # which is clear text
            at_once=self._runner.at_once,
            door=door, pace=pace, room=room,
            share=None if self._shared is None else self._shared.share,
            intake=self._runner.intake(listener, self._gate, self._reception),
        )  # fmt: skip

    def _suspend(self) -> None:
        for acceptor in self._acceptors:
            acceptor.suspend()
        self.events.emit(ServerSuspended())

    def _resume(self) -> None:
        for acceptor in self._acceptors:
            acceptor.resume()
        self.events.emit(ServerResumed())

    def _accept_failed(self, error: OSError) -> None:
        """A listener is of no more use: without it this is not the server that was asked for."""
        self._error = self._error or error
        self._begin_stop(self.settings.drain_timeout, Cause.DRAIN_DEADLINE)

    def _own_fds(self) -> list[int]:
        """What a forked child has to close: every descriptor of ours."""
        listeners, connections = map(Listener.fileno, self._listeners), map(Connection.fileno, self.connections)
        shared = self._shared.fds if self._shared is not None else ()
        return [fd for fd in (*listeners, *connections, *shared, *self.watch.own_fds()) if fd >= 0]

    # Stopping

    def _stop(self, timeout: float | None, cause: Cause, last: Collection[Listener] | None = None) -> None:
        if self._thread is None:  # never served, and never will
            if self._lifecycle is not State.CLOSED:
                self._close_doors()
            return
        self.watch.call_soon(lambda: self._begin_stop(timeout, cause, last))
        is_ours = self._is_staffed and self._runner.has_this_thread()
        if not is_ours and threading.current_thread() is not self._thread:
            self._stopped.wait()

    def _begin_stop(self, timeout: float | None, cause: Cause, last: Collection[Listener] | None = None) -> None:
        if self._lifecycle is State.RUNNING and not self._runner.passes_on_stop(timeout, cause):
            at_once = None if last is None else self._doors_without(last)
            self._drain.begin(self._acceptors, self._shut, timeout, cause, at_once)

    def _doors_without(self, last: Collection[Listener]) -> list[Acceptor]:
        pairs = zip(self._acceptors, self._listeners, strict=True)
        return [acceptor for acceptor, listener in pairs if listener not in last]

    def _drained(self) -> None:
        self._move(State.CLOSED)
        self.watch.wake()  # this may be a call before the wait of a turn, which nothing else would end

    def _shut(self, door: Any) -> None:
        self._listeners[self._acceptors.index(door)].close()

    def _close_doors(self) -> None:
        """Listeners, connections, runner, and our own descriptors last; a second call does nothing."""
        if self._stopped.is_set():
            return
        for acceptor in self._acceptors:
            acceptor.stop()
        for listener in self._listeners:
            listener.close()
        for connection in self.connections:
            connection.end(Cause.CLOSED_BY_OPERATOR)
        try:
            if self._is_staffed:
                self._close_runner()
        finally:  # an error of `worker_stop` is raised, but only where nobody waits for us any more
            self.watch.close()
            self._lifecycle = State.CLOSED
            atexit.unregister(self.close)
            self._started.set()
            self._stopped.set()

    def _close_runner(self) -> None:
        was_drained = self._lifecycle is State.CLOSED  # then those who are still in a handler had their time
        is_late = was_drained and not all(connection.has_left for connection in self._reception)
        stacks = self._runner.stop(0.0 if is_late else LEAVE_SECONDS)
        if stacks and HandlersCut in self.events.wanted:
            self.events.emit(HandlersCut(tuple(stacks)))
        if self._lifecycle is State.BOUND:  # `worker_start` failed
            return
        if self._hooks[1] is not None:
            self._hooks[1](self)
        if ServerStopped in self.events.wanted:
            self.events.emit(ServerStopped())

    def _move(self, state: State) -> None:
        if state not in NEXT[self._lifecycle]:
            raise InternalError(f"the server cannot go from {self._lifecycle.value} to {state.value}")
        self._lifecycle = state
