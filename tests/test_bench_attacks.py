"""The benchmark `attack`: its arithmetic, that it notices who stays and who is not served, that a small one runs.

Never here: a time or a bar of a real run.
"""

import json
import os
import re
import resource
from dataclasses import replace
from typing import Any

import pytest

from bench import attack_rounds, machine, run, under_attack
from bench.attack_rounds import AttackRounds, Duel
from bench.contest import RunFailed
from bench.model import Attack, AttackScenario, Group
from bench.scenarios.attack import SCENARIO
from bench.under_attack import Outcome

ATTACK = Attack(
    "small",
    "fibers",
    (Group("mute", 20, "idle_timeout", "idle"), Group("drip", 5, "message_timeout", "message_deadline")),
    {"idle_timeout": 1.0, "message_timeout": 1.0},
    {"max_connections": 100},
    exchanges=20,
    drip_every=0.3,
)
CAUSES = {"idle": 20, "message_deadline": 5, "peer_closed": 21}

needs_two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="the harness needs Linux and two cores",
)


def fate(gone: int, soonest: float = 1.0, latest: float = 1.1) -> dict[str, Any]:
    return {"count": gone, "gone": gone, "soonest": soonest, "latest": latest, "ends": {"end of stream": gone}}


def outcome(milliseconds: float, causes: dict[str, int] | None = None, **fates: dict[str, Any]) -> Outcome:
    fates = {"mute": fate(20), "drip": fate(5)} | fates
    return Outcome([round(milliseconds * 1000)] * 10, [100] * 10, fates, causes or CAUSES)


# arithmetic


@pytest.mark.parametrize(("count", "place"), [(1, 1), (100, 99), (101, 100), (2000, 1980)])
def test_percentile_is_the_value_that_so_many_do_not_exceed(count: int, place: int) -> None:
    assert under_attack.percentile(list(range(count, 0, -1)), 0.99) == place


def test_outcome_takes_both_kinds_of_exchange_together() -> None:
    assert Outcome([1000] * 98, [7000] * 2).p99() == 7.0


@pytest.mark.parametrize(("alone", "limit"), [(0.5, 5.5), (4.9, 9.9), (5.1, 10.2), (8.0, 16.0)])
def test_limit_is_twice_or_five_milliseconds_above_whichever_is_larger(alone: float, limit: float) -> None:
    assert Duel(ATTACK, [outcome(alone)]).limit == pytest.approx(limit)


@pytest.mark.parametrize(("attacked", "verdict"), [((5, 6, 500), "pass"), ((5, 7, 7), "FAIL")])
def test_duel_is_judged_by_its_medians(attacked: tuple[float, ...], verdict: str) -> None:
    duel = Duel(ATTACK, [outcome(1), outcome(1), outcome(90)], [outcome(each) for each in attacked])
    assert duel.is_served == duel.good == (verdict == "pass")
    assert duel.row()[-1] == verdict


def test_duel_without_a_run_is_no_pass() -> None:
    duel = Duel(ATTACK)
    assert not duel.good
    assert duel.row()[1] == "not measured"


def test_outcome_in_order_has_no_faults() -> None:
    assert outcome(1).faults(ATTACK) == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"mute": fate(19) | {"count": 20}}, "1 of 20 mute are not gone"),
        ({"drip": fate(5, latest=2.2)}, r"a drip stayed for 2\.2 s, its deadline is 1 s"),
        ({"mute": fate(20, soonest=-0.5)}, r"a mute was gone after -0\.5 s"),
        ({"causes": CAUSES | {"idle": 18}}, "18 ends by idle, not 20"),
    ],
)
def test_outcome_names_its_faults(wrong: dict[str, Any], sentence: str) -> None:
    [fault] = outcome(1, **wrong).faults(ATTACK)
    assert re.search(sentence, fault)


def test_one_run_with_a_fault_spoils_the_duel() -> None:
    good, bad = outcome(1), outcome(1, mute=fate(19))
    assert not Duel(ATTACK, [good] * 3, [good, bad, good]).good


# scenarios


def test_attack_whose_deadline_is_none_of_its_settings_is_refused() -> None:
    with pytest.raises(ValueError, match="lifetime"):
        replace(ATTACK, groups=(Group("mute", 1, "lifetime", "lifetime"),))


def test_crowds_are_those_that_were_promised() -> None:
    crowds = {attack.name: {group.kind: group.count for group in attack.groups} for attack in SCENARIO.attacks}
    assert crowds["fibers, TCP"] == crowds["fibers, Unix"] == {"mute": 10_000, "drip": 5_000, "unread": 1_000}
    assert crowds["threads, TCP"] == crowds["threads, Unix"] == {"mute": 10_000, "drip": 500, "unread": 300}
    for name in ("fibers, TLS", "threads, TLS", "fibers, TLS, Unix", "threads, TLS, Unix"):
        assert crowds[name] == {"mute": 2_000, "hello": 2_000}


@pytest.mark.parametrize("quick", [False, True], ids=["whole", "quick"])
def test_every_drip_drips_before_its_deadline_and_nothing_else_ends_it(quick: bool) -> None:
    for attack in (each.quick() if quick else each for each in SCENARIO.attacks):
        times = attack.times
        assert attack.drip_every < times.get("message_timeout", 30.0)
        assert attack.drip_every < times.get("idle_timeout", 60.0)
        assert attack.seconds < 60


def test_rounds_take_turns_and_stop_with_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, bool]] = []

    def run_attack(attack: Attack, with_crowd: bool) -> Outcome:
        ran.append((attack.name, with_crowd))
        if attack.name == "other":
            raise RunFailed("it fell over")
        return outcome(1)

    monkeypatch.setattr(under_attack, "run_attack", run_attack)
    played = AttackRounds("attack", AttackScenario("?", (ATTACK, replace(ATTACK, name="other"))), (), quick=False)
    played.play(2)
    assert ran == [("small", False), ("small", True), ("other", False), ("small", False), ("small", True)]
    assert not played.good
    assert "other: it fell over" in played.text()
    written = json.loads(json.dumps(played.as_json()))["attacks"]
    assert [len(attack["attacked"]) for attack in written] == [2, 0]
    assert written[0]["good"]
    assert written[0]["attacked"][0]["p99_ms"] == 1.0


def test_rounds_can_be_narrowed_by_name() -> None:
    played = run.contest_of("attack", SCENARIO, ["threads, tls"], True)
    assert isinstance(played, AttackRounds)
    assert [duel.attack.name for duel in played.duels] == ["threads, TLS", "threads, TLS, Unix"]


def test_limit_of_open_files_that_is_too_low_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(machine.CannotMeasure, match="17,000 open files in one process, and the hard limit is 4,096"):
        machine.need_files(17_000)


# a real run, without looking at its times


@needs_two_cores
@pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])
def test_small_attack_is_over_in_time_and_all_is_counted(is_unix: bool) -> None:
    attack = replace(ATTACK, is_unix=is_unix)
    found = under_attack.run_attack(attack, with_crowd=True)
    assert (len(found.staying), len(found.new)) == (10, 10)
    assert {kind: fate["gone"] for kind, fate in found.fates.items()} == {"mute": 20, "drip": 5}
    assert {cause: found.causes[cause] for cause in ("idle", "message_deadline")} == {"idle": 20, "message_deadline": 5}
    assert attack_rounds.numbers(found)["causes"] == found.causes


@needs_two_cores
def test_server_that_does_not_start_is_a_failed_run_with_its_words() -> None:
    with pytest.raises(RunFailed, match="max_connections"):
        under_attack.run_attack(replace(ATTACK, settings={"max_connections": -1}), with_crowd=False)
