"""The nouns of a measurement: a scenario asks one question of several contestants and holds some to a bar.

Owns      the frozen shapes that scenario and rival files are written in.
Promises  plain data; a scenario that contradicts itself is refused when it is imported.
"""

from dataclasses import dataclass, field, replace

__all__ = ["Bar", "Contestant", "Load", "Rival", "Sample", "Scenario"]


@dataclass(frozen=True)
class Rival:
    """A server program in bench/rivals: it prints its port on 127.0.0.1 as one line and serves until it is killed."""

    program: str
    needs: tuple[str, ...] = ()  # modules without which it is skipped
    args: tuple[str, ...] = ()


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

    def __post_init__(self) -> None:
        names = [c.name for c in self.contestants]
        if len(set(names)) != len(names):
            raise ValueError(f"two contestants have one name in {names}")
        named = {self.baseline} | {b.contestant for b in self.bars} | {b.against for b in self.bars if b.against}
        if unknown := named - set(names):
            raise ValueError(f"baseline or bars name {sorted(unknown)}, the contestants are {names}")
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
