"""Reload: all or nothing, in every place where it can fail."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from moorage.config import Configuration, ListenerSettings
from moorage.errors import BindError, SettingError
from moorage.events import Events, ReloadFailed, ReloadFinished, SupervisorStarted, WorkerFailed
from moorage.listener import Change, Listener, open_listeners
from moorage.listener_files import ListenerFiles
from moorage.processes.crew import Plan
from moorage.processes.generation import Generation
from moorage.processes.link import End, Go, Leave
from moorage.processes.reload import RESTART_ONLY, Reload
from support.fake_processes import Stage, Story, plan_of

ADDRESS = "127.0.0.1:0"
#: stands for rules that were read again
NEW: Any = object()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage(ADDRESS) as stage:
        yield stage


class AddedOne:
    """Stands for `change_listeners`: the old listeners are kept, and one is added."""

    def __init__(self) -> None:
        self.added: list[Listener] = []
        self.error: Exception | None = None

    def __call__(self, current: Sequence[Listener], settings: Sequence[ListenerSettings]) -> Change:
        if self.error is not None:
            raise self.error
        self.added = open_listeners([replace(settings[0], bind=ADDRESS)])
        kept = [(listener, settings[0], ListenerFiles(rules=NEW)) for listener in current]
        return Change([*current, *self.added], self.added, [], ["v6only of [::]:25"], kept)


class Trouble:
    """What goes wrong, and where."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.change = AddedOne()
        self.set_up_error: Exception | None = None
        self.seconds = 0.0  # until it shows

    def set_up(self, configuration: Configuration) -> None:
        if self.set_up_error is not None:
            raise self.set_up_error

    # Before anything is forked

    def bad_settings(self) -> None:
        self.stage.reread = self._raise(SettingError("max_connections = 0 will not do"))

    def bug_while_reading(self) -> None:
        self.stage.reread = self._raise(ZeroDivisionError("bug"))

    def address_in_use(self) -> None:
        self.change.error = BindError("cannot listen on [::]:25")

    def no_process_left(self) -> None:
        self.stage.system.fork_error = OSError("no process left")

    # With the new workers there

    def import_error(self) -> None:
        self.stage.worker(4).fail("the module 'x' cannot be imported", is_operator=True)

    def failing_hook(self) -> None:
        self.stage.worker(3).ready()
        self.stage.worker(4).fail("OSError: no database")

    def death_in_the_boot(self) -> None:
        self.stage.worker(3).die()

    def death_of_a_ready_one(self) -> None:
        self.stage.worker(3).ready()
        self.stage.worker(3).exit(0)

    def time_out(self) -> None:
        self.stage.worker(3).ready()
        self.seconds = 61.0

    # At the very end

    def listener_that_takes_no_option(self) -> None:
        def refuse(settings: ListenerSettings, files: ListenerFiles | None = None) -> None:
            raise OSError("not permitted")

        self.stage.listeners[0].apply = refuse  # type: ignore[method-assign]  # this one listener
        self.stage.boot()

    def log_that_cannot_be_opened(self) -> None:
        self.set_up_error = SettingError("log_file = /nowhere/x")
        self.stage.boot()

    def _raise(self, error: Exception) -> Callable[[], Plan]:
        def reread() -> Plan:
            raise error

        return reread


@pytest.mark.parametrize(
    ("before", "then", "reason"),
    [
        (Trouble.bad_settings, None, "max_connections = 0 will not do"),
        (Trouble.bug_while_reading, None, "ZeroDivisionError('bug')"),
        (Trouble.address_in_use, None, "cannot listen on [::]:25"),
        (Trouble.no_process_left, None, "it could not be forked (no process left)"),
        (None, Trouble.import_error, "the module 'x' cannot be imported"),
        (None, Trouble.failing_hook, "worker 2 (1004): OSError: no database"),
        (None, Trouble.death_in_the_boot, "worker 1 (1003): killed by SIGKILL"),
        (None, Trouble.death_of_a_ready_one, "worker 1 (1003): exit status 0"),
        (None, Trouble.time_out, "worker 2 (1004): it was not ready after 60 s"),
        (None, Trouble.listener_that_takes_no_option, "not permitted"),
        (None, Trouble.log_that_cannot_be_opened, "log_file = /nowhere/x"),
    ],
)
def test_reload_that_fails_anywhere_changes_nothing(
    stage: Stage,
    before: Callable[[Trouble], None] | None,
    then: Callable[[Trouble], None] | None,
    reason: str,
) -> None:
    trouble = Trouble(stage)

    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        old = stage.system.workers[:2]
        assert [worker.heard() for worker in old] == [[Go()]] * 2
        stage.wish(max_connections=7)
        if before is not None:
            before(trouble)
        stage.supervisor.reload("HUP")
        yield 0
        if then is not None:
            then(trouble)
            yield trouble.seconds
        status = stage.supervisor.status()
        assert (status["generation"], status["reloading"], stage.tokens.limit) == (1, False, 1024)
        assert all(worker.is_alive and worker.heard() == [] for worker in old)
        assert stage.listeners[0].fileno() >= 0
        assert stage.listeners[0].rules is None
        assert [listener.fileno() for listener in trouble.change.added] in ([], [-1])
        new = [worker for worker in stage.system.workers[2:] if worker.is_alive]
        assert all(worker.heard() == [End()] for worker in new)
        yield 3  # who does not obey is killed
        assert not any(worker.is_alive for worker in stage.system.workers[2:])
        yield 60
        assert all(worker.is_alive and worker.heard() == [] for worker in old)
        stage.supervisor.stop("TERM")
        yield 0
        stage.leave()
        yield 0

    assert stage.play(story, change=trouble.change, set_up=trouble.set_up) == 0
    assert stage.sink.of(ReloadFailed) == [ReloadFailed(reason)]
    assert not stage.sink.of(ReloadFinished)
    assert not stage.sink.of(WorkerFailed)


