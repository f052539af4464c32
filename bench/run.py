"""`python -m bench.run [SCENARIO ...]`: alternating runs, medians, ratios, bars.

Owns      the order of runs, the files in bench/results, the exit status: 0 every bar passed, 1 a bar failed or a
          contestant did not survive, 2 nothing could be measured.
Promises  contestants take turns (A B C A B C ...), so that a slow minute of the machine hits all of them;
          a bar within 5 % of its limit is measured in five further rounds and the median of all its rounds counts.
"""

import argparse
import datetime as dt
import importlib
import importlib.util
import json
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import bench.scenarios
from bench import contest, machine, report, trace
from bench.attack_rounds import AttackRounds
from bench.model import AttackScenario, Calls, Contestant, Load, Sample, Scenario

__all__ = ["main"]

RESULTS = Path(__file__).resolve().parent / "results"
FURTHER_ROUNDS = 5
BUSY = 0.5  # a load average above this before we start: somebody else is working here


class Contest:
    """All rounds of one scenario."""

    def __init__(self, name: str, scenario: Scenario, quick: bool) -> None:
        self.name = name
        self.scenario = scenario
        self.quick = quick
        self.rounds: list[dict[str, Sample]] = []
        self.skipped = {c.name: why for c in scenario.contestants if (why := missing(c))}
        self.failed: dict[str, str] = {}
        self.calls: dict[str, Calls] = {}
        self.untraced: dict[str, str] = {}
        self.load_average = machine.load_average()

    def play(self, runs: int) -> None:
        for number in range(runs):
            self._round(self.scenario.contestants, f"round {number + 1} of {runs}")
        if self.quick:
            return
        close = [v.bar for v in self.verdicts() if report.near(v)]
        wanted = {name for bar in close for name in (bar.contestant, bar.against) if name}
        again = tuple(c for c in self.scenario.contestants if c.name in wanted)
        for number in range(FURTHER_ROUNDS if close else 0):
            self._round(again, f"close to its limit, further round {number + 1} of {FURTHER_ROUNDS}")

    def _round(self, contestants: Sequence[Contestant], label: str) -> None:
        samples: dict[str, Sample] = {}
        self.rounds.append(samples)
        for contestant in contestants:
            if contestant.name in self.skipped or contestant.name in self.failed:
                continue
            try:
                sample = contest.measure(contestant.rival, self._load(contestant))
            except contest.RunFailed as error:
                self.failed[contestant.name] = str(error)
                print(f"  {self.name}, {label}: {contestant.name}: {error}", file=sys.stderr, flush=True)
                continue
            samples[contestant.name] = sample
            said = f"{sample.cpu_us:.2f} us, {sample.per_second:,.0f}/s"
            print(f"  {self.name}, {label}: {contestant.name}: {said}", file=sys.stderr, flush=True)

    def count_calls(self) -> None:
        """After the rounds: what the table rests on. A count that is missing spoils nothing, the report says why."""
        for contestant in self.scenario.contestants:
            name = contestant.name
            if name not in self.scenario.traced or name in self.skipped or name in self.failed:
                continue
            try:
                self.calls[name] = trace.trace(contestant.rival, self._load(contestant))
            except trace.NotTraced as error:
                self.untraced[name] = str(error)

    def _load(self, contestant: Contestant) -> Load:
        load = self.scenario.load_of(contestant)
        return load.quick() if self.quick else load

    def verdicts(self) -> list[report.Verdict]:
        return [report.judge(self.rounds, bar) for bar in self.scenario.bars]

    @property
    def good(self) -> bool:
        """A contestant that is not installed spoils nothing, unless a bar is about it."""
        return not self.failed and (self.quick or all(v.passed for v in self.verdicts()))

    def text(self) -> str:
        verdicts = [] if self.quick else self.verdicts()
        left_out = self.skipped | self.failed
        text = report.render(self.name, self.scenario, self.rounds, verdicts, left_out)
        text += report.render_calls(self.calls, self.untraced)
        return text + "\n(--quick: shows that it runs, judges nothing)" if self.quick else text

    def as_json(self) -> dict[str, object]:
        return {
            "scenario": self.name,
            "question": self.scenario.question,
            "taken": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "quick": self.quick,
            "machine": machine.facts() | {"load_average": self.load_average},
            "loads": {c.name: asdict(self._load(c)) for c in self.scenario.contestants},
            "baseline": self.scenario.baseline,
            "rounds": [{name: asdict(sample) for name, sample in samples.items()} for samples in self.rounds],
            "bars": [
                asdict(v.bar) | {"measured": asdict(v.ratio) if v.ratio else None, "verdict": v.word}
                for v in self.verdicts()
            ],
            "system_calls": {name: asdict(calls) for name, calls in self.calls.items()},
            "untraced": self.untraced,
            "skipped": self.skipped,
            "failed": self.failed,
        }


