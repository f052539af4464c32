"""Guests: the connections that are here, as each of them sees its home.

Owns      the table of open connections, and who is to hear that one less is in it.
Promises  whoever enters is in it until `forget`, which may be called from any thread.
Refuses   to admit: reception does, which is made of this.
Why       this is the pure twin; the one in `_native` spares every connection that ends five calls.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

from .events import Events


class Guests:
    """What a connection's home has: settings, watch, events, and the table that it is in."""

    def __init__(self, settings: Any, watch: Any, events: Events) -> None:
        self.settings = settings
        self.watch = watch
        self.events = events
        #: set when a drain begins; what `conn.draining` says
        self.draining = False
        #: called, in any thread, when the last connection is over while the server drains
        self.on_empty: Callable[[], None] = lambda: None
        self._guests: dict[int, Any] = {}
        self._fewer = threading.Condition()  # guards `_watchers`; told when a connection is over
        self._watchers = 0

    def __len__(self) -> int:
        return len(self._guests)

    def __iter__(self) -> Iterator[Any]:
        """Those who are here at this moment."""
        return iter(tuple(self._guests.values()))

    def forget(self, guest: Any) -> None:
        """This connection is over; from any thread."""
        self._guests.pop(guest.id, None)
        if self._watchers or self.draining:
            self._tell()

    def _tell(self) -> None:
        if self._watchers:
            with self._fewer:
                self._fewer.notify_all()
        if self.draining and not self._guests:
            self.on_empty()
