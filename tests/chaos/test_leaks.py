"""Ten thousand come, are echoed and go, three times: nothing of them is left, on both hubs."""

import json
import select
from collections.abc import Callable
from typing import Any

import pytest

from support.client import SOON
from support.twin_programs import TwinServer, on_both_twins, program, twin_server

COUNT = 10_000
ROUNDS = 3
MOST_GROWTH = 1.02  # from the second round to the third
KEPT = 64  # idle fibers; see hub/fibers.py
EXACT = ("connections", "Connection", "Timer", "fds")

#: The interpreter's own allocator gives memory back in MiBs, when nobody lives in one of them any more: how many
#: survive a round is chance, and settles only after ten rounds.
ALLOCATOR = "malloc"

Record = Callable[[str, object], None]


def visit(server: TwinServer, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the server holds while all are here, and after they went."""
    with program("visitors", {"address": server.address, "count": COUNT, "source": source}) as visitors:
        assert visitors.stdout is not None
        assert visitors.stdin is not None
        assert select.select([visitors.stdout], [], [], SOON)[0], server.log
        assert json.loads(visitors.stdout.readline() or "null") == {"here": COUNT}
        full = server.count()
        visitors.stdin.close()
        assert visitors.wait(SOON) == 0
    return full, server.settle()


@pytest.mark.timeout(180)
@on_both_twins
@pytest.mark.parametrize(
    "handler", ["blocks", *(pytest.param(name, marks=pytest.mark.full) for name in ("Lines", "patient_blocks"))]
)
def test_ten_thousand_connections_leave_nothing_behind(record_property: Record, twin: str, handler: str) -> None:
    settings: dict[str, Any] = {"runner": "fibers", "max_connections": COUNT, "allocator": ALLOCATOR}
    with twin_server(twin, f"support.echoes:{handler}", **settings) as server:
        before = server.settle()
        memory = []
        for number in range(ROUNDS):
            full, after = visit(server, f"127.0.0.{number + 1}")  # else the ports of the last round are still in use
            assert (full["connections"], full["fibers"] - full["idle"]) == (COUNT, COUNT)
            assert after["Fiber"] - after["dead"] == after["fibers"] == after["idle"] <= KEPT
            assert after["dead"] <= 1  # the last one that the loop switched to
            assert {name: after[name] for name in EXACT} == {name: before[name] for name in EXACT}
            memory.append((full["KiB"], after["KiB"]))
        record_property("KiB", {"before": before["KiB"], "full and after": memory})
        print(f"{twin} {handler}: {before['KiB']} KiB before, with all of them and after they went: {memory}")
        for second, third in zip(*memory[1:], strict=True):
            assert third <= second * MOST_GROWTH, memory
        left = server.close()
    assert {name for name in ("connections", "Connection", "Timer", "Fiber") if left[name]} == set(), left
    assert left["fds"] == 3  # what every program has
    assert not [line for line in server.log if "WARNING" in line or "ERROR" in line], server.log