def test_reload_after_one_that_failed_begins_anew(stage: Stage) -> None:
    trouble = Trouble(stage)

    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        trouble.bad_settings()
        stage.supervisor.reload("HUP")
        yield 0
        stage.reread = lambda: stage.plan
        stage.supervisor.reload("HUP")
        yield 0
        stage.boot()
        yield 0
        assert stage.worker(1).heard() == [Go(), Leave()]
        stage.supervisor.stop("TERM")
        yield 0
        stage.leave()
        yield 0

    assert stage.play(story, change=trouble.change) == 0
    assert stage.listeners[0].rules is NEW
    assert [event.unchanged for event in stage.sink.of(ReloadFinished)] == [("v6only of [::]:25",)]
    assert len(stage.sink.of(SupervisorStarted)) == 1


class Alone:
    """A reload whose generation is never made: what it does before."""

    def __init__(self, stage: Stage, **settings: Any) -> None:
        self.made: list[tuple[Plan, int]] = []
        self.set_up: list[int] = []
        watch: Any = stage.watch
        crew: Any = None  # nobody is forked
        self.old = Generation(
            1, stage.plan, stage.listeners, 2,
            crew=crew, system=stage.system, watch=watch, events=Events(), random=None,  # type: ignore[arg-type]  # as crew
        )  # fmt: skip
        self.reload = Reload(
            self.old, reread=lambda: plan_of(ADDRESS, **{"workers": 2, **settings}),
            change=self.change, make=self.make, client_room=stage.scoreboard.client_room,
            set_up=lambda configuration: self.set_up.append(configuration.server.max_connections),
            done=lambda reload: None, failed=pytest.fail,
        )  # fmt: skip
        with pytest.raises(Made):
            self.reload.begin()
        self.plan, self.count = self.made[0]

    def change(self, current: Sequence[Listener], wanted: Sequence[ListenerSettings]) -> Change:
        return Change(list(current), [], [], [], [(one, wanted[0], ListenerFiles(rules=NEW)) for one in current])

    def make(self, plan: Plan, listeners: Sequence[Listener], count: int) -> Generation:
        self.made.append((plan, count))
        raise Made


class Made(Exception):
    """Far enough."""


def test_reload_names_what_only_a_restart_changes_and_keeps_it(stage: Stage) -> None:
    alone = Alone(stage, user="nobody", name="other", metrics="127.0.0.1:1", idle_timeout=5.0)
    assert alone.reload.unchanged == ("user", "name", "metrics")
    settings = alone.plan.settings
    assert (settings.user, settings.name, settings.metrics, settings.idle_timeout) == (None, "moorage", None, 5.0)


@pytest.mark.parametrize("name", RESTART_ONLY)
def test_reload_knows_each_setting_that_it_does_not_change(stage: Stage, name: str) -> None:
    assert hasattr(stage.plan.settings, name)


def test_reload_cannot_begin_to_count_clients(stage: Stage) -> None:
    alone = Alone(stage, max_per_client=5)
    assert (alone.reload.unchanged, alone.plan.settings.max_per_client) == (("max_per_client",), None)


def test_reload_can_change_how_many_clients_are_counted() -> None:
    with Stage(ADDRESS, clients=1024, max_per_client=3) as stage:
        alone = Alone(stage, max_per_client=5)
        assert (alone.reload.unchanged, alone.plan.settings.max_per_client) == ((), 5)


@pytest.mark.parametrize(
    ("settings", "unchanged", "most"),
    [
        ({"max_per_client": 3, "max_connections": 150}, (), 150),
        ({"max_per_client": 3, "max_connections": 50}, (), 50),
        ({"max_per_client": 3, "max_connections": 10_000}, ("max_connections",), 100),
        ({"max_per_client": 5, "max_connections": 10_000}, ("max_connections",), 100),
        ({"max_connections": 10_000}, (), 10_000),  # nobody is counted any more
    ],
)
def test_reload_has_no_more_connections_than_clients_can_be_counted(
    settings: Any, unchanged: tuple[str, ...], most: int
) -> None:
    with Stage(ADDRESS, clients=100, max_per_client=3, max_connections=100) as stage:
        alone = Alone(stage, **settings)
        assert (alone.reload.unchanged, alone.plan.settings.max_connections) == (unchanged, most)
        assert alone.plan.settings.max_per_client == settings.get("max_per_client")


def test_reload_of_a_server_that_counts_no_clients_may_have_any_number_of_connections(stage: Stage) -> None:
    alone = Alone(stage, max_per_client=5, max_connections=10_000)
    assert (alone.reload.unchanged, alone.plan.settings.max_connections) == (("max_per_client",), 10_000)


def test_reload_with_another_number_of_workers_has_that_many(stage: Stage) -> None:
    assert Alone(stage).count == 2
    assert Alone(stage, workers=5).count == 5


def test_reload_sets_the_process_of_a_new_worker_up_before_it_loads(stage: Stage) -> None:
    alone = Alone(stage, max_connections=9)
    assert alone.set_up == []
    alone.plan.load()
    assert alone.set_up == [9]


def test_reload_gives_a_new_worker_what_was_read_and_the_supervisor_keeps_the_old(stage: Stage) -> None:
    alone = Alone(stage, nodelay=False)
    [listener] = stage.listeners
    assert (listener.rules, listener.settings.nodelay) == (None, True)
    alone.plan.load()  # as in a worker, whose listener is a copy
    assert (listener.rules, listener.settings.nodelay) == (NEW, False)
