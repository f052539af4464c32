"""Supervisor: whole lives in a fake system; see `Stage`."""

import json
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorage.errors import InternalError, OperatorError
from moorage.events import (
    Event,
    Events,
    ReloadFailed,
    ReloadFinished,
    ReloadStarted,
    SupervisorStarted,
    SupervisorStopped,
    SupervisorStopping,
    WorkerCountChanged,
    WorkerEnded,
    WorkerFailed,
    WorkerReady,
    WorkerRecycled,
    WorkerStarted,
)
from moorage.listener import Change, open_listeners
from moorage.processes.link import Drain, End, Go, Leave, Reopen
from moorage.processes.scoreboard import Scoreboard
from moorage.processes.signals import Action, CaughtSignals
from moorage.processes.supervisor import NEXT, State, Supervisor
from moorage.processes.tokens import Tokens
from moorage.processes.worker import Order
from moorage.services import SERVICES
from moorage.watch import Watch
from support.fake_processes import Stage, Story, plan_of
from support.sockets import PATIENCE


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


def stop(stage: Stage) -> Story:
    """The usual end of a story."""
    stage.supervisor.stop("TERM")
    yield 0
    stage.leave()
    yield 0


def serving(then: Callable[[Stage], Story]) -> Callable[[Stage], Story]:
    """A story of a supervisor whose two workers serve; it is stopped at the end."""

    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        for worker in stage.system.workers:
            worker.heard()
        yield from then(stage)
        yield from stop(stage)

    return story


# The beginning


def test_supervisor_lets_nobody_accept_before_all_are_ready(stage: Stage) -> None:
    started: list[str] = []

    def story(stage: Stage) -> Story:
        first, second = stage.system.workers
        first.ready()
        yield 5
        assert (first.heard(), second.heard(), started) == ([], [], [])
        second.ready()
        yield 0
        assert (first.heard(), second.heard(), started) == ([Go()], [Go()], ["started"])
        yield from stop(stage)

    assert stage.play(story, on_started=lambda: started.append("started")) == 0
    order = [type(event) for event in stage.sink.seen]
    assert order[:5] == [WorkerStarted, WorkerStarted, WorkerReady, WorkerReady, SupervisorStarted]
    assert stage.sink.of(SupervisorStarted) == [SupervisorStarted((stage.listeners[0].address,), "threads", 2)]


def test_supervisor_whose_first_boot_fails_by_the_operator_raises_when_all_are_gone(stage: Stage) -> None:
    def story(stage: Stage) -> Story:
        first, second = stage.system.workers
        first.fail("the module 'nosuch' cannot be found", is_operator=True)
        yield 0
        assert second.heard() == [End()]
        assert not first.is_alive
        second.exit()
        yield 0

    with pytest.raises(OperatorError, match="'nosuch' cannot be found"):
        stage.play(story)
    assert not stage.sink.of(SupervisorStarted)
    assert not stage.sink.of(WorkerFailed)  # the sentence says it all
    assert stage.listeners[0].fileno() == -1
    assert all(event.is_expected for event in stage.sink.of(WorkerEnded))


def test_supervisor_whose_first_boot_fails_otherwise_is_status_1(stage: Stage) -> None:
    def story(stage: Stage) -> Story:
        stage.worker(2).fail("ConnectionRefusedError: the database")
        yield 0
        stage.leave()
        yield 0

    assert stage.play(story) == 1
    assert stage.sink.of(WorkerFailed) == [WorkerFailed(2, 1002, "ConnectionRefusedError: the database", None)]
    assert stage.sink.of(SupervisorStopped) == []


