"""A fake Watch: time stands still until the test moves it, and what it was asked for can be looked at.

Owns      the fake clock (`clock()`), the descriptors listened for and parked, the calls and timers to come.
Promises  timers run in the order of their moments; what lingers is kept until the test releases it.
"""

import _socket
import select
from collections.abc import Callable

from .sockets import PATIENCE

Call = Callable[[], None]
PARKED_MASK = select.EPOLLIN | select.EPOLLRDHUP


class FakeTimer:
    """A call that the fake clock brings."""

    def __init__(self, when: float, call: Call) -> None:
        self.when = when
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeWatch:
    """Everything happens when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.listening: dict[int, Call] = {}
        self.parked: dict[int, Callable[[int], None]] = {}
        self.masks: dict[int, int] = {}  # what they are parked for
        self.calls: list[Call] = []
        self.timers: list[FakeTimer] = []
        self.lingering: list[tuple[_socket.socket, Call]] = []
        self.rests: list[bytes] = []  # what is to be written before

    def clock(self) -> float:
        return self.now

    def listen(self, fd: int, call: Call) -> None:
        self.listening[fd] = call

    def unlisten(self, fd: int) -> None:
        self.listening.pop(fd, None)

    def park(self, fd: int, ready: Callable[[int], None], mask: int = PARKED_MASK) -> None:
        assert fd not in self.parked, "epoll would raise FileExistsError"
        self.parked[fd] = ready
        self.masks[fd] = mask

    def unpark(self, fd: int) -> None:
        self.parked.pop(fd, None)
        self.masks.pop(fd, None)

    def look(self, seconds: float = 0) -> int:
        """Call for the parked descriptors that are ready, as the kernel says; returns how many there were."""
        poll = select.poll()
        for fd, mask in self.masks.items():
            poll.register(fd, mask)
        ready = poll.poll(seconds * 1000)
        for fd, mask in ready:
            if fd in self.parked:
                self.parked[fd](mask)
        return len(ready)

    def wait_parked(self) -> None:
        """Wait until one of them is ready, and call."""
        assert self.look(PATIENCE), "nobody became ready"

    def call_soon(self, call: Call) -> None:
        self.calls.append(call)

    def call_at(self, when: float, call: Call) -> FakeTimer:
        timer = FakeTimer(when, call)
        self.timers.append(timer)
        return timer

    call_sharply_at = call_at

    def linger(self, sock: _socket.socket, release: Call, rest: bytes = b"", /) -> None:
        self.lingering.append((sock, release))
        self.rests.append(rest)

    def run_calls(self) -> None:
        """Make the calls that wait, and those that these make."""
        while self.calls:
            self.calls.pop(0)()

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass, timer after timer."""
        end = self.now + seconds
        while due := sorted((t for t in self.timers if t.when <= end and not t.is_cancelled), key=lambda t: t.when):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0].when)
            due[0].call()
        self.now = end

    def release_lingering(self) -> None:
        """Close what lingers, as the Watch does at the end."""
        while self.lingering:
            sock, release = self.lingering.pop(0)
            sock.close()
            release()
