"""Serving: what can happen in one server, from its start to its stop.

Owns      the classes of these events, in the order in which a server's life meets them.
Promises  small frozen classes whose docstrings are the reference: fields, units, how often.
Refuses   to be built when nobody wants them: look into `events.wanted` first.
Why       the list of events is the documentation of what the server does (ThousandIsland's telemetry).
"""

from dataclasses import dataclass
from typing import Any

from .causes import Cause, Phase

Address = Any  # what the socket module calls an address: (host, port), (host, port, flow, scope), path


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
class RefusalObserved(Event):
    """A client came in that would have been refused for this cause, were the policy not in `observe_only`."""

    peer: Address
    cause: Cause


@dataclass(frozen=True)
class SetupFailed(Event):
    """A PROXY header or a TLS handshake failed; `reason` says how, for operators; the cause is told by the end."""

    id: int
    peer: Address
    cause: Cause
    reason: str


@dataclass(frozen=True)
class TlsEstablished(Event):
    """A TLS handshake is done, `seconds` after it began; `version` is such as "TLSv1.3"."""

    id: int
    peer: Address
    version: str
    cipher: str
    seconds: float


@dataclass(frozen=True)
class CertificatesLoaded(Event):
    """New certificates are used from now on; the first of them expires at `expires`, in seconds since 1970."""

    paths: tuple[str, ...]
    expires: float


@dataclass(frozen=True)
class CertificatesRejected(Event):
    """Certificates on disk have changed and will not do, for this `reason`: those from before are still used."""

    paths: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class RulesLoaded(Event):
    """A rules file has changed: its `networks` rules decide from now on."""

    path: str
    networks: int


@dataclass(frozen=True)
class RulesRejected(Event):
    """A rules file has changed and will not do, for this `reason`: the rules from before still decide."""

    path: str
    reason: str


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
