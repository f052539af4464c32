"""Sharing: what servers in several processes have in common, and what a server has alone.

Owns      the choice between the two: whose listeners, whose gate, whose counts and rates of clients.
Promises  a limit is one limit, however many servers share it; a server that shares nothing keeps the same limits
          by itself.
Refuses   to know how processes share: what is given here is all that a server sees of the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import admission
from .acceptor import Gate
from .admission import ClientCounts, ClientLimit, LocalCounts, client_keys
from .config import ListenerSettings, ServerSettings
from .door import Door
from .events import Events
from .listener import Listener, open_listeners
from .pace import Pace
from .rates import Memory
from .watch import Watch


@dataclass(frozen=True)
class Shared:
    """What a server has in common with others, which serve the same clients.

    listeners  open already; the server closes its copies
    make_gate  the gate that all of them take their tickets from, as seen with the Watch of this server
    share      how many of so many that wait are for this server; see the acceptor
    counts     how many connections each client has, at all of them
    rates      when how many came in, at all of them
    fds        what else a forked child of the server has to close
    """

    listeners: Sequence[Listener]
    make_gate: Callable[[Watch], Gate]
    share: Callable[[int | None], int] | None = None
    counts: ClientCounts | None = None
    rates: Memory | None = None
    fds: Sequence[int] = ()


def listeners_of(shared: Shared | None, settings: Sequence[ListenerSettings]) -> list[Listener]:
    """Those that are shared, or our own, opened now; raises `BindError`."""
    return open_listeners(settings) if shared is None else list(shared.listeners)


def gate_of(shared: Shared | None, settings: ServerSettings, watch: Watch) -> Gate:
    """Who counts all connections."""
    return admission.Gate(settings.max_connections) if shared is None else shared.make_gate(watch)


def limit_of(shared: Shared | None, settings: ServerSettings) -> ClientLimit | None:
    """Who counts those of each client; None where a client may have any number."""
    if settings.max_per_client is None:
        return None
    counts = None if shared is None else shared.counts
    return ClientLimit(settings.max_per_client, counts or LocalCounts())


def doors_of(
    shared: Shared | None, settings: ServerSettings, listeners: Sequence[Listener], events: Events
) -> list[Door | None]:
    """The door of each listener, None where everybody may come in; limits are of all of them together."""
    limit, rates = limit_of(shared, settings), None
    client_key = client_keys(settings.client_prefix_v4, settings.client_prefix_v6)
    if settings.client_rate is not None:
        rates = _memory(shared).client_rates(settings.client_rate, settings.client_burst)
    for listener in listeners:
        if listener.rules is not None:
            listener.rules.events = events
    return [
        None
        if listener.rules is None and limit is None and rates is None
        else Door(
            events, rules=listener.rules, rates=rates, limit=limit, client_key=client_key,
            observe_only=settings.observe_only, has_proxy=listener.settings.proxy_protocol != "off",
        )
        for listener in listeners
    ]  # fmt: skip


def pace_of(shared: Shared | None, settings: ServerSettings, events: Events) -> Pace | None:
    """How fast clients are accepted at all listeners together; None where there is no limit."""
    if settings.accept_rate is None:
        return None
    rate = _memory(shared).rate(settings.accept_rate, settings.accept_burst)
    observes = "accept_rate" in settings.observe_only
    return Pace(rate, events, waits=settings.overflow == "wait", observes=observes)


def _memory(shared: Shared | None) -> Memory:
    return Memory() if shared is None or shared.rates is None else shared.rates
