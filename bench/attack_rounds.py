"""All rounds of the attacks: alone, attacked, alone, attacked, and so on; medians, bars, the text of the report.

Owns      the order of the runs, and the two bars of each attack.
Promises  a bar holds over all rounds: the median p99 of the attacked runs against that of the runs alone, and no fault
          (an attacker that stays, an end by another cause) in any of them.  What failed is no pass.
"""

import datetime as dt
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from bench import machine, under_attack
from bench.contest import RunFailed
from bench.model import Attack, AttackScenario
from bench.report import grid
from bench.under_attack import Outcome

__all__ = ["AttackRounds", "Duel"]

FACTOR, ABOVE = 2.0, 5.0  # the p99 beside a crowd is at most twice the p99 alone, or so many milliseconds above it


@dataclass
class Duel:
    """One attack: the runs without the crowd, and those with it."""

    attack: Attack
    alone: list[Outcome] = field(default_factory=list)
    attacked: list[Outcome] = field(default_factory=list)
    failure: str = ""

    @property
    def limit(self) -> float:
        usual = median(outcome.p99() for outcome in self.alone)
        return max(FACTOR * usual, usual + ABOVE)

    @property
    def faults(self) -> list[str]:
        return [fault for outcome in self.attacked for fault in outcome.faults(self.attack)]

    @property
    def is_served(self) -> bool:
        """Whether the good client was served as it was promised."""
        return bool(self.attacked) and median(outcome.p99() for outcome in self.attacked) <= self.limit

    @property
    def good(self) -> bool:
        return not self.failure and self.is_served and not self.faults

    def row(self) -> tuple[str, ...]:
        if not self.attacked:
            return (self.attack.name, *["not measured"] * 2, *[""] * 4)
        alone, beside = ([o.p99() for o in outcomes] for outcomes in (self.alone, self.attacked))
        return (
            self.attack.name,
            f"{median(alone):.2f}",
            f"{median(beside):.2f} ({min(beside):.2f}..{max(beside):.2f})",
            f"{max(o.most() for o in self.attacked):.0f}",
            f"{self.limit:.2f}",
            f"{max(o.overstay(self.attack) for o in self.attacked):.2f}",
            "pass" if self.good else "FAIL",
        )


class AttackRounds:
    """The verbs of a Contest."""

    def __init__(self, name: str, scenario: AttackScenario, only: Sequence[str], quick: bool) -> None:
        chosen = [a for a in scenario.attacks if not only or any(o.lower() in a.name.lower() for o in only)]
        self.name = name
        self.question = scenario.question
        self.quick = quick
        self.duels = [Duel(attack.quick() if quick else attack) for attack in chosen]
        self.load_average = machine.load_average()

    def play(self, runs: int) -> None:
        for number in range(runs):
            for duel in self.duels:
                self._round(duel, f"round {number + 1} of {runs}")

    def _round(self, duel: Duel, label: str) -> None:
        for outcomes, with_crowd in ((duel.alone, False), (duel.attacked, True)):
            if duel.failure:
                return
            try:
                outcome = under_attack.run_attack(duel.attack, with_crowd)
            except RunFailed as error:
                duel.failure = str(error)
                self._say(duel, label, f"failed: {error}")
                return
            outcomes.append(outcome)
            told = "; ".join(outcome.faults(duel.attack)) if with_crowd else "alone"
            self._say(duel, label, f"p99 {outcome.p99():.2f} ms, {told or 'all gone in time'}")

    def _say(self, duel: Duel, label: str, words: str) -> None:
        print(f"  {self.name}, {label}: {duel.attack.name}: {words}", file=sys.stderr, flush=True)

    def count_calls(self) -> None:
        """Nothing is traced here."""

    @property
    def good(self) -> bool:
        """With --quick nobody judges how long anything took."""
        return all(not duel.failure and (self.quick or duel.good) for duel in self.duels)

    def text(self) -> str:
        head = ("attack", "p99 alone, ms", "p99 attacked (min..max)", "longest", "limit", "end after deadline, s", "")
        rows = [duel.row() if not self.quick else (*duel.row()[:-1], "") for duel in self.duels]
        lines = [f"{self.name}: {self.question}", "", *grid([head, *rows])]
        lines += [
            f"{d.attack.name}: {fault}" for d in self.duels for fault in dict.fromkeys([*d.faults, d.failure]) if fault
        ]
        return "\n".join([*lines, *(["(--quick: shows that it runs, judges nothing)"] if self.quick else [])])

    def as_json(self) -> dict[str, object]:
        return {
            "scenario": self.name,
            "question": self.question,
            "taken": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "quick": self.quick,
            "machine": machine.facts() | {"load_average": self.load_average},
            "attacks": [
                {
                    "attack": asdict(duel.attack),
                    "alone": [numbers(outcome) for outcome in duel.alone],
                    "attacked": [numbers(outcome) for outcome in duel.attacked],
                    "limit_ms": duel.limit if duel.alone else None,
                    "faults": duel.faults,
                    "failure": duel.failure,
                    "good": duel.good,
                }
                for duel in self.duels
            ],
        }


def numbers(outcome: Outcome) -> dict[str, object]:
    """What of an outcome is kept: four shares of each kind of exchange in microseconds, and the crowd's end."""
    shares = {
        kind: {f"p{share * 100:g}": under_attack.percentile(times, share) for share in (0.5, 0.9, 0.99, 1.0)}
        for kind, times in (("staying", outcome.staying), ("new", outcome.new))
    }
    return {"p99_ms": outcome.p99(), **shares, "fates": outcome.fates, "causes": outcome.causes}
