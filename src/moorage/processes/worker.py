"""Worker: the life of a forked process that serves, from its fork to its exit status.

Owns      in that process: its group, its signals, its Server, and its row of the scoreboard.
Promises  nobody is accepted before `Go`; what keeps it from that is said in one message; 0 when it was asked to
          end, or was told that nobody supervises it any more, 1 when it failed; nothing is raised.
Refuses   to outlive its supervisor for longer than a drain; to run what its parent left for its own exit.
Why       a group of its own: Ctrl-C and a service manager's TERM are for the supervisor, which says by the link
          what follows from them.  While it waits for `Go` it does not turn the Watch, which may have calls of
          the program that only a server that serves may answer.

Signals, for who sends one by hand: TERM and INT drain, a second one and QUIT end; USR1 opens the logs anew.
"""

import atexit
import importlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ..config import Configuration
from ..deadline import monotonic
from ..errors import OperatorError
from ..events import DrainStarted, Event, ServerResumed, ServerStarted, ServerSuspended
from ..listener import Listener
from ..observe.logs import LOGGER
from ..rates import Memory
from ..runners.children import flush_standard_streams
from ..server import Hook, Server
from ..sharing import Shared
from .clients import SharedCounts
from .counting import Counting
from .link import Drain, End, Failed, Go, Leave, Link, Message, Ready, Reopen
from .scoreboard import Row, Scoreboard
from .signals import SIGNALS
from .spread import Spread
from .stacks import arm
from .tokens import Tokens, WorkerGate

STOPPED, FAILED = 0, 1  # the exit statuses
HEARTBEAT_SECONDS = 1.0

#: what each signal does in a worker; no line: as in any process
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
#: the supervisor's affair; caught, since a program that a handler starts would inherit that they are ignored
_NOT_OURS = (signal.SIGHUP, signal.SIGUSR2)
#: the same, but a worker is in the background of its terminal: caught, they would interrupt its writes for ever
_OF_THE_TERMINAL = (signal.SIGTTIN, signal.SIGTTOU)


@dataclass
class Order:
    """What a supervisor gives to a worker that it forks.

    link         the worker's end
    stacks       the descriptor for the stacks of a worker that stands still
    reopen_logs  opens the log file anew
    close        closes what the child has inherited and must not keep
    rates        when clients came in, over all workers; None: each worker counts alone
    """

    number: int
    load: Callable[[], Callable[..., Any]]
    configuration: Configuration
    listeners: Sequence[Listener]
    hooks: Mapping[str, Hook]
    scoreboard: Scoreboard
    row: Row
    tokens: Tokens
    link: Link
    stacks: int
    reopen_logs: Callable[[], None]
    close: Callable[[], None]
    rates: Memory | None = None


def work(order: Order) -> int:
    """Be the worker; the exit status.  The caller has forked with signals blocked, and leaves by `os._exit`."""
    status = FAILED
    try:
        atexit._clear()
        os.setpgid(0, 0)
        order.close()
        status = _Worker(order).run()
    except BaseException:
        logging.getLogger(LOGGER).exception("worker %d failed", order.number)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # nothing is left that they could stop
    for leave in (
        atexit._run_exitfuncs,
        logging.shutdown,
        flush_standard_streams,
    ):  # what was registered since the fork
        with suppress(BaseException):
            leave()
    return status


class _Left(Exception):
    """The worker is to leave, and has never accepted anybody."""


