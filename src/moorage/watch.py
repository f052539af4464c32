"""Watch: every wait that is not a handler's.

Owns      one poller for a serve loop: listeners, parked and lingering sockets, timers, and the waker.
Promises  no wake-up but for an event, a due timer, a call; a call from any thread or signal handler ends
          the wait at once; a lingering socket is written to within `REST_SECONDS`, then read and closed within
          `LINGER_SECONDS` and `LINGER_BYTES`.
Refuses   to run user code, and to be turned by two threads at once.
Why       `poll` for the few listeners, `epoll` for the many parked sockets: epoll on a shared listener
          wakes the same worker again and again (200 arrivals over four workers: poll 51/49/49/51,
          epoll 74/90/34/2), and poll on many sockets costs time for each of them.
"""

import math
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .deadline import Clock, monotonic
from .twins import Timer, Wheel

#: nginx lingers 5 s per read and 30 s in all, waitress not at all; two seconds are many round trips
LINGER_SECONDS = 2.0
#: unread input that is worth discarding to save the reply; a peer that sends more is not listening
LINGER_BYTES = 64 * 1024
#: for the end of what TLS has to say, when the kernel's buffer was full: a peer that reads makes room in less
REST_SECONDS = 1.0
LINGER_LOOKS = 0.125  # seconds between two looks at a socket that is always ready
#: ESTABLISHED, FIN_WAIT1, FIN_WAIT2 of linux/tcp_states.h: the peer has not sent its FIN
OPEN_STATES = frozenset({1, 4, 5})
PARKED_BATCH = 256  # events of parked sockets per turn, so that listeners get their turn too
MSG_DONTWAIT = int(socket.MSG_DONTWAIT)
PARKED_MASK = select.EPOLLIN | select.EPOLLRDHUP

Call = Callable[[], object]
Ready = Callable[[int], None]


