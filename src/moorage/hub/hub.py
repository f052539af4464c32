"""Hub: the Watch of a server whose handlers are fibers.

Owns      the loop of these fibers, and is turned in their `main`.
Promises  what a Watch promises; its listeners, calls and timers have their turn once a round, however busy
          the fibers are.
Refuses   to be turned in a second thread.
"""

import threading

from ..watch import Call, Watch
from . import parking
from .fibers import Fibers


class Hub(Watch):
    """Waits for everything a server waits for; see `turn`."""

    def _open(self) -> None:
        super()._open()
        self.loop = Fibers(self._timers, self._calls, self.call_soon)
        for fd in self._listening:
            self.loop.listen(fd)

    def enter(self) -> None:
        """This thread turns it."""
        self.loop.enter()
        parking.enter(self.loop)

    def turn(self, timeout: float | None = None) -> None:
        """Run fibers until something else is ready or due, or for `timeout` seconds; then do that."""
        end = None
        if timeout:
            end = self._timers.call_at(self._clock() + timeout, _nothing)
        elif timeout is not None:
            self._calls.append(_nothing)
        for fd in self.loop.run():
            call = self._listening.get(fd)  # None: taken out by an earlier call of this turn
            if call is not None:
                call()
        self._timers.run_due()
        if self._calls:
            self._run_calls()
        if end is not None:
            end.cancel()

    def listen(self, fd: int, call: Call) -> None:
        """Call whenever this descriptor is readable; for listeners and pipes, of which there are few."""
        self._listening[fd] = call
        self.loop.listen(fd)

    def unlisten(self, fd: int) -> None:
        """Forget a descriptor given to `listen`; does nothing for an unknown one."""
        if self._listening.pop(fd, None) is not None:
            self.loop.unlisten(fd)

    def call_soon(self, call: Call) -> None:
        """Call in the thread that turns the hub, and end its wait."""
        self._calls.append(call)
        if self.loop.asleep:
            self.wake()

    def own_fds(self) -> list[int]:
        """The descriptors a forked child has to close."""
        return [self.loop.fileno(), *super().own_fds()]

    def close(self) -> None:
        """Close what lingers and the hub's own descriptors; a second call does nothing."""
        if self._closed:
            return
        super().close()
        if threading.get_ident() == self.loop.thread_id:
            self.loop.retire()
            parking.leave()
        self.loop.close()


def _nothing() -> None:
    """What is called only so that a turn ends."""