@pytest.mark.parametrize("is_immortal", [False, True])
def test_supervisor_whose_first_boot_takes_too_long_is_status_1(stage: Stage, is_immortal: bool) -> None:
    """The one that was ready has long been told to end, and has not: it is killed."""

    def story(stage: Stage) -> Story:
        stage.worker(1).ready()
        stage.worker(2).is_immortal = is_immortal
        yield 61
        assert signal.SIGKILL in stage.worker(2).signals
        if is_immortal:
            yield 100
            stage.worker(2).die()
        yield 4

    assert stage.play(story) == 1
    assert stage.sink.of(WorkerFailed) == [WorkerFailed(2, 1002, "it was not ready after 60 s", None)]
    assert stage.worker(1).signals == [signal.SIGKILL]


def test_supervisor_that_cannot_fork_is_status_1(stage: Stage) -> None:
    stage.system.fork_error = OSError("no memory")

    def story(stage: Stage) -> Story:
        return iter(())

    assert stage.play(story) == 1
    assert stage.sink.of(WorkerFailed) == [WorkerFailed(0, 0, "it could not be forked (no memory)", None)]


def test_supervisor_asked_to_stop_while_it_boots_ends_all_with_status_0(stage: Stage) -> None:
    def story(stage: Stage) -> Story:
        stage.worker(1).ready()
        yield 0
        stage.supervisor.stop("TERM")
        yield 0
        assert [worker.heard() for worker in stage.system.workers] == [[End()], [End()]]
        stage.leave()
        yield 0

    assert stage.play(story) == 0
    assert not stage.sink.of(SupervisorStarted)
    assert not stage.sink.of(WorkerFailed)
    assert len(stage.sink.of(SupervisorStopped)) == 1


# Deaths


