"""ForksRunner: a process for each connection.

Owns      the children, and for each of them a link: the parent's end of a socket pair.
Promises  at most `max_connections` children; a child has of ours only its own connection; the parent keeps no
          copy of a client's socket; a child that dies without a closing record is cause `killed`; no zombies.
Refuses   to wait for a child: its end is an event of the Watch.
Why       a crash, a leak or a break-in stays within one connection.

The parent's Connection stays in the server's table, as the stand-in for the one in the child: `end()` on it
reaches the child as a message and SIGTERM, and one second later as SIGKILL; a drain as a message and SIGUSR1.
"""

import os
import signal
import socket
import threading
import warnings
from collections import deque
from collections.abc import Callable, Sized
from contextlib import suppress
from typing import ClassVar

from ..acceptor import Gate, Ticket
from ..connection import Connection
from ..deadline import Deadline, monotonic
from ..errors import InternalError
from ..events import Cause, HandlerFailed
from ..shortage import PAUSE_SECONDS, Shortage
from ..timers import Timer
from ..watch import Watch
from .base import Runner
from .children import GRACE_SECONDS, KILL_SECONDS, Child, Children
from .forked import HELD, Forked, drain_message, end_message, read_stop, stop_message
from .record import RECORD_BYTES, ClosingRecord

__all__ = ["ForksRunner", "Link"]

#: How often children are asked for where there is no pidfd that would tell.
POLL_SECONDS = 0.1

#: How often a want of processes or descriptors is reported; the acceptor reports its own meanwhile.
SHORTAGE_SECONDS = 60.0


class ForksRunner(Runner):
    """Serves each connection in a child."""

    name: ClassVar[str] = "forks"

    def start(self) -> None:
        """Get ready; warns when a fork would copy a process with several threads."""
        warn_of_threads()
        self._links: dict[int, Link] = {}  # by pid
        self._drain: bytes | None = None  # what children are told of it
        self._forked: Forked | None = None  # in a child: what it is
        self._waiting: deque[tuple[Connection, float]] = deque()  # for a process, and since when
        self._turned_away: list[Callable[[], None]] = []  # acceptors that are told when nobody waits any more
        self._retry: Timer | None = None
        self._shortage = Shortage(self._watch, self._events, report_seconds=SHORTAGE_SECONDS)
        self._children = Children(self._settings.max_connections, self._child_left)
        if self._children.fileno() >= 0:
            self._watch.listen(self._children.fileno(), self._reap)

    def guard(self, gate: Gate) -> Gate:
        """Nobody is accepted while somebody waits for a process: the descriptors that come free are for the fork."""
        return _GuardedGate(gate, self._waiting, self._turned_away)

    def submit(self, connection: Connection) -> None:
        """Fork a child for it, or let it wait while there is no process or descriptor to be had."""
        self._waiting.append((connection, monotonic()))
        if self._retry is None:
            self._fork_waiting()

    def _fork_waiting(self) -> None:
        self._retry = None
        while self._waiting:
            connection, since = self._waiting[0]
            timeout = self._settings.queue_timeout
            if timeout is not None and monotonic() >= since + timeout:
                connection.end(Cause.QUEUE_TIMEOUT)
            try:
                if connection.is_over:
                    connection.finish()
                else:
                    self._fork(connection)
            except OSError as error:
                self._shortage.met(error)
                self._retry = self._watch.call_at(monotonic() + PAUSE_SECONDS, self._fork_waiting)
                return
            self._waiting.popleft()
        if self._shortage.is_on:
            self._shortage.over()
        while self._turned_away:
            self._turned_away.pop()()

    def _fork(self, connection: Connection) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if self._drain is not None:
            here.send(self._drain)
        try:
            child = self._children.fork(
                lambda: self._be_the_child(connection, there),
                close=lambda: self._close_in_child(connection, here),
                block=HELD,
            )
        except BaseException:
            here.close()
            raise
        finally:
            there.close()
        self._link(connection, child, here)

    def drain(self, deadline: float | None) -> None:
        """Tell every child that the server drains; one that ends now needs no other word than the end."""
        if deadline is not None and deadline <= monotonic():
            return
        self._drain = drain_message(deadline)
        for link in self._links.values():
            link.say(self._drain, signal.SIGUSR1)

    def stop(self, timeout: float | None) -> list[str]:
        """Give the children this many seconds, then end what is left; returns what had to be killed."""
        if self._retry is not None:
            self._retry.cancel()
        self._shortage.forget()
        while self._waiting:
            self._waiting.popleft()[0].finish()
        self._children.wait(Deadline(timeout))
        for link in tuple(self._links.values()):
            link.end()
        self._children.wait(Deadline(GRACE_SECONDS))
        killed = [f"process {pid} did not leave within {GRACE_SECONDS:g} s of SIGTERM" for pid in self._links]
        self._children.tell_all(signal.SIGKILL)
        self._children.wait(Deadline(KILL_SECONDS))
        self._watch.unlisten(self._children.fileno())
        self._children.close()
        return killed

    def passes_on_stop(self, timeout: float | None, cause: Cause) -> bool:
        """In a child: the server is the parent's, which is told."""
        return self._forked is not None and (self._forked.say(stop_message(timeout, cause)) or True)

    def has_this_thread(self) -> bool:
        """In a child, where nobody can wait for the end of the parent."""
        return self._forked is not None

    # ---- the parent's side of a child

    def _link(self, connection: Connection, child: Child, sock: socket.socket) -> None:
        link = self._links[child.pid] = Link(connection, child, self._children, sock, self._watch)
        link.on_stop = self.on_stop
        connection.lend(link)
        link.wake()  # it may have been ended meanwhile
        if child.pidfd is None:
            self._watch.call_at(monotonic() + POLL_SECONDS, lambda: self._ask_for(child))

    def _reap(self) -> None:
        self._children.reap()

    def _ask_for(self, child: Child) -> None:
        self._children.reap()
        if not child.ended:
            self._watch.call_at(monotonic() + POLL_SECONDS, lambda: self._ask_for(child))

    def _child_left(self, child: Child, _status: int | None) -> None:
        link = self._links.pop(child.pid)
        record = link.close()
        if record is not None and record.failure is not None and HandlerFailed in self._events.wanted:
            connection = link.connection
            self._events.emit(HandlerFailed(connection.id, connection.peer, record.failure.as_exception()))
        conclude(link.connection, record)

    # ---- in the child

    def _be_the_child(self, connection: Connection, parent: socket.socket) -> int:
        self._forked = Forked(connection, parent, self._watch, self._events)
        return self._forked.run(self._serve)

    def _close_in_child(self, connection: Connection, parents_end: socket.socket) -> None:
        parents_end.close()
        for link in self._links.values():
            link.sock.close()
        keep = {connection.fileno(), *self._watch.own_fds()}  # the Watch closes its own
        for fd in set(self._own_fds()) - keep:
            with suppress(OSError):
                os.close(fd)
        self._watch.begin_anew()


