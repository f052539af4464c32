"""Supervising: what can happen between a supervisor and its workers, and the list of all events.

Owns      the classes of these events; `EVENT_TYPES`, every event there is.
Promises  small frozen classes whose docstrings are the reference; `number` is the worker's place, from 1, `pid`
          its process.
Refuses   to speak of connections: those are the workers' own events.
"""

from dataclasses import dataclass

from .serving import Address, Event


@dataclass(frozen=True)
class SupervisorStarted(Event):
    """Every worker of the beginning is ready, and clients are accepted."""

    addresses: tuple[Address, ...]
    runner: str
    workers: int


@dataclass(frozen=True)
class SupervisorStopping(Event):
    """The supervisor was asked to stop, by `reason`: its workers drain, or end at once when `is_now`."""

    reason: str
    is_now: bool


@dataclass(frozen=True)
class SupervisorStopped(Event):
    """Every worker has ended and every listener is closed, `seconds` after the wish to stop."""

    seconds: float


@dataclass(frozen=True)
class WorkerStarted(Event):
    """A worker was forked; it is not ready yet."""

    number: int
    pid: int


@dataclass(frozen=True)
class WorkerReady(Event):
    """A worker has imported the handler and run `worker_start`, `seconds` after its fork."""

    number: int
    pid: int
    seconds: float


@dataclass(frozen=True)
class WorkerFailed(Event):
    """A worker did not become ready, for this `reason`; the next try comes in `delay` seconds (None: there is none)."""

    number: int
    pid: int
    reason: str
    delay: float | None


@dataclass(frozen=True)
class WorkerEnded(Event):
    """A worker has ended, in this `manner` ("exit status 0", "killed by SIGKILL"); `is_expected` when it was asked to.

    `has_served` is whether it ever accepted; `stacks` is what a worker that crashed has written.
    """

    number: int
    pid: int
    manner: str
    is_expected: bool
    has_served: bool = True
    stacks: str = ""


@dataclass(frozen=True)
class WorkerStuck(Event):
    """The loop of a worker did not turn for `seconds`; it is killed, and these were its stacks."""

    number: int
    pid: int
    seconds: float
    stacks: str


@dataclass(frozen=True)
class WorkerRecycled(Event):
    """A worker is replaced because it reached a limit, which `reason` names; it drains once the new one is ready."""

    number: int
    pid: int
    reason: str


@dataclass(frozen=True)
class WorkerCountChanged(Event):
    """The operator wishes for so many workers now."""

    workers: int


@dataclass(frozen=True)
class ReloadStarted(Event):
    """A reload has begun, asked for by `reason`; the old workers serve on."""

    reason: str


@dataclass(frozen=True)
class ReloadFinished(Event):
    """New workers serve with new settings, after `seconds`; `unchanged` are settings that only a restart changes."""

    seconds: float
    unchanged: tuple[str, ...]


@dataclass(frozen=True)
class ReloadFailed(Event):
    """A reload failed for this `reason` and changed nothing: the old workers serve on."""

    reason: str


@dataclass(frozen=True)
class UpgradeStarted(Event):
    """The new program was started, as process `pid`, with the listening sockets of this one."""

    pid: int


@dataclass(frozen=True)
class UpgradeFinished(Event):
    """The new program, process `pid`, is ready after `seconds`: this one drains and leaves."""

    pid: int
    seconds: float


@dataclass(frozen=True)
class UpgradeFailed(Event):
    """The upgrade failed for this `reason` and changed nothing: this program serves on."""

    reason: str


#: Every event, in the order of these files; the reference page is made from it.
EVENT_TYPES: tuple[type[Event], ...] = tuple(Event.__subclasses__())
