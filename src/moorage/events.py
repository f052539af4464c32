"""Events: everything that can happen, the causes of an end, and the sink that delivers them.

Owns      the event classes, the table of causes, the list of subscribers.
Promises  an event nobody wants is not built (`if X in events.wanted`); a subscriber that raises is
          removed and reported; every connection ends with exactly one cause of the table.
Refuses   to log or to count: those subscribe.
Why       the list of events is the documentation of what the server does (ThousandIsland's telemetry).
Note      subscribers run in the thread that emits and must not block; `events.queue(n)` is for those
          that may.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

Address = Any  # what the socket module calls an address: (host, port), (host, port, flow, scope), path


class Phase(StrEnum):
    """Where in its life a connection was when it ended."""

    ACCEPTED = "accepted"
    PROXY = "proxy"
    TLS = "tls"
    WAITING = "waiting"
    HANDLER = "handler"


class Cause(StrEnum):
    """Why a connection ended; `CAUSES` says who sets it, in which phases, and how it is logged."""

    PEER_CLOSED = "peer_closed"
    HANDLER_DONE = "handler_done"
    HANDLER_ERROR = "handler_error"
    IDLE = "idle"
    FIRST_DATA = "first_data"
    MESSAGE_DEADLINE = "message_deadline"
    MIN_RATE = "min_rate"
    TOO_LARGE = "too_large"
    WRITE_STALLED = "write_stalled"
    SETUP_DEADLINE = "setup_deadline"
    QUEUE_TIMEOUT = "queue_timeout"
    LIFETIME = "lifetime"
    RESET = "reset"
    REFUSED_TOTAL = "refused_total"
    REFUSED_CLIENT = "refused_client"
    REFUSED_RATE = "refused_rate"
    DENIED = "denied"
    PROXY_ERROR = "proxy_error"
    TLS_ERROR = "tls_error"
    SHED = "shed"
    DETACHED = "detached"
    DRAINED = "drained"
    DRAIN_DEADLINE = "drain_deadline"
    CLOSED_BY_OPERATOR = "closed_by_operator"
    KILLED = "killed"


class CauseRow(NamedTuple):
    """One line of the table of causes."""

    phases: frozenset[Phase]
    set_by: str
    level: int
    meaning: str


_ACCEPTED = frozenset({Phase.ACCEPTED})
_QUEUED = frozenset({Phase.ACCEPTED, Phase.WAITING})
_HANDLER = frozenset({Phase.HANDLER})
_SETUP = frozenset({Phase.PROXY, Phase.TLS})
_ANY = frozenset(Phase)

#: Every cause: in which phases it may be recorded, who records it, the level of its log line.
CAUSES: dict[Cause, CauseRow] = {
    Cause.PEER_CLOSED: CauseRow(_ANY, "stream", logging.DEBUG, "end of stream was delivered before the handler returned"),
    Cause.HANDLER_DONE: CauseRow(_HANDLER, "handler", logging.DEBUG, "the handler returned"),
    Cause.HANDLER_ERROR: CauseRow(_HANDLER, "handler", logging.ERROR, "the handler raised an exception of its own"),
    Cause.IDLE: CauseRow(_HANDLER, "watch", logging.DEBUG, "no byte either way for `idle_timeout` while the handler waited"),
    Cause.FIRST_DATA: CauseRow(_QUEUED, "watch", logging.DEBUG, "no first byte within `first_data_timeout`"),
    Cause.MESSAGE_DEADLINE: CauseRow(_HANDLER, "stream", logging.INFO, "a message was begun and not finished within `message_timeout`"),
    Cause.MIN_RATE: CauseRow(_HANDLER, "stream", logging.INFO, "a message arrived slower than `min_rate`"),
    Cause.TOO_LARGE: CauseRow(_HANDLER, "stream", logging.INFO, "a line or message exceeded `line_limit` or `message_limit`"),
    Cause.WRITE_STALLED: CauseRow(_HANDLER, "stream", logging.INFO, "the peer took no byte for `write_timeout`"),
    Cause.SETUP_DEADLINE: CauseRow(_SETUP, "watch", logging.INFO, "PROXY and TLS together took longer than `setup_timeout`"),
    Cause.QUEUE_TIMEOUT: CauseRow(_QUEUED, "watch", logging.WARNING, "no thread was free within `queue_timeout`"),
    Cause.LIFETIME: CauseRow(_ANY, "watch", logging.INFO, "the connection reached `lifetime`"),
    Cause.RESET: CauseRow(_ANY, "stream", logging.DEBUG, "the peer reset the connection or the network failed"),
    Cause.REFUSED_TOTAL: CauseRow(_ACCEPTED, "admission", logging.WARNING, "`max_connections` was reached and `overflow` is refuse or reset"),
    Cause.REFUSED_CLIENT: CauseRow(_ACCEPTED, "admission", logging.WARNING, "the client has `max_per_client` connections already"),
    Cause.REFUSED_RATE: CauseRow(_ACCEPTED, "admission", logging.WARNING, "clients arrive faster than `accept_rate` or `client_rate`"),
    Cause.DENIED: CauseRow(_ACCEPTED | _SETUP, "admission", logging.INFO, "a rule denies this network"),
    Cause.PROXY_ERROR: CauseRow(frozenset({Phase.PROXY}), "connection", logging.INFO, "the PROXY header is missing, malformed or from an untrusted source"),
    Cause.TLS_ERROR: CauseRow(frozenset({Phase.TLS, Phase.HANDLER}), "connection", logging.INFO, "the TLS handshake or a record failed"),
    Cause.SHED: CauseRow(_ANY, "watch", logging.WARNING, "closed to make room: it was the longest idle"),
    Cause.DETACHED: CauseRow(_HANDLER, "handler", logging.DEBUG, "the handler took the socket away with `detach()`"),
    Cause.DRAINED: CauseRow(_ANY, "drain", logging.DEBUG, "told end of stream by a drain, while quiet"),
    Cause.DRAIN_DEADLINE: CauseRow(_ANY, "drain", logging.WARNING, "still busy at `drain_timeout`"),
    Cause.CLOSED_BY_OPERATOR: CauseRow(_ANY, "operator", logging.INFO, "ended by `end()` or by the operator"),
    Cause.KILLED: CauseRow(_ANY, "runner", logging.ERROR, "its process died"),
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True)
class ServerStarted(Event):
    """The server accepts connections."""

    addresses: tuple[Address, ...]
    runner: str


@dataclass(frozen=True)
class ServerSuspended(Event):
    """Accepting is suspended; clients wait in the backlog."""


@dataclass(frozen=True)
class ServerResumed(Event):
    """Accepting goes on after a suspension."""


@dataclass(frozen=True)
class ServerStopped(Event):
    """The serve loop has ended and every listener is closed."""


@dataclass(frozen=True)
class DrainStarted(Event):
    """A drain has begun: `open` connections, at most `timeout` seconds (None: no limit)."""

    open: int
    timeout: float | None


@dataclass(frozen=True)
class DrainFinished(Event):
    """A drain is over: `cut` connections were ended at the deadline, after `seconds`."""

    cut: int
    seconds: float


@dataclass(frozen=True)
class AcceptPaused(Event):
    """Accept failed for want of descriptors or memory; tried again after `delay` seconds.

    `failures` counts the failed tries since the last such event; at most one event a second.
    """

    error: OSError
    delay: float
    failures: int


@dataclass(frozen=True)
class AcceptResumed(Event):
    """Accept works again after `paused` seconds."""

    paused: float


@dataclass(frozen=True)
class AcceptFailed(Event):
    """Accept failed with an error that is ours: the listener is of no more use."""

    error: OSError


@dataclass(frozen=True)
class ConnectionOpened(Event):
    """A connection was admitted."""

    id: int
    peer: Address
    local: Address


@dataclass(frozen=True)
class ConnectionRefused(Event):
    """A connection was accepted only to be refused."""

    peer: Address
    cause: Cause


@dataclass(frozen=True)
class ConnectionClosed(Event):
    """A connection is over and its ticket is back.

    `seconds` is its whole life, `queued` the wait for a thread, `handled` the handler's time.
    """

    id: int
    peer: Address
    cause: Cause
    phase: Phase
    bytes_received: int
    bytes_sent: int
    seconds: float
    queued: float
    handled: float


@dataclass(frozen=True)
class HandlerFailed(Event):
    """A handler raised an exception that is not of its connection's making."""

    id: int
    peer: Address
    error: BaseException


@dataclass(frozen=True)
class HandlersCut(Event):
    """Handlers did not return although their connections were ended; `stacks` says where they are."""

    stacks: tuple[str, ...]


@dataclass(frozen=True)
class SiblingsLeft(Event):
    """Siblings of a handler did not return although its connection ended; `stacks` says where they are."""

    id: int
    peer: Address
    stacks: tuple[str, ...]


@dataclass(frozen=True)
class PoolSaturated(Event):
    """Every thread is taken and `waiting` connections are ready for one; at most once a minute."""

    threads: int
    waiting: int


@dataclass(frozen=True)
class HandlerHeldHub(Event):
    """A handler let no other fiber run for `seconds`, so far unless `is_over`; once per place in the program.

    `advice` says what to call instead.
    """

    file: str
    line: int
    function: str
    seconds: float
    is_over: bool
    advice: str


@dataclass(frozen=True)
class SubscriberRemoved(Event):
    """A subscriber raised an exception and gets no more events."""

    subscriber: str
    error: BaseException


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


#: Every event, in the order of this file; the reference page is made from it.
EVENT_TYPES: tuple[type[Event], ...] = tuple(Event.__subclasses__())
