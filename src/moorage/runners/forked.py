"""Forked: one connection in a process of its own, seen from inside.

Owns      everything in the child: the connection, a Watch that is turned while the handler waits, the signals.
Promises  the same deadlines, drain and lingering as under every runner; one closing record to the parent;
          what the parent was doing (listeners, other clients, timers, subscribers) is left to the parent.
Refuses   to end by a signal that was not meant for it: Ctrl-C and a service manager's TERM reach the whole
          process group, and the parent decides what they mean.  TERM without a word of the parent is a drain; a second one ends.
Why       a child is the inline runner with one client: no second way to wait.

A handler that stops the server stops the parent's, by a message.
Signals   SIGUSR1: a message of the parent has come (drain).  SIGTERM: the same (end), or from others.
"""

import json
import signal
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..connection import Connection
from ..deadline import monotonic
from ..drain import Drain
from ..events import Cause, ConnectionClosed, Event, Events, HandlerFailed
from ..watch import Watch
from .inline import TurningWaiter
from .record import ClosingRecord, Failure

__all__ = ["HELD", "MESSAGE_BYTES", "Forked", "drain_message", "end_message", "read_stop", "stop_message"]

#: signals that a server's program answers itself; in the child they mean nothing unless said above
_ANSWERED_BY_THE_PARENT = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)

#: signals held back over the fork, until the child has its own handlers
HELD = frozenset({signal.SIGTERM, signal.SIGUSR1, *_ANSWERED_BY_THE_PARENT})

PARENT_FIRST = 1.0  # seconds after a drain's deadline, in which the parent ends this connection and counts it
MESSAGE_BYTES = 1024  # the longest message of the parent


def drain_message(deadline: float | None) -> bytes:
    """The server drains until this moment of the monotonic clock, which all processes share."""
    return json.dumps({"drain": deadline}).encode()


def end_message(cause: Cause) -> bytes:
    """The parent has ended this connection."""
    return json.dumps({"end": cause}).encode()


def stop_message(timeout: float | None, cause: Cause) -> bytes:
    """A handler stops the server."""
    return json.dumps({"stop": [timeout, cause]}).encode()


def read_stop(message: bytes) -> tuple[float | None, Cause] | None:
    """What a `stop_message` says; None for anything else."""
    try:
        timeout, cause = json.loads(message)["stop"]
        return None if timeout is None else float(timeout), Cause(cause)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


class Forked:
    """The home of one connection in the child."""

    def __init__(self, connection: Connection, parent: socket.socket, watch: Watch, events: Events) -> None:
        self.settings = connection.settings
        self.watch = watch
        self.events = events
        #: the server drains; true from the moment the signal arrives, whatever the handler is doing
        self.draining = False
        self.on_empty: Callable[[], None] = lambda: None
        self._connection = connection
        self._parent = parent
        self._drain: Drain | None = None
        self._was_asked = False  # by a TERM of others; not by the parent, which may have had the same one first
        self._is_cut = False
        self._failure: Failure | None = None
        self._closed: ConnectionClosed | None = None

    def run(self, serve: Callable[[Connection], None]) -> int:
        """Serve, linger, and say how it went; the status to leave with."""
        self._move_in()
        self._take_signals()
        self._connection.open()
        self._connection.begin(TurningWaiter(self.watch))
        serve(self._connection)
        while self.watch.is_lingering() and not self._is_cut:
            self.watch.turn()
        self.watch.close()
        self._say_goodbye()
        return 0

    def say(self, message: bytes) -> bool:
        """Send one message to the parent; False when it did not take it."""
        try:
            self._parent.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:  # the parent is gone, or this system has no room for so long a message
            return False
        return True

    def _move_in(self) -> None:
        """The connection lives here now: its deadlines, its ticket and its events are not the server's."""
        self._connection.move(self, self)
        self.events.clear()
        self.events.subscribe(self._note, ConnectionClosed, HandlerFailed)
        self.watch.listen(self._parent.fileno(), self._hear)

    def _note(self, event: Event) -> None:
        if isinstance(event, ConnectionClosed):
            self._closed = event
        elif isinstance(event, HandlerFailed):
            self._failure = describe(event.error)

    def _say_goodbye(self) -> None:
        event = self._closed
        if event is not None:
            numbers = event.bytes_received, event.bytes_sent, event.handled
            record = ClosingRecord(event.cause, event.phase, *numbers, failure=self._failure)
            self.say(record.pack()) or self.say(replace(record, failure=None).pack())

    # What the parent says

    def _take_signals(self) -> None:
        signal.set_wakeup_fd(-1)  # the parent's
        for signum in _ANSWERED_BY_THE_PARENT:
            if signum == signal.SIGINT or callable(signal.getsignal(signum)):
                signal.signal(signum, _ignore)
        signal.signal(signal.SIGUSR1, self._told)
        signal.signal(signal.SIGTERM, self._told)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)

    def _told(self, signum: int, _frame: object) -> None:
        if self._listen() or signum != signal.SIGTERM:
            return
        if self._was_asked:
            self._connection.end(Cause.CLOSED_BY_OPERATOR)
        self._was_asked = True
        self._begin_drain(None)

    def _hear(self) -> None:
        self._listen()

    def _listen(self) -> bool:
        """Do what the parent has said; whether it said anything."""
        heard = False
        try:
            while message := self._parent.recv(MESSAGE_BYTES, socket.MSG_DONTWAIT):
                heard = True
                self._obey(json.loads(message))
        except BlockingIOError:
            return heard
        except OSError:
            pass
        # The parent is gone: nobody will tell us anything any more.
        self.watch.unlisten(self._parent.fileno())
        self._begin_drain(None)
        return True

    def _obey(self, message: dict[str, Any]) -> None:
        if "end" in message:
            self._is_cut = True
            self._connection.end(message["end"])
            self.watch.wake()
        else:
            self._begin_drain(message["drain"])

    def _begin_drain(self, deadline: float | None) -> None:
        """In a signal handler, perhaps in the middle of anything: the rest is done in the next wait."""
        self.draining = True
        self.watch.call_soon(lambda: self._drain_until(deadline))

    def _drain_until(self, deadline: float | None) -> None:
        """By the rules of every drain, with this one guest; the parent has waited for `drain_delay` already."""
        timeout = None if deadline is None else max(0.0, deadline - monotonic())
        if self._drain is None:
            settings = replace(self.settings, drain_delay=0.0)
            self._drain = Drain(
                settings, self.watch, self.events,
                guests=self, runner=self, over=self.give_back, cut_after=PARENT_FIRST,
            )  # fmt: skip
        self._drain.begin((), lambda _: None, timeout, Cause.DRAIN_DEADLINE)

    # The child's home, ticket and runner, as its connection and its drain see them

    def __len__(self) -> int:
        return self._closed is None

    def __iter__(self) -> Iterator[Connection]:
        return iter((self._connection,) if self._closed is None else ())

    def forget(self, connection: Connection) -> None:
        """Nobody keeps a table here."""

    def give_back(self) -> None:
        """The ticket is the parent's."""

    def drain(self, deadline: float | None) -> None:
        """There is nobody to tell."""

    def notify(self, calls: Iterable[Callable[[], None]]) -> None:
        """In the one thread there is, while its handler waits."""
        for call in calls:
            call()


def describe(error: BaseException) -> Failure:
    """An exception as text, which the parent can log."""
    lines = traceback.format_exception(error)
    return Failure("".join(traceback.format_exception_only(error)).strip(), "".join(lines))


def _ignore(_signum: int, _frame: object) -> None:
    """A handler and not SIG_IGN, which programs that the user's handler starts would inherit."""
