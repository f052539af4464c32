"""Loop: whose turn it is in one thread, and the one wait that all its fibers share.

Owns      the run queue, and one epoll for the sockets of streams and the few descriptors of `main`.
Promises  a fiber that waits takes the next ready event itself and switches straight to its owner; everything
          ready is served once before anything is served again; a wake-up without reason is possible, a lost
          one is not.
Refuses   to start a fiber from within another: it would live on top of that one's stack, and a thousand
          such kill the process.  Only `main`, the greenlet that turns the loop, starts them.
Why       this is the pure twin; `_native` has the one in C, chosen by `twins`.  What does not happen for each
          message is in a subclass; see fibers.

Sockets are registered once, edge-triggered, for reading; for writing too from the first time that one is full.
"""

import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
#: after these a short read does not mean that there is no more
UNUSUAL = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLPRI
MASK = READ | select.EPOLLPRI | select.EPOLLET
BATCH = 256  # events asked for at once
BUDGET = 32  # receives and sends in a row without a wait; then others have their turn


class Wheel(Protocol):
    """What the loop asks of the timers."""

    def delay(self) -> float | None: ...


class Loop:
    """Made anywhere; lives in the thread that calls `enter` and then `run`.

    wheel  the timers of this loop
    calls  what `main` has to call; looked at once a round
    """

    plain = True
    is_loop = True

    def __init__(self, wheel: Wheel, calls: "deque[Callable[[], object]]") -> None:
        from greenlet import getcurrent

        self._current: Callable[[], Any] = getcurrent
        self._epoll = select.epoll()
        self._wheel = wheel
        self._calls = calls
        self._streams: dict[int, Any] = {}
        self._of_main: set[int] = set()  # descriptors that `main` is woken for
        self._ready: list[int] = []  # those that are
        self._events: list[tuple[int, int]] = []
        self._queue: deque[Any] = deque()  # fibers to be resumed
        self._round = 0  # of these, those that belong to this round
        self._newborn: deque[Any] = deque()  # not started yet
        self._thrown: dict[Any, BaseException] = {}  # to be raised in a fiber when it is resumed
        self._has_polled = False  # since `main` ran
        self._budget = BUDGET
        self.main: Any = None
        self._main_too: Any = None  # see `enter`; directly after `main`
        self.thread_id = 0
        #: what `main` is to raise
        self.error: BaseException | None = None
        #: inside epoll_wait
        self.asleep = False
        #: released when the loop has slept; see watchdog
        self.bell: Any = None
        #: counts switches
        self.switches = 0

    # For main

    def enter(self) -> None:
        """This thread turns it."""
        # Twice: when a thread ends whose main greenlet has one referrer that the collector does not find, greenlet takes
        # that reference for lost and drops it (~ThreadState); a loop that is being collected is not found.
        self.main = self._main_too = self._current()
        self.thread_id = threading.get_ident()

    def run(self) -> list[int]:
        """Run fibers until `main` is wanted: returns its descriptors that are ready.

        Returns too when a call waits or a timer is due; raises `error`.
        """
        self._has_polled = False
        while True:
            while self._newborn:  # one leaves the list when it is started: while there is any, `main` is wanted
                self._switch(self._newborn.popleft())
            fiber = self._pick()
            if fiber is not self.main:
                self._switch(fiber)
            elif not self._newborn:
                break
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        ready, self._ready = self._ready, []
        return ready

    def listen(self, fd: int) -> None:
        """Wake `main` whenever this descriptor is readable."""
        self._of_main.add(fd)
        self._epoll.register(fd, select.EPOLLIN)

    def unlisten(self, fd: int) -> None:
        """Forget a descriptor given to `listen`."""
        self._of_main.discard(fd)
        self._epoll.unregister(fd)

    def fileno(self) -> int:
        """Of its epoll; -1 when it is closed."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def close(self) -> None:
        """Close the epoll; no fiber may be left."""
        self._epoll.close()

    # For fibers

    def ready(self, fiber: Any) -> None:
        """Resume this fiber soon; a fiber must expect to be resumed without a reason."""
        self._queue.append(fiber)

    def rest(self) -> None:
        """The calling fiber gives control away until somebody gives it back."""
        me = self._current()
        fiber = self._pick()
        if fiber is not me:
            self._switch(fiber)
        self._budget = BUDGET
        if self._thrown and (error := self._thrown.pop(me, None)) is not None:
            try:
                raise error
            finally:
                del error  # no cycle of an error and the frame it is raised in

    def spend(self) -> None:
        """Something was done without a wait; after many such the others have their turn."""
        self._budget -= 1
        if self._budget < 0 and threading.get_ident() == self.thread_id:
            self.give_way()

    def give_way(self) -> None:
        """Let every other ready fiber go first."""
        self._queue.append(self._current())
        self.rest()

    # Waits of streams

    def wait_readable(self, stream: Any) -> None:
        """Rest until this stream is readable, or without a reason."""
        if threading.get_ident() != self.thread_id:
            self.wait_outside(stream, READ, None)
            return
        if stream._reader is not None:
            raise RuntimeError("another fiber is reading from this connection")
        if stream._slot < 0:
            self._register(stream)
        stream._reader = self._current()
        try:
            self.rest()
        finally:
            stream._reader = None

    def wait_writable(self, stream: Any, or_readable: bool = False) -> None:
        """Rest until this stream is writable, or readable if that is wanted too, or without a reason."""
        if stream._writer is not None:
            if stream._writer is not stream._reader:
                raise RuntimeError("another fiber is writing to this connection")
            self.ready(stream._writer)  # who waits for both, until a writer comes: then for reading alone
        if stream._slot < 0:
            self._register(stream)
        if not stream._has_out:
            self._epoll.modify(stream._slot, MASK | WRITE)  # and an event, if it is writable by now
            stream._has_out = True
        me = stream._writer = self._current()
        if or_readable:
            stream._reader = me
        try:
            self.rest()
        finally:
            if stream._writer is me:
                stream._writer = None
            if or_readable:
                stream._reader = None

    def forget(self, stream: Any, is_given_away: bool = True) -> None:
        """The descriptor is about to belong to somebody else, or to be closed, which takes it out of the epoll."""
        if stream._deadline_look is not None:
            stream._deadline_look.cancel()
            stream._deadline_look = None
        if stream._slot >= 0:
            del self._streams[stream._slot]
            if is_given_away and not self._epoll.closed:
                self._epoll.unregister(stream._slot)
            stream._slot = -1

    def wait_outside(self, stream: Any, mask: int, timeout: float | None) -> bool:
        """As `wait`, for a caller that is no fiber; a subclass does it."""
        raise NotImplementedError

    def _register(self, stream: Any) -> None:
        fd = stream._sock.fileno()
        self._epoll.register(fd, MASK)
        self._streams[fd] = stream
        stream._slot = fd
        if stream._sock.family == socket.AF_UNIX:  # there, a read ends where the next message has descriptors
            stream._sticky = True

    # The heart

    def _switch(self, fiber: Any) -> None:
        self.switches += 1
        fiber.switch()

    def _pick(self) -> Any:
        """The fiber to go on with, or `main`."""
        while True:
            while self._round:
                self._round -= 1
                fiber = self._queue.popleft()
                if fiber:  # begun, and not over
                    return fiber
                if not fiber.dead:
                    self._newborn.append(fiber)
            while self._events:
                fiber = self._owner(*self._events.pop())
                if fiber is not None:
                    return fiber
            if self._newborn:
                return self.main
            delay = self._wheel.delay()
            is_wanted = bool(self._ready or self._calls or self.error or delay == 0.0)
            if is_wanted and self._has_polled:
                return self.main
            if self._epoll.closed:  # a fiber that would not leave, and is thrown away now: here it ends
                return self._current().parent or self.main
            self._has_polled = True
            self._poll(0 if is_wanted or self._queue else delay)
            self._round = len(self._queue)

    def _poll(self, delay: float | None) -> None:
        self.switches += 1  # a fiber that is alone goes on without a switch; see watchdog
        self.asleep = True  # from here on `call_soon` wakes; a call made before is seen by the next line
        try:
            self._events = self._epoll.poll(0 if self._calls else delay, BATCH)
        except BaseException as error:  # Ctrl-C: it is meant for `main`, not for the fiber that happens to wait here
            self.error = error
        self.asleep = False
        if self.bell is not None:
            bell, self.bell = self.bell, None
            bell.release()

    def _owner(self, fd: int, mask: int) -> Any:
        """Whom this event makes ready."""
        stream = self._streams.get(fd)
        if stream is None:
            if fd in self._of_main:
                self._ready.append(fd)
            return None
        if mask & UNUSUAL:
            stream._sticky = True
        if mask & ~WRITE:
            stream._readable = True
        if mask & ~READ:
            stream._writable = True
        reader, writer = stream._reader, stream._writer
        if writer is not None and stream._writable:
            if reader is not None and stream._readable:
                self._queue.append(reader)
            return writer
        return reader if stream._readable else None