def missing(contestant: Contestant) -> str:
    absent = [name for name in contestant.rival.needs if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def scenarios() -> dict[str, Scenario | AttackScenario]:
    found: dict[str, Scenario | AttackScenario] = {}
    for module in pkgutil.iter_modules(bench.scenarios.__path__):
        found[module.name] = importlib.import_module(f"bench.scenarios.{module.name}").SCENARIO
    return found


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    known = scenarios()
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="What Moorage costs beside its rivals.")
    parser.add_argument("scenario", nargs="*", help=f"default all: {', '.join(known)}")
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each contestant (default 5)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only contestants with NAME in it")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="where the results go (default bench/results)")
    parser.add_argument("--quick", action="store_true", help="one short run each, nothing judged, no file by default")
    given = parser.parse_args(argv)
    if unknown := [name for name in given.scenario if name not in known]:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(known)}")
    if given.runs < 1:
        parser.error("--runs is at least 1")
    given.chosen = {name: known[name] for name in given.scenario or known}
    return given


def contest_of(
    name: str, scenario: Scenario | AttackScenario, only: Sequence[str], quick: bool
) -> Contest | AttackRounds:
    if isinstance(scenario, AttackScenario):
        return AttackRounds(name, scenario, only, quick)
    return Contest(name, narrowed(scenario, only), quick)


def narrowed(scenario: Scenario, only: Sequence[str]) -> Scenario:
    """The scenario with fewer contestants; the baseline stays, bars without their contestants go."""
    if not only:
        return scenario
    keep = tuple(
        c for c in scenario.contestants if c.name == scenario.baseline or any(o.lower() in c.name.lower() for o in only)
    )
    names = {c.name for c in keep} | {None}
    bars = tuple(b for b in scenario.bars if b.contestant in names and b.against in names)
    return replace(scenario, contestants=keep, bars=bars, traced=tuple(t for t in scenario.traced if t in names))


def run(given: argparse.Namespace) -> int:
    server_core, load_core = machine.cores()
    os.sched_setaffinity(0, {load_core})  # we sleep while it is measured; when we wake, it is beside the load
    machine.need_files(0)
    if machine.load_average() > BUSY:
        print(f"load average {machine.load_average():.2f}: others work here, trust no number", file=sys.stderr)
    print(f"server on core {server_core}, load on core {load_core}", file=sys.stderr)
    folder = given.json or (None if given.quick else RESULTS)
    good = True
    for name, scenario in given.chosen.items():
        played = contest_of(name, scenario, given.only, given.quick)
        played.play(1 if given.quick else given.runs)
        played.count_calls()
        print(f"\n{played.text()}\n", flush=True)
        good = good and played.good
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{dt.date.today().isoformat()}-{name}.json"
            file.write_text(json.dumps(played.as_json(), indent=1) + "\n")
    return 0 if good else 1


def main(argv: Sequence[str] | None = None) -> int:
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are killed on the way out
    try:
        return run(arguments(argv))
    except machine.CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
