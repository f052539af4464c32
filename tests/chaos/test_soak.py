"""Mixed load for a long time: memory, descriptors, fibers and timers stay what they are, and nothing is left after it.

`make soak` gives each hub ten minutes of it; a few seconds belong to every run, so that the soak cannot rot.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytest

from support.twin_programs import TwinServer, on_both_twins, program, twin_server

LONG = float(os.environ.get("MOORAGE_SOAK_SECONDS", "600"))
SHORT = 5.0
CLIENTS = 80
MOST_GROWTH = 1.02  # from the median of the second third to that of the last
#: what may come on top, since who is here at a moment is chance
SLACK = {"KiB": 512, "fds": 12, "fibers": 12, "Timer": 24}
SHORT_SLACK = {"KiB": 16 * 1024, "fds": CLIENTS, "fibers": CLIENTS, "Timer": 2 * CLIENTS}
EXACT = ("connections", "Connection", "Timer", "fds")
SETTINGS: dict[str, Any] = {
    "runner": "fibers",
    "idle_timeout": 1.5,
    "message_timeout": 1.0,
    "write_timeout": 1.0,
    "log_level": "error",
}

Record = Callable[[str, object], None]


@dataclass(frozen=True)
class Soak:
    """How long, how often it is looked, what may come on top, and whether the collector of cycles may help."""

    seconds: float
    every: float
    slack: dict[str, int]
    collector: bool


SOAKS = [
    pytest.param(Soak(SHORT, 0.5, SHORT_SLACK, collector=False), id="short"),
    pytest.param(
        Soak(LONG, 3.0, SLACK, collector=True),
        id="long",
        marks=[pytest.mark.full, pytest.mark.soak, pytest.mark.timeout(LONG + 120)],
    ),
]


def samples_of(server: TwinServer, load: "subprocess.Popen[str]", every: float) -> list[dict[str, Any]]:
    """What the server holds, again and again, until the load has ended."""
    samples = []
    while True:
        try:
            load.wait(every)
        except subprocess.TimeoutExpired:
            samples.append(server.search())
            continue
        return samples


def medians(samples: list[dict[str, Any]], name: str) -> list[float]:
    """Of the first, second and last third."""
    third = len(samples) // 3
    return [median(sample[name] for sample in samples[part * third :][:third]) for part in range(3)]


def strange(log: list[str]) -> list[str]:
    """The lines that tell of something else than the handlers that were asked to fail."""
    ours = "the handler of connection|more lines like the last of HandlerFailed .LookupError."
    slow = "held the hub|HandlerHeldHub"  # which a machine with other work to do makes happen
    expected = re.compile(f"{ours}|{slow}")
    told = [line for line in log if line.startswith(("ERROR", "WARNING")) and not expected.search(line)]
    raised = [line for line in log if re.match(r"[\w.]+: ", line) and not line.startswith("LookupError: asked for")]
    return told + raised


@on_both_twins
@pytest.mark.parametrize("soak", SOAKS)
def test_mixed_load_leaves_everything_as_it_is(record_property: Record, twin: str, soak: Soak) -> None:
    with twin_server(twin, "support.soak_handlers:serve_as_asked", collector=soak.collector, **SETTINGS) as server:
        before = server.settle()
        task = {"address": server.address, "clients": CLIENTS, "seconds": soak.seconds, "seed": 1}
        with program("soak_load", task) as load:
            samples = samples_of(server, load, soak.every)
            assert load.stdout is not None
            done = json.loads(load.stdout.read() or "null")
        after = server.settle()
        cpu = server.cpu_seconds()
    thirds = {name: medians(samples, name) for name in soak.slack}
    told = {"visits": sum(done["visits"].values()), "samples": len(samples), "thirds": thirds, "CPU": cpu}
    record_property("soak", told)
    print(f"{twin}: {told}, {after['KiB']} KiB after it")
    assert done["faults"] == {}
    assert {name: after[name] for name in EXACT} == {name: before[name] for name in EXACT}
    assert after["fibers"] == after["idle"]
    for name, (_, second, last) in thirds.items():
        assert last <= second * MOST_GROWTH + soak.slack[name], (name, told)
    assert strange(server.log) == []