class Socket(Protocol):
    """What lingering needs of a socket; the Watch becomes its holder and closes it."""

    @property
    def family(self) -> int: ...
    def fileno(self) -> int: ...
    def getsockopt(self, level: int, option: int, buflen: int, /) -> bytes: ...
    def recv_into(self, buffer: bytearray, nbytes: int, flags: int, /) -> int: ...
    def send(self, data: bytes, flags: int, /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class Watch:
    """Waits for everything a server waits for outside of its handlers; see `turn`."""

    _closed = True  # until it is open

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._open()

    def _open(self) -> None:
        # Guards `_closed`: nobody may wake a descriptor that is closed, and perhaps a client's by now.
        # Re-entrant, since a signal handler may wake.
        self._guard = threading.RLock()
        self._timers = Wheel(self._clock)
        self._calls: deque[Call] = deque()
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._poll = select.poll()
        self._poll.register(self._waker, select.POLLIN)
        self._poll.register(self._epoll.fileno(), select.POLLIN)
        self._listening: dict[int, Call] = {self._waker: self._hear, self._epoll.fileno(): self._turn_parked}
        self._parked: dict[int, Ready] = {}
        self._lingering: set[_Lingering] = set()
        self._asleep = False
        self._closed = False

    # Methods for the thread that turns the Watch

    def turn(self, timeout: float | None = None) -> None:
        """Wait for at most `timeout` seconds (None: for ever), then run what is ready and due."""
        delay = self._timers.delay()
        if timeout is not None and (delay is None or timeout < delay):
            delay = timeout
        self._asleep = True  # from here on `call_soon` wakes; a call made before is seen by the next line
        if self._calls:
            delay = 0.0
        ready = self._poll.poll(None if delay is None else math.ceil(delay * 1000))
        self._asleep = False
        for fd, _ in ready:
            call = self._listening.get(fd)  # None: taken out by an earlier call of this turn
            if call is not None:
                call()
        self._timers.run_due()
        self._run_calls()

    def call_at(self, when: float, call: Call) -> Timer:
        """Call at a moment of the clock, never early, at most 1/32 s late."""
        return self._timers.call_at(when, call)

    def call_sharply_at(self, when: float, call: Call) -> Timer:
        """As `call_at`, at most about a millisecond late: for pauses that are shorter than its slots."""
        return self._timers.call_sharply_at(when, call)

    def listen(self, fd: int, call: Call) -> None:
        """Call whenever this descriptor is readable; for listeners and pipes, of which there are few."""
        self._listening[fd] = call
        self._poll.register(fd, select.POLLIN)

    def unlisten(self, fd: int) -> None:
        """Forget a descriptor given to `listen`; does nothing for an unknown one."""
        if self._listening.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def park(self, fd: int, ready: Ready, mask: int = PARKED_MASK) -> None:
        """Call with the epoll events whenever this socket is readable or closed; for any number."""
        self._parked[fd] = ready
        self._epoll.register(fd, mask)

    def unpark(self, fd: int) -> None:
        """Forget a socket given to `park`, before it is closed; does nothing for an unknown one."""
        if self._parked.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Close what lingers and the Watch's own descriptors; a second call does nothing."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        self._run_calls()
        for lingering in tuple(self._lingering):
            lingering.finish()
        self._epoll.close()
        os.close(self._waker)

    def __del__(self) -> None:
        if not self._closed:  # dropped without `close`: the only descriptor that no object owns
            os.close(self._waker)

    # Methods for any thread and for signal handlers

    def call_soon(self, call: Call) -> None:
        """Call in the thread that turns the Watch, and end its wait."""
        self._calls.append(call)
        if self._asleep:
            self.wake()

    def wake(self) -> None:
        """End the wait of the current turn, or of the next one."""
        with self._guard:
            if not self._closed:
                os.eventfd_write(self._waker, 1)

    def linger(self, sock: Socket, release: Call, rest: bytes = b"", /) -> None:
        """Take this socket, of which the sending side is shut; discard its input, close it, call `release`.

        With a `rest` that side is still open, and shut when this is written.

        A socket closed with unread input sends a reset, and the peer loses the reply it has not read
        (RFC 1122 4.2.2.13).
        """
        lingering = _Lingering(self, sock, release, rest)
        self.call_soon(lingering.begin)
        if self._closed:  # before, or meanwhile: nobody will turn
            self._run_calls()

    def is_lingering(self) -> bool:
        """Whether any socket lingers or is about to."""
        return bool(self._lingering or self._calls)

    def own_fds(self) -> list[int]:
        """The descriptors a forked child has to close: the Watch's own and those that linger."""
        return [self._waker, self._epoll.fileno(), *(lingering.fd for lingering in self._lingering)]

    def begin_anew(self) -> None:
        """In a forked child: leave all that is waited for to the parent, without touching what is shared with it."""
        self._epoll.close()
        os.close(self._waker)
        for lingering in self._lingering:
            lingering._sock.close()
        self._open()

    def _hear(self) -> None:
        try:
            os.eventfd_read(self._waker)
        except BlockingIOError:  # a turn within this turn (inline runner) has heard it already
            pass

    def _turn_parked(self) -> None:
        for fd, mask in self._epoll.poll(0, PARKED_BATCH):
            ready = self._parked.get(fd)
            if ready is not None:
                ready(mask)

    def _run_calls(self) -> None:
        for _ in range(len(self._calls)):  # not the calls that these calls make: those wait a turn
            try:
                call = self._calls.popleft()
            except IndexError:  # a turn within one of these calls has made the rest
                return
            call()


class _Lingering:
    """One socket that waits for its peer to close."""

    scratch = bytearray(LINGER_BYTES)  # what arrives here is read by nobody

    def __init__(self, watch: Watch, sock: Socket, release: Call, rest: bytes) -> None:
        self.fd = sock.fileno()
        self._watch = watch
        self._sock = sock
        self._release = release
        self._rest = rest
        self._left = LINGER_BYTES
        self._until = 0.0
        self._timer: Timer | None = None

    def begin(self) -> None:
        self._watch._lingering.add(self)
        if self._watch._closed:
            self.finish()
        elif self._rest:
            self._watch.park(self.fd, self._write, select.EPOLLOUT)
            self._timer = self._watch.call_at(self._watch._clock() + REST_SECONDS, self._end_writing)
        else:
            self._begin_reading()

    def _write(self, _mask: int) -> None:
        """The kernel has room for more of the rest."""
        try:
            self._rest = self._rest[self._sock.send(self._rest, MSG_DONTWAIT) :]
        except BlockingIOError:
            return
        except OSError:
            self._rest = b""
        if not self._rest:
            self._end_writing()

    def _end_writing(self) -> None:
        """Say end of stream, whether or not all was written."""
        self._watch.unpark(self.fd)
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:  # the peer has gone
            self.finish()
            return
        self._begin_reading()

    def _begin_reading(self) -> None:
        if not self._is_over():
            self._watch.park(self.fd, self._ready)
            self._timer = self._watch.call_at(self._watch._clock() + LINGER_SECONDS, self.finish)

    def finish(self) -> None:
        """Close, and say so; what it was registered for is forgotten first."""
        if self not in self._watch._lingering:
            return
        self._watch._lingering.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None  # no cycle: it calls us
        self._watch.unpark(self.fd)
        self._release()  # first: who else knows this socket must learn that its number is not its own any more
        self._sock.close()

    def _ready(self, _mask: int) -> None:
        self._is_over()

    def _look(self) -> None:
        self._is_over()

    def _is_over(self) -> bool:
        """Read what is there; finish at the end of the stream, at an error, or at the limit."""
        try:
            count = self._sock.recv_into(self.scratch, self._left, MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        self._left -= count
        if count == 0 and _is_open(self._sock):  # our own SHUT_RD looks like an end: it would be ready for ever
            self._look_again()
            return True
        if count == 0 or self._left <= 0:
            self.finish()
            return True
        return False

    def _look_again(self) -> None:
        """Look at the state of the connection a few times, since its descriptor is always ready."""
        self._watch.unpark(self.fd)
        now = self._watch._clock()
        self._until = self._until or now + LINGER_SECONDS
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._watch.call_at(now + LINGER_LOOKS, self.finish if now > self._until else self._look)


def _is_open(sock: Socket) -> bool:
    """Whether a TCP peer has not closed its side yet."""
    if sock.family == socket.AF_UNIX:
        return False
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in OPEN_STATES
    except OSError:
        return False
