"""From samples to verdicts and tables; pure functions of numbers.

Owns      medians, ratios by round, the 5 % rule, the text of the report.
Promises  a ratio compares two runs of the same round only; what was not measured is "not measured", never a pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.model import Bar, Calls, Sample, Scenario

__all__ = ["Ratio", "Verdict", "grid", "judge", "near", "ratio", "render", "render_calls"]

CLOSE = 0.05  # a median this close to its limit is measured again

Rounds = Sequence[Mapping[str, Sample]]  # one mapping of contestant to sample for each round


@dataclass(frozen=True)
class Ratio:
    middle: float
    least: float
    most: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.middle:.3f} ({self.least:.3f}..{self.most:.3f})"


@dataclass(frozen=True)
class Verdict:
    bar: Bar
    ratio: Ratio | None

    @property
    def passed(self) -> bool:
        return self.ratio is not None and self.ratio.middle <= self.bar.limit

    @property
    def word(self) -> str:
        if self.ratio is None:
            return "not measured"
        return "pass" if self.passed else "FAIL"


def ratio(rounds: Rounds, contestant: str, against: str | None, metric: str = "cpu_us") -> Ratio | None:
    """Median of the ratios of the rounds in which both ran; without `against`, of the values themselves."""
    values = []
    for samples in rounds:
        if contestant not in samples or (against is not None and against not in samples):
            continue
        own = float(getattr(samples[contestant], metric))
        values.append(own if against is None else own / float(getattr(samples[against], metric)))
    if not values:
        return None
    return Ratio(median(values), min(values), max(values), len(values))


def judge(rounds: Rounds, bar: Bar) -> Verdict:
    return Verdict(bar, ratio(rounds, bar.contestant, bar.against, bar.metric))


def near(verdict: Verdict) -> bool:
    """Whether chance could have decided: the median is within 5 % of the limit, on either side."""
    return verdict.ratio is not None and abs(verdict.ratio.middle / verdict.bar.limit - 1) <= CLOSE


def render(
    title: str, scenario: Scenario, rounds: Rounds, verdicts: Sequence[Verdict], left_out: Mapping[str, str]
) -> str:
    lines = [f"{title}: {scenario.question}", ""]
    lines += grid(_contestants(scenario, rounds, left_out))
    if verdicts:
        lines += ["", *grid(_bars(verdicts))]
    lines += [f"left out: {name}: {why}" for name, why in left_out.items()]
    return "\n".join(lines)


def render_calls(counted: Mapping[str, Calls], untraced: Mapping[str, str]) -> str:
    """Counts as they are, most frequent first: a reader divides by the messages and sees what is left over."""
    lines = []
    for name, calls in counted.items():
        often = sorted(calls.counts.items(), key=lambda item: (-item[1], item[0]))
        lines.append(f"{name}: {calls.messages:,} messages: {', '.join(f'{call} {n:,}' for call, n in often)}")
    lines += [f"{name}: not counted: {why}" for name, why in untraced.items()]
    return "\n\nsystem calls (strace -c, a run that is not timed)\n" + "\n".join(lines) if lines else ""


def _contestants(scenario: Scenario, rounds: Rounds, left_out: Mapping[str, str]) -> list[tuple[str, ...]]:
    memory = any(b.metric == "kib_per_connection" for b in scenario.bars)
    head = ("contestant", "CPU us/message", "messages/s", f"CPU x {scenario.baseline} (min..max)")
    rows: list[tuple[str, ...]] = [(*head, "KiB/connection") if memory else head]
    for contestant in scenario.contestants:
        name = contestant.name
        samples = [r[name] for r in rounds if name in r]
        if not samples:
            rows.append((name, "left out" if name in left_out else "not measured", *[""] * (len(rows[0]) - 2)))
            continue
        compared = ratio(rounds, name, scenario.baseline)
        row = (
            name,
            f"{median(s.cpu_us for s in samples):.2f}",
            f"{median(s.per_second for s in samples):,.0f}",
            "-" if compared is None else str(compared),
        )
        rows.append((*row, f"{median(s.kib_per_connection for s in samples):.1f}") if memory else row)
    return rows


def _bars(verdicts: Sequence[Verdict]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("bar", "limit", "measured (min..max)", "rounds", "verdict")]
    for verdict in verdicts:
        bar = verdict.bar
        what = "CPU" if bar.metric == "cpu_us" else "KiB/connection"
        limit = f"{bar.limit:g} x {bar.against}" if bar.against else f"{bar.limit:g}"
        count = str(verdict.ratio.rounds) if verdict.ratio else "0"
        rows.append((f"{what} of {bar.contestant}", limit, str(verdict.ratio or "-"), count, verdict.word))
    return rows


def grid(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]
