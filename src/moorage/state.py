"""State: where a connection is in its life, and what may follow.

Owns      the states, the table of moves, the phase that each state means, and which ends leave nothing to save.
Promises  data only: who moves is the connection; see lifecycle.
"""

import enum

from .events import Cause, Phase

__all__ = [
    "ACCEPTED", "CLOSED", "DETACHED", "HANDLER", "LINGERING", "NEXT", "NOBODY_LISTENS", "PHASES", "PROXY", "QUEUED",
    "State", "TLS", "WAITING",
]  # fmt: skip


class State(enum.StrEnum):  # of which, unlike Enum, the hash is made in C
    """Where a connection is; `NEXT` says what may follow."""

    ACCEPTED = "accepted"  # has its ticket, nothing else has happened
    PROXY = "proxy"  # parked in the Watch until its PROXY header is whole
    TLS = "tls"  # parked in the Watch, or a thread computes, until its TLS handshake is done
    WAITING = "waiting"  # parked in the Watch until its first byte
    QUEUED = "queued"  # ready, and given to the runner
    HANDLER = "handler"  # the handler's thread or fiber holds it
    LINGERING = "lingering"  # the Watch discards unread input
    DETACHED = "detached"  # the handler took the socket away
    CLOSED = "closed"


#: as names of this module: on CPython 3.11 an attribute of an enum costs as much as a call
ACCEPTED, PROXY, TLS, WAITING, QUEUED, HANDLER, LINGERING, DETACHED, CLOSED = State

NEXT: dict[State, frozenset[State]] = {
    ACCEPTED: frozenset({PROXY, TLS, WAITING, QUEUED, LINGERING, CLOSED}),
    PROXY: frozenset({TLS, WAITING, QUEUED, LINGERING, CLOSED}),
    TLS: frozenset({WAITING, QUEUED, LINGERING, CLOSED}),
    WAITING: frozenset({QUEUED, LINGERING, CLOSED}),
    QUEUED: frozenset({HANDLER, LINGERING, CLOSED}),
    HANDLER: frozenset({LINGERING, DETACHED, CLOSED}),
    LINGERING: frozenset({CLOSED}),
    DETACHED: frozenset(),
    CLOSED: frozenset(),
}

PHASES = {
    ACCEPTED: Phase.ACCEPTED, PROXY: Phase.PROXY, TLS: Phase.TLS, WAITING: Phase.WAITING, QUEUED: Phase.WAITING,
}  # fmt: skip

#: ends after which there is no reply to save by lingering: the peer has gone, or was idle, or was told nothing yet
NOBODY_LISTENS = frozenset(
    {Cause.PEER_CLOSED, Cause.RESET, Cause.WRITE_STALLED, Cause.SHED, Cause.DENIED, Cause.PROXY_ERROR,
     Cause.SETUP_DEADLINE}
)  # fmt: skip
