"""A fake Watch: time stands still until the test moves it, and what it was asked for can be looked at.

Owns      the fake clock (`clock()`), the descriptors listened for, the calls and timers to come.
Promises  timers run in the order of their moments; what lingers is kept until the test releases it.
"""

import _socket
from collections.abc import Callable

Call = Callable[[], None]


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
        self.calls: list[Call] = []
        self.timers: list[FakeTimer] = []
        self.lingering: list[tuple[_socket.socket, Call]] = []

    def clock(self) -> float:
        return self.now

    def listen(self, fd: int, call: Call) -> None:
        self.listening[fd] = call

    def unlisten(self, fd: int) -> None:
        self.listening.pop(fd, None)

    def call_soon(self, call: Call) -> None:
        self.calls.append(call)

    def call_at(self, when: float, call: Call) -> FakeTimer:
        timer = FakeTimer(when, call)
        self.timers.append(timer)
        return timer

    call_sharply_at = call_at

    def linger(self, sock: _socket.socket, release: Call) -> None:
        self.lingering.append((sock, release))

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
