"""One attack: a fresh server on its core, a good client on the other one, alone or beside a crowd of attackers.

Owns      the server, the attackers and the good client of a run; all are dead when it is over.
Promises  an Outcome only if every exchange of the good client was right; else `RunFailed` with what was said.
          Bounded in count and time: the attackers end themselves, every wait here has a deadline.
          The attackers give way to the good client on their core: what it waits for is the server.
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import attackers, certificates, good_client, machine
from bench.child import Child, child
from bench.contest import START_SECONDS, RunFailed, certified, environment
from bench.model import Attack, Rival

__all__ = ["Outcome", "run_attack"]

HERE = Path(__file__).resolve().parent
SPARE_FILES = 500  # of a server beside its connections: threads, listeners, the interpreter's own
LATE = 1.0  # seconds after its deadline in which an attacker has to be gone
PATIENCE = 10.0
COUNTED_WITHIN = 5.0  # seconds in which the server has recorded the last end


@dataclass(frozen=True)
class Outcome:
    """One run: what the good client waited for, in microseconds; what became of the crowd; how the server saw it."""

    staying: list[int]
    new: list[int]
    fates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    causes: Mapping[str, int] = field(default_factory=dict)

    def p99(self) -> float:
        """Milliseconds within which 99 of 100 exchanges were answered."""
        return percentile([*self.staying, *self.new], 0.99) / 1000

    def most(self) -> float:
        return max([*self.staying, *self.new]) / 1000

    def faults(self, attack: Attack) -> list[str]:
        """What was otherwise than it should, in words."""
        found = []
        for group in attack.groups:
            fate, deadline = self.fates[group.kind], attack.times[group.deadline]
            if fate["gone"] < group.count:
                found.append(f"{group.count - fate['gone']:,} of {group.count:,} {group.kind} are not gone")
            if fate["latest"] > deadline + LATE:
                found.append(f"a {group.kind} stayed for {fate['latest']:.1f} s, its deadline is {deadline:g} s")
            if fate["gone"] and fate["soonest"] < deadline - LATE:
                found.append(f"a {group.kind} was gone after {fate['soonest']:.1f} s, its deadline is {deadline:g} s")
        for cause, count in expected(attack).items():
            if self.causes.get(cause, 0) != count:
                found.append(f"{self.causes.get(cause, 0):,} ends by {cause}, not {count:,}")
        return found

    def overstay(self, attack: Attack) -> float:
        """Seconds by which the attacker who stayed longest was later than his deadline."""
        return max(float(self.fates[g.kind]["latest"]) - attack.times[g.deadline] for g in attack.groups)


def run_attack(attack: Attack, with_crowd: bool) -> Outcome:
    machine.need_files(attack.attackers + SPARE_FILES)
    server_core, load_core = machine.cores()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        made = stack.enter_context(certified(attack.tls))
        bind = f"unix:{folder}/socket" if attack.is_unix else "127.0.0.1:0"
        given = {"bind": bind, "runner": attack.runner, "settings": {**attack.settings, **attack.times}}
        command = [sys.executable, str(HERE / "rivals" / "attacked.py"), json.dumps(given)]
        env = environment(Rival("attacked.py")) | certificates.for_server(made)
        server = stack.enter_context(child(command, server_core, env))
        address = heard(server, START_SECONDS)
        authority = str(made.authority) if made else None
        stack.enter_context(explained(server))
        good = good_client.Task(address, attack.exchanges, attack.seconds / attack.exchanges, authority)
        client = stack.enter_context(child(program("good_client.py", good), load_core))
        if (said := client.line(PATIENCE)) != "ready":
            raise RunFailed(said or client.complaint())
        client.go()
        if not with_crowd:
            return Outcome(**heard(client, attack.seconds + PATIENCE))
        return _with_crowd(attack, server, client, address, load_core)


@contextmanager
def explained(server: Child) -> Iterator[None]:
    """A run that fails says what the server said, too."""
    try:
        yield
    except RunFailed as error:
        raise RunFailed(f"{error}; the server: {server.complaint()}") from error


def _with_crowd(attack: Attack, server: Child, client: Child, address: Any, core: int) -> Outcome:
    crowd = {group.kind: group.count for group in attack.groups}
    task = attackers.Task(address, crowd, attack.seconds + LATE, attack.pace, attack.drip_every, is_meek=True)
    with child(program("attackers.py", task), core) as attack_process:
        said = heard(attack_process, attack.seconds + PATIENCE)
        if "here" in said:
            said = heard(attack_process, attack.seconds + PATIENCE)
    times = heard(client, attack.seconds + PATIENCE)
    return Outcome(**times, fates=said["fates"], causes=_causes(server, expected(attack)))


def expected(attack: Attack) -> dict[str, int]:
    """How many ends by each cause the crowd makes."""
    causes: dict[str, int] = {}
    for group in attack.groups:
        causes[group.cause] = causes.get(group.cause, 0) + group.count
    return causes


def _causes(server: Child, wanted: Mapping[str, int]) -> dict[str, int]:
    """How the server counts; asked again for a moment, since a socket ends before its end is recorded."""
    until = time.monotonic() + COUNTED_WITHIN
    while True:
        server.go()
        causes: dict[str, int] = heard(server, PATIENCE)["causes"]
        if all(causes.get(name) == count for name, count in wanted.items()) or time.monotonic() > until:
            return causes
        time.sleep(0.1)


def program(name: str, task: Any) -> list[str]:
    return [sys.executable, str(HERE / name), json.dumps(asdict(task))]


def heard(process: Child, seconds: float) -> Any:
    """The next line, which is JSON."""
    line = process.line(seconds)
    try:
        return json.loads(line)
    except ValueError as error:
        raise RunFailed(line or process.complaint()) from error


def percentile(values: list[int], share: float) -> float:
    """The value that so large a share of the values does not exceed."""
    return sorted(values)[math.ceil(len(values) * share) - 1]
