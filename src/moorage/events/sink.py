"""Sink: delivers events to those who want them.

Owns      the list of subscribers.
Promises  an event nobody wants is not built (`if X in events.wanted`); a subscriber that raises is removed and
          reported.
Refuses   to log or to count: those subscribe.
Note      subscribers run in the thread that emits and must not block; `events.queue(n)` is for those that may.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .causes import Cause
from .serving import ConnectionClosed, Event, SubscriberRemoved
from .supervising import EVENT_TYPES

Subscriber = Callable[[Any], None]


class Subscription(NamedTuple):
    """Who wants what."""

    subscriber: Subscriber
    types: frozenset[type[Event]]
    ends: frozenset[Cause]  # of ConnectionClosed, only those with these causes

    def wants(self, event: Event) -> bool:
        """Whether this event is for them."""
        return type(event) in self.types and (not isinstance(event, ConnectionClosed) or event.cause in self.ends)


class Events:
    """The sink: delivers events to those who subscribed to their class."""

    def __init__(self) -> None:
        # Guards changes of all below; delivery reads a snapshot and takes no lock.
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()
        #: the classes somebody wants; look here before building an event
        self.wanted: frozenset[type[Event]] = frozenset()
        #: the causes with which somebody wants `ConnectionClosed`
        self.ends: frozenset[Cause] = frozenset()

    def subscribe(
        self, subscriber: Subscriber, *types: type[Event], ends: Iterable[Cause] = Cause
    ) -> Callable[[], None]:
        """Deliver events of these types (all, when none is given); returns the unsubscribe call.

        `ends` narrows `ConnectionClosed`, the one event of every connection, to some causes.
        """
        wanted = frozenset(types or EVENT_TYPES)
        subscription = Subscription(subscriber, wanted, frozenset(ends) if ConnectionClosed in wanted else frozenset())
        with self._lock:
            self._replace((*self._subscriptions, subscription))
        return lambda: self._remove(subscription)

    def queue(self, size: int, *types: type[Event]) -> "EventQueue":
        """A bounded queue of events for a reader that may block."""
        queue = EventQueue(size)
        queue.close = self.subscribe(queue.put, *types)
        return queue

    def emit(self, event: Event) -> None:
        """Deliver one event, in this thread."""
        for subscription in self._subscriptions:
            if subscription.wants(event):
                try:
                    subscription.subscriber(event)
                except Exception as error:
                    self._remove(subscription)
                    self.emit(SubscriberRemoved(repr(subscription.subscriber), error))

    def clear(self) -> None:
        """Forget all subscribers, in a forked child: they belong to the parent."""
        self._lock = threading.Lock()  # a thread of the parent may have held it
        self._replace(())

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            self._replace(tuple(other for other in self._subscriptions if other is not subscription))

    def _replace(self, subscriptions: tuple[Subscription, ...]) -> None:
        self._subscriptions = subscriptions
        self.wanted = frozenset[type[Event]]().union(*(one.types for one in subscriptions))
        self.ends = frozenset[Cause]().union(*(one.ends for one in subscriptions))


class EventQueue:
    """At most `size` events; when it is full the oldest goes, and `dropped` counts it."""

    def __init__(self, size: int) -> None:
        self._events: deque[Event] = deque(maxlen=size)
        self._filled = threading.Condition()  # guards `_events` and `dropped`
        self.dropped = 0
        self.close: Callable[[], None] = lambda: None

    def put(self, event: Event) -> None:
        """Add one event; never blocks for longer than another `put` or `get` takes."""
        with self._filled:
            self.dropped += len(self._events) == self._events.maxlen
            self._events.append(event)
            self._filled.notify()

    def get(self, timeout: float | None = None) -> Event:
        """The oldest event; waits up to `timeout` seconds, then raises `TimeoutError`."""
        with self._filled:
            if not self._filled.wait_for(lambda: self._events, timeout):
                raise TimeoutError("no event came in time")
            return self._events.popleft()