class _Worker:
    """One worker, in its own process."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._logger = logging.getLogger(LOGGER)
        self._server: Server  # from `_begin` on
        self._is_made = False  # the server; what fails before may be the operator's mistake
        self._is_ready = False
        self._is_waiting = False  # for `Go`
        self._is_serving = False  # or may be from now on
        self._was_asked = False  # to stop, by a signal

    def run(self) -> int:
        """Boot, wait for `Go`, and serve; the exit status."""
        self._take_signals()
        arm(self._order.stacks)
        _entitle(f"moorage: worker {self._order.number} of {self._order.configuration.server.name}")
        try:
            server = self._make_server()
            self._is_made = True
            server.serve_forever()
        except _Left:
            return STOPPED
        except BaseException as error:
            self._fail(error)
            return FAILED
        return STOPPED

    def _make_server(self) -> Server:
        order = self._order
        order.row.set("pid", os.getpid())
        order.row.set("number", order.number)
        limit = order.configuration.server.max_per_client
        shared = Shared(
            order.listeners,
            make_gate=lambda watch: WorkerGate(order.tokens, order.row, watch),
            share=Spread(order.scoreboard, order.row).share,
            counts=None if limit is None else SharedCounts(order.scoreboard, order.row),
            rates=order.rates,
            fds=self._fds(),  # not `stacks`: a crash would write to that number
        )
        server = Server(
            order.load(),
            configuration=order.configuration,
            shared=shared,
            worker_start=self._begin,
            worker_stop=order.hooks.get("worker_stop"),
        )
        Counting(server.events, order.row)
        server.events.subscribe(self._note, ServerStarted, ServerSuspended, ServerResumed, DrainStarted)
        return server

    def _fds(self) -> list[int]:
        order = self._order
        return [order.link.fileno(), order.tokens.fd, *([] if order.rates is None else [order.rates.fd])]

    def _fail(self, error: BaseException) -> None:
        """Say why; before `Ready` to the supervisor, too."""
        is_operator = not self._is_made and isinstance(error, OperatorError)
        if not is_operator:
            how = "failed" if self._is_ready else "cannot start"
            self._logger.error("worker %d %s", self._order.number, how, exc_info=error)
        if not self._is_ready:
            words = str(error) if is_operator else f"{type(error).__name__}: {error}"
            self._order.link.send(Failed(" ".join(words.split()), is_operator))

    # From the fork to the first client

    def _begin(self, server: Server) -> None:
        """In the place of `worker_start`, in the serving thread: the server accepts when this returns."""
        self._server = server
        if "worker_start" in self._order.hooks:
            self._order.hooks["worker_start"](server)
        self._is_ready = True
        try:
            self._wait_for_go()
        except _Left:  # to the server this is a start that failed; to the program it is none
            if "worker_stop" in self._order.hooks:
                self._order.hooks["worker_stop"](server)
            raise
        server.watch.listen(self._order.link.fileno(), self._hear)
        self._beat()

    def _wait_for_go(self) -> None:
        """The server may accept when this returns; raises `_Left` when it is to leave instead."""
        self._is_waiting = True
        try:
            if not self._was_asked:
                self._order.link.send(Ready())
            while not (self._is_serving or self._was_asked):
                self._order.row.beat(monotonic())
                with suppress(TimeoutError):
                    self._answer(self._order.link.receive_now(HEARTBEAT_SECONDS))
        finally:
            self._is_waiting = False
        if self._was_asked:
            raise _Left

    def _answer(self, message: Message | None) -> None:
        match message:
            case Go():
                self._is_serving = True
            case Reopen():
                self._order.reopen_logs()
            case _:
                raise _Left

    # While it serves

    def _beat(self) -> None:
        now = monotonic()
        self._order.row.beat(now)
        self._tell_expiry()
        self._server.watch.call_at(now + HEARTBEAT_SECONDS, self._beat)

    def _tell_expiry(self) -> None:
        """When the first certificate expires: each second, since they may be renewed."""
        known = [listener.certificates for listener in self._order.listeners]
        expires = [certificates.expires for certificates in known if certificates is not None]
        if expires:
            self._order.row.set("certificate_expiry", int(min(expires)))

    def _note(self, event: Event) -> None:
        self._order.row.set("accepting", int(isinstance(event, ServerStarted | ServerResumed)))

    def _hear(self) -> None:
        """One message; the Watch calls again when there are more."""
        with suppress(BlockingIOError):
            self._obey(self._order.link.receive())

    def _obey(self, message: Message | None) -> None:
        server = self._server
        match message:
            case None:
                server.watch.unlisten(self._order.link.fileno())
                self._logger.warning("worker %d has no supervisor any more: it drains and leaves", self._order.number)
                server.drain()
            case Leave(last):
                server.leave([self._order.listeners[index] for index in last])
            case Drain():
                server.drain()
            case End():
                server.close()
            case Reopen():
                self._order.reopen_logs()
            case _:
                self._logger.debug("worker %d was told %r, which means nothing now", self._order.number, message)

    # Signals

    def _take_signals(self) -> None:
        """Each has its meaning here before any is let in."""
        signal.set_wakeup_fd(-1)  # the parent's
        for number in _STOPPING:
            signal.signal(number, self._stop)
        for number in _NOT_OURS:
            signal.signal(number, _ignore)
        for number in _OF_THE_TERMINAL:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, self._reopen)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        is_now = self._was_asked or number == signal.SIGQUIT
        self._was_asked = True
        if self._is_serving:
            self._server.close() if is_now else self._server.drain()
        elif self._is_waiting:
            raise _Left  # out of the wait

    def _reopen(self, _number: int, _frame: FrameType | None) -> None:
        self._order.reopen_logs()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """It is the supervisor's affair."""


def _entitle(title: str) -> None:
    """Name this process in the list of processes, where setproctitle is installed."""
    with suppress(ImportError):
        importlib.import_module("setproctitle").setproctitle(title)
