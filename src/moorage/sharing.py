"""Sharing: what servers in several processes have in common, and what a server has alone.

Owns      the choice between the two: whose listeners, whose gate, whose counts of clients.
Promises  a limit is one limit, however many servers share it; a server that shares nothing keeps the same limits
          by itself.
Refuses   to know how processes share: what is given here is all that a server sees of the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import admission
from .acceptor import Gate
from .admission import ClientCounts, ClientLimit, LocalCounts
from .config import ListenerSettings, ServerSettings
from .listener import Listener, open_listeners
from .watch import Watch


@dataclass(frozen=True)
class Shared:
    """What a server has in common with others, which serve the same clients.

    listeners  open already; the server closes its copies
    make_gate  the gate that all of them take their tickets from, as seen with the Watch of this server
    share      how many of so many that wait are for this server; see the acceptor
    counts     how many connections each client has, at all of them
    fds        what else a forked child of the server has to close
    """

    listeners: Sequence[Listener]
    make_gate: Callable[[Watch], Gate]
    share: Callable[[int | None], int] | None = None
    counts: ClientCounts | None = None
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