def test_supervisor_replaces_a_worker_that_dies_young_with_back_off(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        for births, delay in ((3, 0.5), (4, 1.0), (5, 2.0)):
            stage.system.workers[-1].die()
            yield delay - 0.1
            assert len(stage.system.workers) == births - 1
            yield 0.1
            assert len(stage.system.workers) == births
            stage.boot()
            yield 0
            assert stage.worker(births).heard() == [Go()]

    assert stage.play(story) == 0
    assert [event.number for event in stage.sink.of(WorkerStarted)] == [1, 2, 2, 2, 2]
    assert [e.is_expected for e in stage.sink.of(WorkerEnded)] == [False] * 3 + [True] * 2


def test_supervisor_replaces_a_worker_after_a_good_life_at_once(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        yield 20
        stage.worker(1).die()
        yield 0
        assert len(stage.system.workers) == 3
        stage.boot()
        yield 0
        assert stage.worker(3).heard() == [Go()]
        assert stage.worker(2).heard() == []

    assert stage.play(story) == 0


def test_supervisor_tries_one_that_cannot_boot_again_while_others_serve(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        yield 20
        stage.worker(1).die()
        yield 0
        for _ in range(8):
            stage.system.workers[-1].fail("no database")
            yield 31
        stage.boot()
        yield 0
        assert stage.system.workers[-1].heard() == [Go()]

    assert stage.play(story) == 0
    assert [event.delay for event in stage.sink.of(WorkerFailed)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_supervisor_without_workers_that_can_boot_none_is_status_1(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def story(stage: Stage) -> Story:
        stage.boot()
        yield 20
        for worker in stage.system.workers:
            worker.die()
        yield 0
        while stage.supervisor.status()["state"] == "serving":
            for worker in stage.system.workers:
                if worker.is_alive:
                    worker.fail("no database")
            yield 0.25

    assert stage.play(story) == 1
    assert [event.delay for event in stage.sink.of(WorkerFailed) if event.number == 2] == [0.5, 1.0, 2.0, 4.0]
    assert [record.getMessage() for record in caplog.records] == [
        "no worker is left, and none can be started: no database"
    ]


def test_supervisor_is_the_first_process_and_reaps_orphans() -> None:
    with Stage() as stage:
        stage.system.is_first = True
        assert stage.play(serving(lambda stage: iter((1.0,)))) == 0
        assert stage.system.orphans_asked > 1


def test_supervisor_elsewhere_waits_for_its_own_alone(stage: Stage) -> None:
    reaped: list[str] = []
    assert stage.play(serving(lambda stage: iter((1.0,))), reap=lambda: reaped.append("more")) == 0
    assert stage.system.orphans_asked == 0
    assert reaped


# How many


def test_supervisor_has_one_more_and_one_less_at_a_wish(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        stage.supervisor.more()
        yield 0
        stage.boot()
        yield 0
        assert stage.worker(3).heard() == [Go()]
        assert stage.supervisor.status()["wanted"] == 3
        stage.supervisor.fewer()
        yield 0
        assert stage.worker(3).heard() == [Leave()]
        stage.worker(3).exit()
        for _ in range(5):
            stage.supervisor.fewer()
        yield 0
        assert stage.worker(2).heard() == [Leave()]
        assert stage.worker(1).heard() == []
        stage.worker(2).exit()
        yield 60
        assert len(stage.system.workers) == 3  # nobody is replaced

    assert stage.play(story) == 0
    assert stage.sink.of(WorkerCountChanged) == [WorkerCountChanged(count) for count in (3, 2, 1)]


def test_supervisor_changes_the_number_of_workers_in_the_middle_of_a_reload(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        stage.wish(workers=4)
        stage.supervisor.reload("HUP")
        yield 0
        assert len(stage.system.workers) == 2 + 4
        stage.supervisor.more()
        yield 0
        assert len(stage.system.workers) == 2 + 4 + 1 + 1
        stage.boot()
        yield 0
        assert stage.supervisor.status()["wanted"] == 5

    assert stage.play(story) == 0


def test_supervisor_keeps_the_number_of_workers_over_a_reload_of_the_same_settings(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        stage.supervisor.more()
        yield 0
        stage.boot()
        yield 0
        stage.supervisor.reload("HUP")
        yield 0
        assert len(stage.system.workers) == 6
        stage.boot()
        yield 0
        stage.wish(workers=1)
        stage.supervisor.reload("HUP")
        yield 0
        assert len(stage.system.workers) == 7
        stage.boot()
        yield 0
        assert stage.supervisor.status()["wanted"] == 1

    assert stage.play(story) == 0


# Recycling


def test_supervisor_recycles_one_after_the_other_replacement_first() -> None:
    @serving
    def story(stage: Stage) -> Story:
        first, second = stage.system.workers
        for worker in (first, second):
            stage.row(worker).add("accepted", 200)
        yield 3
        assert len(stage.system.workers) == 3
        assert first.heard() == second.heard() == []
        stage.boot()
        yield 0
        assert stage.worker(3).heard() == [Go()]
        assert first.heard() == [Leave()]
        yield 2
        assert len(stage.system.workers) == 4
        stage.worker(4).fail("no memory")
        yield 0.2
        assert second.heard() == []  # it serves on
        yield 2
        stage.boot()
        yield 0
        assert second.heard() == [Leave()]

    with Stage(recycle_connections=100) as stage:
        assert stage.play(story) == 0
        assert [event.number for event in stage.sink.of(WorkerRecycled)] == [1, 2]
        assert "200 connections, at most" in stage.sink.of(WorkerRecycled)[0].reason
        assert [(event.number, event.delay) for event in stage.sink.of(WorkerFailed)] == [(2, 0.5)]


def test_supervisor_recycles_by_memory_in_several_looks() -> None:
    @serving
    def story(stage: Stage) -> Story:
        stage.system.memories[1002] = 3 << 20
        yield 4
        assert len(stage.system.workers) == 2
        yield 2
        assert len(stage.system.workers) == 3

    with Stage(recycle_memory=2 << 20) as stage:
        assert stage.play(story) == 0
        assert [event.number for event in stage.sink.of(WorkerRecycled)] == [2]


# The end


def test_supervisor_asked_to_stop_drains_and_refuses_new_clients(stage: Stage) -> None:
    said: list[str] = []

    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        stage.supervisor.stop("TERM")
        yield 0
        assert [worker.heard() for worker in stage.system.workers] == [[Go(), Drain()]] * 2
        assert stage.listeners[0].fileno() == -1
        stage.worker(1).exit()
        yield 10
        stage.worker(2).exit()
        yield 0

    assert stage.play(story, on_stopping=lambda: said.append("stopping")) == 0
    assert stage.sink.of(SupervisorStopping) == [SupervisorStopping("TERM", False)]
    assert stage.sink.of(SupervisorStopped) == [SupervisorStopped(10.0)]
    assert said == ["stopping"]
    assert len(stage.system.workers) == 2  # nobody was replaced


def test_supervisor_asked_a_second_time_ends_now(stage: Stage) -> None:
    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        stage.supervisor.stop("TERM")
        yield 1
        stage.supervisor.stop("INT")
        yield 0
        assert [worker.heard() for worker in stage.system.workers] == [[Go(), Drain(), End()]] * 2
        stage.leave()
        yield 0

    assert stage.play(story) == 0
    assert stage.sink.of(SupervisorStopping) == [SupervisorStopping("TERM", False), SupervisorStopping("INT", True)]


def test_supervisor_asked_to_end_ends_now_and_kills_who_does_not(stage: Stage) -> None:
    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        stage.supervisor.end("QUIT")
        yield 0
        assert [worker.heard() for worker in stage.system.workers] == [[Go(), End()]] * 2
        stage.worker(1).exit()
        yield 9

    assert stage.play(story) == 0
    assert stage.worker(2).signals == [signal.SIGKILL]
    assert stage.worker(1).signals == []


@pytest.mark.parametrize("verb", ["stop", "end"])
def test_supervisor_asked_to_stop_after_its_end_does_nothing(stage: Stage, verb: str) -> None:
    """A signal of its last turn; whoever closes the Watch makes the calls that are left."""
    assert stage.play(serving(lambda stage: iter(()))) == 0
    said = stage.sink.of(SupervisorStopping)
    getattr(stage.supervisor, verb)("TERM")
    stage.watch.run_calls()
    assert stage.sink.of(SupervisorStopping) == said


def test_supervisor_kills_a_worker_that_overstays_its_drain(stage: Stage) -> None:
    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        stage.supervisor.stop("TERM")
        yield 36
        assert all(worker.is_alive for worker in stage.system.workers)
        yield 3

    assert stage.play(story) == 0
    assert [worker.signals for worker in stage.system.workers] == [[signal.SIGKILL]] * 2


def test_supervisor_that_stops_replaces_nobody_and_does_what_it_is_asked_no_more(stage: Stage) -> None:
    def story(stage: Stage) -> Story:
        stage.boot()
        yield 20
        stage.supervisor.stop("TERM")
        yield 0
        stage.worker(1).die()
        stage.supervisor.reload("HUP")
        stage.supervisor.more()
        yield 5
        assert len(stage.system.workers) == 2
        stage.worker(2).exit()
        yield 0

    assert stage.play(story) == 0
    assert not stage.sink.of(ReloadStarted)
    assert not stage.sink.of(WorkerCountChanged)


def test_supervisor_in_which_a_bug_shows_lets_go_of_its_workers(stage: Stage) -> None:
    """They read end of stream, and leave."""

    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.play(story)
    stage.worker(1).heard()
    assert stage.worker(1).link.receive() is None
    assert stage.listeners[0].fileno() == -1


def test_supervisor_lives_once(stage: Stage) -> None:
    stage.play(serving(lambda stage: iter(())))
    assert NEXT[State.OVER] == frozenset()
    with pytest.raises(InternalError, match="cannot go from over to booting"):
        stage.supervisor.run()


# Reload


def test_supervisor_reloads_all_at_once(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        old, new = stage.system.workers[:2], slice(2, 4)
        stage.wish(max_connections=50, drain_timeout=5.0)
        stage.supervisor.reload("HUP")
        yield 0
        stage.worker(3).ready()
        yield 3
        assert [worker.heard() for worker in stage.system.workers] == [[]] * 4
        assert stage.supervisor.status()["reloading"] is True
        stage.worker(4).ready()
        yield 0
        assert [worker.heard() for worker in old] == [[Leave()]] * 2
        assert [worker.heard() for worker in stage.system.workers[new]] == [[Go()]] * 2
        assert stage.tokens.limit == 50
        assert stage.supervisor.status()["generation"] == 2
        for worker in old:
            worker.exit()
        yield 60
        assert len(stage.system.workers) == 4

    assert stage.play(story) == 0
    assert stage.sink.of(ReloadStarted) == [ReloadStarted("HUP")]
    assert stage.sink.of(ReloadFinished) == [ReloadFinished(3.0, ())]


def test_supervisor_reload_adds_and_removes_addresses(stage: Stage) -> None:
    def connect(stage: Stage) -> str:
        """To the listener that the reload added."""
        found = stage.supervisor._generation.listeners[0]
        with socket.create_connection(found.address[:2]):
            return str(found)

    @serving
    def story(stage: Stage) -> Story:
        stage.reread = lambda: plan_of("localhost:0", workers=2)
        before = stage.listeners[0]
        stage.supervisor.reload("HUP")
        yield 0
        assert len(stage.supervisor._doors()) > 1
        stage.boot()
        yield 0
        assert stage.worker(1).heard() == [Leave((0,))]  # its backlog is nobody else's
        assert before.fileno() == -1
        assert stage.supervisor.status()["binds"][0] == connect(stage)  # type: ignore[index]  # a list

    assert stage.play(story) == 0
    assert stage.supervisor._generation.listeners[0].fileno() == -1


def test_supervisor_reload_during_a_reload_makes_one_more_afterwards(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        stage.supervisor.reload("first")
        yield 0
        for _ in range(3):
            stage.supervisor.reload("again")
        yield 1
        assert len(stage.system.workers) == 4
        stage.boot()
        yield 0
        assert len(stage.system.workers) == 6
        stage.boot()
        yield 5
        assert len(stage.system.workers) == 6

    assert stage.play(story) == 0
    assert [event.reason for event in stage.sink.of(ReloadStarted)] == ["first", "again"]
    assert len(stage.sink.of(ReloadFinished)) == 2


def test_supervisor_reload_while_it_boots_follows_the_boot(stage: Stage) -> None:
    def story(stage: Stage) -> Story:
        stage.supervisor.reload("early")
        yield 1
        assert len(stage.system.workers) == 2
        stage.boot()
        yield 0
        assert len(stage.system.workers) == 4
        stage.boot()
        yield 0
        yield from stop(stage)

    assert stage.play(story) == 0


def test_supervisor_asked_to_stop_during_a_reload_ends_the_new_and_drains_the_old(stage: Stage) -> None:
    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        stage.supervisor.reload("HUP")
        yield 0
        stage.worker(3).ready()
        yield 0
        stage.supervisor.stop("TERM")
        yield 0
        assert [worker.heard() for worker in stage.system.workers] == [[Go(), Drain()]] * 2 + [[End()]] * 2
        stage.leave()
        yield 0

    assert stage.play(story) == 0
    assert not stage.sink.of(ReloadFinished)
    assert not stage.sink.of(ReloadFailed)
    assert len(stage.sink.of(SupervisorStopped)) == 1


def test_supervisor_replaces_an_old_worker_that_dies_during_a_reload(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        yield 20
        stage.supervisor.reload("HUP")
        yield 0
        stage.worker(1).die()
        yield 0
        assert len(stage.system.workers) == 5
        stage.worker(5).ready()
        yield 0
        assert stage.worker(5).heard() == [Go()]
        stage.worker(4).fail("new code is broken")
        yield 0
        assert stage.worker(5).heard() == []

    assert stage.play(story) == 0
    assert stage.sink.of(ReloadFailed) == [ReloadFailed("worker 2 (1004): new code is broken")]


def test_supervisor_does_not_recycle_during_a_reload() -> None:
    @serving
    def story(stage: Stage) -> Story:
        stage.supervisor.reload("HUP")
        yield 0
        stage.row(stage.worker(1)).add("accepted", 200)
        yield 3
        assert len(stage.system.workers) == 4

    with Stage(recycle_connections=100) as stage:
        assert stage.play(story) == 0


# Upgrade


class FakeUpgrade:
    """An upgrade, played by the test."""

    def __init__(self, done: Callable[[int], None]) -> None:
        self.done = done
        self.boot_timeout: float | None = None
        self.is_under_way = False
        self.said: list[object] = []

    def begin(self) -> bool:
        self.said.append(("begin", self.boot_timeout))
        self.is_under_way = True
        return True

    def finish(self, pid: int) -> None:
        self.is_under_way = False
        self.done(pid)

    def cancel(self, reason: str) -> None:
        if self.is_under_way:
            self.said.append("cancel")

    def reap(self) -> None: ...

    def forget(self) -> None:
        self.said.append("forget")


def play_upgrade(stage: Stage, then: Callable[[Stage, FakeUpgrade], Story], **arguments: Any) -> int:
    made: list[FakeUpgrade] = []

    def make(done: Callable[[int], None]) -> FakeUpgrade:
        made.append(FakeUpgrade(done))
        return made[0]

    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        for worker in stage.system.workers:
            worker.heard()
        yield from then(stage, made[0])

    return stage.play(story, make_upgrade=make, **arguments)


def test_supervisor_leaves_everything_to_the_new_program(stage: Stage) -> None:
    pids: list[int] = []

    def then(stage: Stage, upgrade: FakeUpgrade) -> Story:
        stage.supervisor.upgrade()
        yield 0
        assert upgrade.said == [("begin", 60.0)]
        assert stage.supervisor.status()["upgrading"] is True
        upgrade.finish(4711)
        yield 0
        assert [worker.heard() for worker in stage.system.workers] == [[Leave((0,))]] * 2
        assert (pids, stage.listeners[0].fileno()) == ([4711], -1)
        stage.supervisor.stop("TERM")  # it leaves already, in good order
        yield 0
        assert [worker.heard() for worker in stage.system.workers] == [[]] * 2
        stage.leave()
        yield 0

    stopped: list[str] = []
    assert play_upgrade(stage, then, on_handed_over=pids.append, on_stopping=lambda: stopped.append("")) == 0
    assert stopped == []  # the service goes on
    assert not stage.sink.of(SupervisorStopping)
    assert len(stage.sink.of(SupervisorStopped)) == 1


@pytest.mark.parametrize("is_upgraded", [False, True])
def test_supervisor_leaves_the_path_of_a_socket_to_the_new_program_alone(tmp_path: Path, is_upgraded: bool) -> None:
    def then(stage: Stage, upgrade: FakeUpgrade) -> Story:
        if is_upgraded:
            stage.supervisor.upgrade()
            yield 0
            upgrade.finish(4711)
        else:
            stage.supervisor.stop("TERM")
        yield 0
        stage.leave()
        yield 0

    path = tmp_path / "s"
    with Stage(f"unix:{path}") as stage:
        assert play_upgrade(stage, then) == 0
    assert path.exists() is is_upgraded


def test_supervisor_upgrade_and_reload_wait_for_each_other(stage: Stage) -> None:
    def then(stage: Stage, upgrade: FakeUpgrade) -> Story:
        stage.supervisor.reload("HUP")
        yield 0
        stage.supervisor.upgrade()
        yield 1
        assert upgrade.said == []
        stage.boot()
        yield 0
        assert upgrade.said == [("begin", 60.0)]
        stage.supervisor.reload("HUP again")
        yield 1
        assert len(stage.system.workers) == 4
        upgrade.is_under_way = False  # it failed
        yield 1
        assert len(stage.system.workers) == 6
        yield from stop(stage)

    assert play_upgrade(stage, then) == 0


def test_supervisor_asked_to_stop_during_an_upgrade_waits_for_the_end_of_both(stage: Stage) -> None:
    def then(stage: Stage, upgrade: FakeUpgrade) -> Story:
        stage.supervisor.upgrade()
        yield 0
        stage.supervisor.stop("TERM")
        yield 0
        assert upgrade.said[1:] == ["cancel"]
        stage.leave()
        yield 1
        upgrade.is_under_way = False
        stage.supervisor.reopen()
        yield 0

    assert play_upgrade(stage, then) == 0


# What it tells


def test_supervisor_status_is_json_and_complete(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        yield 2
        stage.row(stage.worker(1)).add("accepted", 7)
        stage.row(stage.worker(2)).add("refused:refused_total", 2)
        status = json.loads(json.dumps(stage.supervisor.status()))
        assert status["workers"][0]["accepted"] == 7
        assert (status["totals"]["accepted"], status["totals"]["refused"]) == (7, 2)
        assert [worker["state"] for worker in status["workers"]] == ["serving"] * 2
        assert (status["state"], status["pid"], status["uptime"]) == ("serving", os.getpid(), 2.0)
        assert (status["generation"], status["wanted"]) == (1, 2)
        assert status["binds"] == [str(stage.listeners[0])]

    assert stage.play(story) == 0


def test_supervisor_has_the_logs_opened_anew_everywhere(stage: Stage) -> None:
    opened: list[str] = []

    @serving
    def story(stage: Stage) -> Story:
        stage.supervisor.reopen()
        yield 0
        assert [worker.heard() for worker in stage.system.workers] == [[Reopen()]] * 2

    assert stage.play(story, reopen_logs=lambda: opened.append("here")) == 0
    assert opened == ["here"]


class FakeNotifier:
    """Notes what the service manager would be told."""

    watchdog_seconds: float | None = None

    def __init__(self) -> None:
        self.told: list[str] = []

    def ready(self, status: str = "") -> None:
        self.told.append(f"ready: {status}")

    def reloading(self) -> None:
        self.told.append("reloading")

    def stopping(self) -> None:
        self.told.append("stopping")

    def watchdog(self) -> None:
        self.told.append("watchdog")

    def main_pid(self, pid: int) -> None:
        self.told.append(f"main pid {pid}")


def test_supervisor_tells_the_service_manager(stage: Stage) -> None:
    notifier = FakeNotifier()

    @serving
    def story(stage: Stage) -> Story:
        assert notifier.told == ["ready: 2 workers"]
        stage.wish(workers=1)
        stage.supervisor.reload("HUP")
        yield 0
        stage.boot()
        yield 0
        stage.supervisor.reload("HUP")
        yield 0
        stage.system.workers[-1].fail("broken")
        yield 0

    assert stage.play(story, notifier=notifier) == 0
    assert notifier.told[1:] == ["reloading", "ready: 1 worker", "reloading", "ready: 1 worker", "stopping"]


def test_supervisor_tells_the_watchdog_as_often_as_it_wants(stage: Stage) -> None:
    notifier = FakeNotifier()
    notifier.watchdog_seconds = 2.5
    assert stage.play(serving(lambda stage: iter((9.9,))), notifier=notifier) == 0
    assert notifier.told.count("watchdog") == 4


def test_supervisor_at_rest_looks_once_a_second(stage: Stage) -> None:
    @serving
    def story(stage: Stage) -> Story:
        yield 1.5
        before = stage.watch.turns
        yield 100
        assert stage.watch.turns - before <= 2 * 100 + 2  # the story's own turn comes with each

    assert stage.play(story) == 0


def test_each_look_is_told(stage: Stage) -> None:
    looks: list[float] = []

    def look() -> None:
        looks.append(stage.system.now())

    @serving
    def story(stage: Stage) -> Story:
        before = len(looks)
        yield 10.5
        assert 10 <= len(looks) - before <= 11

    assert stage.play(story, on_look=look) == 0


def test_supervisor_class_is_made_with_names(stage: Stage) -> None:
    made: Any = Supervisor
    with pytest.raises(TypeError):
        made(stage.plan, stage.listeners)


# For real


class RealServer:
    """A process that supervises two real workers, which echo; `hear` says what happened in it."""

    def __init__(self, **arguments: Any) -> None:
        self.listener = open_listeners(plan_of("127.0.0.1:0").configuration.listeners)[0]
        self._arguments = arguments
        self._read, self._write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._supervise())
        os.close(self._write)

    def hear(self) -> bytes:
        """The next word."""
        assert select.select([self._read], [], [], PATIENCE)[0]
        return os.read(self._read, 100)

    def echo(self) -> bytes:
        """What a new client gets back."""
        with socket.create_connection(self.listener.address, PATIENCE) as client:
            client.sendall(b"hello\n")
            return client.recv(100)

    def wait(self) -> int:
        """Its exit status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        """Close what is ours."""
        os.close(self._read)
        self.listener.close()

    def _say(self, event: Event) -> None:
        os.write(self._write, b"started" if isinstance(event, SupervisorStarted) else b"reloaded")

    def _supervise(self) -> int:
        plan = replace(plan_of("127.0.0.1:0", workers=2), load=lambda: SERVICES["echo"])
        events, watch = Events(), Watch()
        events.subscribe(self._say, SupervisorStarted, ReloadFinished)
        supervisor = Supervisor(
            plan, listeners=[self.listener], events=events, reread=lambda: plan, watch=watch,
            scoreboard=Scoreboard(), tokens=Tokens(10), change=lambda old, new: Change(list(old), [], [], []),
            **self._arguments,
        )  # fmt: skip
        verbs = {Action.DRAIN: supervisor.stop, Action.RELOAD: supervisor.reload}
        with CaughtSignals(lambda action, caught: verbs[action](caught.name)):
            return supervisor.run()


def test_real_supervisor_serves_reloads_and_drains() -> None:
    server = RealServer()
    try:
        assert server.hear() == b"started"
        assert [server.echo() for _ in range(4)] == [b"hello\n"] * 4
        os.kill(server.pid, signal.SIGHUP)
        assert server.hear() == b"reloaded"
        assert [server.echo() for _ in range(4)] == [b"hello\n"] * 4
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait() == 0
    finally:
        server.close()


def test_real_worker_keeps_nothing_of_its_supervisor() -> None:
    """Neither what wakes it, nor the pipe of an upgrade, nor what its owner has open."""
    read, write = os.pipe()
    upgrades: list[FakeUpgrade] = []
    forgotten: list[str] = []

    def make_upgrade(done: Callable[[int], None]) -> FakeUpgrade:
        upgrades.append(FakeUpgrade(done))
        return upgrades[0]

    def work(order: Order) -> int:
        order.close()
        is_clean = signal.set_wakeup_fd(-1) == -1 and upgrades[0].said == ["forget"] and forgotten == ["forgotten"]
        os.write(write, b"clean" if is_clean else b"not clean")
        return 1

    server = RealServer(work=work, make_upgrade=make_upgrade, forget=lambda: forgotten.append("forgotten"))
    try:
        assert server.wait() == 1  # nobody became ready
        assert os.read(read, 100) in {b"clean", b"cleanclean"}  # one or two had the time
    finally:
        server.close()
        os.close(read)
        os.close(write)
