"""Loop: one run of `serve_forever()`.

Owns      a Watch, the listener's place in it, and the word that the run is to end.
Promises  `end()` may be called from any thread and any signal handler, and wakes the run by descriptor;
          `done` is set when the run is over.
Refuses   to accept: it only says that a client may be there.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from ..deadline import monotonic
from ..watch import Watch

__all__ = ["Loop"]


class Gate(Protocol):
    """Who counts; see admission."""

    def when_free(self, callback: Callable[[], None]) -> None: ...


class Loop:
    """One run of `serve_forever()` in one thread."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.done = threading.Event()
        self.is_ending = False
        self.is_closed = False
        #: no ticket is free
        self.is_waiting = False
        self._fd = -1
        self._is_listening = False
        self._is_ready = False

    def listen(self, fd: int) -> None:
        """Wait for clients of this descriptor."""
        self._fd = fd
        self._resume()

    def turn(self, timeout: float | None) -> bool:
        """Wait; whether a client may be there."""
        self._is_ready = False
        self.watch.turn(timeout)
        return self._is_ready

    def pause(self, seconds: float) -> None:
        """Leave the clients in the backlog for so long."""
        self._suspend()
        self.watch.call_at(monotonic() + seconds, self._resume)

    def wait_for(self, gate: Gate) -> None:
        """Leave the clients in the backlog until a ticket is free."""
        self._suspend()
        self.is_waiting = True
        gate.when_free(lambda: self.watch.call_soon(self._resume))

    def end(self) -> None:
        """End the run as soon as the handler that it runs itself, if any, has returned."""
        self.is_ending = True
        self.watch.wake()

    def close(self) -> None:
        """The run is over."""
        self.is_closed = True
        self._suspend()
        self.watch.close()

    def _suspend(self) -> None:
        self._is_listening = False
        self.watch.unlisten(self._fd)

    def _resume(self) -> None:
        self.is_waiting = False
        if not self._is_listening:
            self._is_listening = True
            self.watch.listen(self._fd, self._ready)

    def _ready(self) -> None:
        self._is_ready = True
