"""The nouns of a measurement: a scenario asks one question of several contestants and holds some to a bar.

Owns      the frozen shapes that scenario and rival files are written in.
Promises  plain data; a scenario that contradicts itself is refused when it is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["Attack", "AttackScenario", "Bar", "Calls", "Contestant", "Group", "Load", "Rival", "Sample", "Scenario"]


@dataclass(frozen=True)
class Rival:
    """A server program in bench/rivals: it prints its port on 127.0.0.1 as one line and serves until it is killed."""

    program: str
    needs: tuple[str, ...] = ()  # modules without which it is skipped
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()  # added to our environment, out of which every MOORAGE_ name is taken
    tls: bool = False  # it is told the path of its certificate and key in BENCH_PEM, and spoken with in TLS 1.3


@dataclass(frozen=True)
class Load:
    """What the clients do. `messages` is exact; `churn` counts whole connections."""

    mode: str = "echo"
    connections: int = 100
    idle: int = 0
    size: int = 128
    messages: int = 200_000
    warmup: int = 20_000
    seconds: int = 120  # the load ends itself after this long

    def quick(self) -> "Load":
        """The same load, short: shows that everything works, not how fast it is."""
        return replace(self, messages=max(self.messages // 100, 50), warmup=self.warmup // 100, seconds=60)

    def traced(self) -> "Load":
        """The same load, short enough for a server that stops at each system call; every message is counted."""
        return replace(self, messages=min(self.messages, 2_000), warmup=0, idle=0, seconds=60)


@dataclass(frozen=True)
class Contestant:
    """A rival under the scenario's load, or under one of its own."""

    name: str
    rival: Rival
    load: Load | None = None


@dataclass(frozen=True)
class Bar:
    """`contestant` takes at most `limit` times what `against` takes; without `against`, at most `limit` itself."""

    contestant: str
    limit: float
    against: str | None = None
    metric: str = "cpu_us"  # or "kib_per_connection"


@dataclass(frozen=True)
class Scenario:
    """One question, who answers it, and what counts as a good answer. Ratios in the table are to `baseline`."""

    question: str
    load: Load
    baseline: str
    contestants: tuple[Contestant, ...]
    bars: tuple[Bar, ...] = field(default=())
    traced: tuple[str, ...] = ()  # contestants whose system calls are counted, in a run that is not timed

    def __post_init__(self) -> None:
        names = [c.name for c in self.contestants]
        if len(set(names)) != len(names):
            raise ValueError(f"two contestants have one name in {names}")
        named = {self.baseline, *self.traced}
        named |= {b.contestant for b in self.bars} | {b.against for b in self.bars if b.against}
        if unknown := named - set(names):
            raise ValueError(f"baseline, bars or traced name {sorted(unknown)}, the contestants are {names}")
        if wrong := {b.metric for b in self.bars} - {"cpu_us", "kib_per_connection"}:
            raise ValueError(f"no such metric: {sorted(wrong)}")

    def load_of(self, contestant: Contestant) -> Load:
        return contestant.load or self.load


@dataclass(frozen=True)
class Sample:
    """One run of one contestant: one server process from start to kill."""

    cpu_us: float  # server CPU per message: user + system, threads and children included
    per_second: float
    kib_per_connection: float  # resident growth from listening to all connections open and answered once


@dataclass(frozen=True)
class Calls:
    """The system calls of a server while it answered `messages`, connections open before and after."""

    messages: int
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Group:
    """Attackers of one kind (see attackers.py), which setting ends them, and the cause that is then recorded."""

    kind: str
    count: int
    deadline: str
    cause: str


@dataclass(frozen=True)
class Attack:
    """A server with these settings, and who attacks it; `times` are those of its settings that are in seconds."""

    name: str
    runner: str
    groups: tuple[Group, ...]
    times: Mapping[str, float]
    settings: Mapping[str, object]
    is_unix: bool = False
    tls: bool = False
    exchanges: int = 2_000
    pace: float = 4_000  # attackers that connect in a second
    drip_every: float = 10.0

    def __post_init__(self) -> None:
        if absent := {group.deadline for group in self.groups} - set(self.times):
            raise ValueError(f"{self.name}: {sorted(absent)} is no deadline of its server")

    @property
    def attackers(self) -> int:
        return sum(group.count for group in self.groups)

    @property
    def seconds(self) -> float:
        """From the first attacker's connect to the last one's end, at the latest."""
        return self.attackers / self.pace + max(self.times[group.deadline] for group in self.groups) + 1

    def quick(self) -> "Attack":
        """The same attack, small and short: shows that everything works, not what it costs."""
        groups = tuple(replace(group, count=group.count // 100) for group in self.groups)
        times = {name: seconds / 5 for name, seconds in self.times.items()}
        return replace(self, groups=groups, times=times, exchanges=100, drip_every=self.drip_every / 5)


@dataclass(frozen=True)
class AttackScenario:
    """One question about attacks; each is a bar of its own."""

    question: str
    attacks: tuple[Attack, ...]
