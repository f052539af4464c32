"""Home: where connections live, as one of them sees it.

Owns      the contract between a connection and the reception of its server, or the child process it was
          given to: tickets, timers, events, and the settings it obeys.
Promises  a connection asks for nothing else, so that a test or a forked child can be its home.
"""

from collections.abc import Callable
from typing import Any, Protocol

from .events import Events


class Ticket(Protocol):
    """What the gate gave; see admission."""

    def give_back(self) -> None: ...


class Timer(Protocol):
    """What the Watch gives for a call to come."""

    def cancel(self) -> None: ...


class Watch(Protocol):
    """What a connection needs of the Watch."""

    def call_at(self, when: float, call: Callable[[], None]) -> Timer: ...
    def call_soon(self, call: Callable[[], None]) -> None: ...
    def linger(self, sock: Any, release: Callable[[], None], rest: bytes = b"", /) -> None: ...


class Home(Protocol):
    """Where connections live: the server, as one of them sees it."""

    events: Events
    settings: Any  # ServerSettings

    @property
    def watch(self) -> Watch: ...
    @property
    def draining(self) -> bool: ...
    def forget(self, connection: Any, /) -> None: ...
