"""A sink that remembers: subscribes to events and lets a test look at them, or wait for one.

Promises  events are kept in the order in which they came, from whatever thread.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from moorage.events import Event, Events

from .sockets import PATIENCE

E = TypeVar("E", bound=Event)


class Sink:
    """Subscribes to all events of `events`, or to these types."""

    def __init__(self, events: Events, *types: type[Event]) -> None:
        self.seen: list[Event] = []
        self._came = threading.Condition()  # guards `seen`
        self.unsubscribe = events.subscribe(self._take, *types)

    def _take(self, event: Event) -> None:
        with self._came:
            self.seen.append(event)
            self._came.notify_all()

    def of(self, kind: type[E]) -> list[E]:
        """The events of one class, so far."""
        return [event for event in self.seen if isinstance(event, kind)]

    def wait_for(self, kind: type[E], matches: Callable[[E], bool] = lambda _: True, count: int = 1) -> E:
        """The event of this class that makes `count` of them; fails when it does not come."""
        with self._came:
            found = self._came.wait_for(
                lambda: [event for event in self.of(kind) if matches(event)][count - 1 : count], PATIENCE
            )
        assert found, f"no {kind.__name__} came; there were {self.seen}"
        return found[0]