class _GuardedGate:
    """A gate that is closed while connections wait for a process."""

    def __init__(self, gate: Gate, waiting: Sized, turned_away: list[Callable[[], None]]) -> None:
        self._gate = gate
        self._waiting = waiting
        self._turned_away = turned_away

    def take(self) -> Ticket | None:
        return None if self._waiting else self._gate.take()

    def when_free(self, callback: Callable[[], None]) -> None:
        if self._waiting:
            self._turned_away.append(callback)
        else:
            self._gate.when_free(callback)


class Link:
    """The way to one child, and the waiter of the parent's Connection: waking it is telling the child."""

    plain = False
    is_loop = False

    def __init__(
        self, connection: Connection, child: Child, children: Children, sock: socket.socket, watch: Watch
    ) -> None:
        self.connection = connection
        self.sock = sock
        self._child = child
        self._children = children
        self._watch = watch
        self._kill: Timer | None = None
        self._record: ClosingRecord | None = None
        #: called when the child's handler stops the server
        self.on_stop: Callable[[float | None, Cause], None] = lambda timeout, cause: None
        watch.park(sock.fileno(), self._hear)

    def wait(self, stream: object, mask: int, timeout: float | None) -> bool:
        """Nobody reads this connection here."""
        raise InternalError("this connection is served by another process")

    def wake(self, stream: object = None) -> None:
        """Somebody has ended the connection; from any thread and from signal handlers."""
        if self.connection.is_over:
            self._watch.call_soon(self.end)

    def say(self, message: bytes, signum: int) -> None:
        """Send a message, and a signal that says so."""
        with suppress(OSError):  # the child is gone, or has not read hundreds of messages
            self.sock.send(message, socket.MSG_DONTWAIT)
        self._children.tell(self._child, signum)

    def end(self) -> None:
        """End the child: SIGTERM now, SIGKILL after the grace; a second call does nothing."""
        if self._kill is None and not self._child.ended:
            self._kill = self._watch.call_at(monotonic() + GRACE_SECONDS, self._kill_now)
            self.say(end_message(self.connection.cause or Cause.CLOSED_BY_OPERATOR), signal.SIGTERM)

    def close(self) -> ClosingRecord | None:
        """The child has ended: what did it say?"""
        if self._kill is not None:
            self._kill.cancel()
        self._hear()
        self._watch.unpark(self.sock.fileno())
        self.sock.close()
        return self._record

    def _hear(self, _mask: int = 0) -> None:
        try:
            while message := self.sock.recv(RECORD_BYTES, socket.MSG_DONTWAIT):
                stop = read_stop(message)
                if stop is not None:
                    self.on_stop(*stop)
                else:
                    self._record = ClosingRecord.unpack(message) or self._record
        except BlockingIOError:
            return
        except OSError:
            pass
        self._watch.unpark(self.sock.fileno())  # nobody is left who could say anything

    def _kill_now(self) -> None:
        self._children.tell(self._child, signal.SIGKILL)


def conclude(connection: Connection, record: ClosingRecord | None) -> None:
    """Close the parent's connection as the child's was closed; a child that said nothing was killed."""
    if record is None:
        connection.record(Cause.KILLED)
        connection.release()
    else:
        numbers = record.bytes_received, record.bytes_sent, record.handled
        connection.conclude(record.cause, record.phase, *numbers)


def warn_of_threads() -> None:
    """One warning that names the threads, in the place of one for each fork that names none (Python 3.12)."""
    others = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    if others:
        warnings.warn(
            f"runner 'forks' in a process with other threads ({', '.join(others)}): a lock that one of them holds "
            "at the moment of a fork stays locked in the child for ever; serve from a process without them",
            RuntimeWarning,
            stacklevel=2,
        )
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning, r"moorage\.runners")
