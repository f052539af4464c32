"""Renewal: one thing at a time, and what was asked for meanwhile once."""

from typing import Any

import pytest

from moorage.events import Events, ReloadFailed, ReloadFinished, ReloadStarted
from moorage.processes.notify import Notifier
from moorage.processes.renewal import Renewal
from support.clock import FakeClock
from support.fake_processes import FakeSystem
from support.sink import Sink


class FakeReload:
    """Over when the test says so."""

    unchanged = ("user",)

    def __init__(self, done: Any, failed: Any) -> None:
        self.done, self.failed = done, failed
        self.added: list[str] = ["listener"]
        self.said: list[str] = []

    def begin(self) -> None:
        self.said.append("begin")

    def abandon(self) -> None:
        self.said.append("abandon")


class FakeUpgrade:
    """The same."""

    boot_timeout: float | None = None
    is_under_way = False

    def __init__(self) -> None:
        self.said: list[object] = []

    def begin(self) -> bool:
        self.said.append(("begin", self.boot_timeout))
        self.is_under_way = True
        return True

    def cancel(self, reason: str) -> None:
        self.said.append(reason)

    def reap(self) -> None:
        self.said.append("reap")

    def forget(self) -> None:
        self.said.append("forget")


class Bench:
    """A renewal, and all it deals with."""

    def __init__(self, upgrade: FakeUpgrade | None = None) -> None:
        self.clock = FakeClock()
        self.events = Events()
        self.sink = Sink(self.events)
        self.reloads: list[FakeReload] = []
        self.told: list[object] = []
        self.renewal = Renewal(
            make=self.make, take_over=self.told.append, say_ready=lambda: self.told.append("ready"), events=self.events,
            system=FakeSystem(self.clock), notifier=Notifier({}), upgrade=upgrade,
        )  # fmt: skip

    def make(self, done: Any, failed: Any) -> Any:
        self.reloads.append(FakeReload(done, failed))
        return self.reloads[-1]

    def go_on(self) -> None:
        self.renewal.go_on(60.0)


@pytest.fixture
def upgrade() -> FakeUpgrade:
    return FakeUpgrade()


@pytest.fixture
def bench(upgrade: FakeUpgrade) -> Bench:
    return Bench(upgrade)


def test_renewal_without_a_wish_begins_nothing(bench: Bench) -> None:
    bench.go_on()
    assert (bench.reloads, bench.renewal.reload, bench.renewal.is_upgrading) == ([], None, False)


def test_renewal_has_the_new_serve_when_a_reload_is_done(bench: Bench) -> None:
    bench.renewal.want_reload("HUP")
    bench.go_on()
    reload = bench.reloads[0]
    assert reload.said == ["begin"]
    assert list(map(str, bench.renewal.doors)) == ["listener"]
    bench.clock.advance(2.0)
    reload.done(reload)
    assert bench.told == [reload, "ready"]
    assert bench.sink.seen == [ReloadStarted("HUP"), ReloadFinished(2.0, ("user",))]
    assert (bench.renewal.reload, bench.renewal.doors) == (None, ())


def test_renewal_tells_of_a_reload_that_failed_and_serves_on(bench: Bench) -> None:
    bench.renewal.want_reload("HUP")
    bench.go_on()
    bench.reloads[0].failed("no reason")
    assert bench.told == ["ready"]
    assert bench.sink.seen == [ReloadStarted("HUP"), ReloadFailed("no reason")]
    bench.go_on()
    assert len(bench.reloads) == 1


def test_renewal_wished_for_often_during_a_reload_follows_once(bench: Bench, upgrade: FakeUpgrade) -> None:
    bench.renewal.want_reload("first")
    bench.go_on()
    for reason in ("second", "third"):
        bench.renewal.want_reload(reason)
        bench.renewal.want_upgrade()
    bench.go_on()
    assert len(bench.reloads) == 1
    bench.reloads[0].failed("")
    bench.go_on()
    assert (len(bench.reloads), upgrade.said) == (2, [])
    bench.reloads[1].failed("")
    bench.go_on()
    assert (len(bench.reloads), upgrade.said, bench.renewal.is_upgrading) == (2, [("begin", 60.0)], True)
    assert [event.reason for event in bench.sink.of(ReloadStarted)] == ["first", "third"]


def test_renewal_during_an_upgrade_waits_for_its_end(bench: Bench, upgrade: FakeUpgrade) -> None:
    bench.renewal.want_upgrade()
    bench.go_on()
    bench.renewal.want_reload("HUP")
    bench.go_on()
    assert bench.reloads == []
    upgrade.is_under_way = False
    bench.go_on()
    assert len(bench.reloads) == 1


def test_renewal_abandoned_undoes_what_is_under_way(bench: Bench, upgrade: FakeUpgrade) -> None:
    bench.renewal.want_reload("HUP")
    bench.go_on()
    bench.renewal.abandon()
    bench.renewal.abandon()
    assert bench.reloads[0].said == ["begin", "abandon"]
    assert upgrade.said == ["this program was asked to stop"] * 2
    assert bench.renewal.reload is None


def test_renewal_passes_on_to_the_upgrade_what_concerns_it(bench: Bench, upgrade: FakeUpgrade) -> None:
    bench.renewal.reap()
    bench.renewal.forget()
    assert upgrade.said == ["reap", "forget"]


def test_renewal_of_a_program_without_upgrades_reloads_alone() -> None:
    bench = Bench()
    bench.renewal.want_upgrade()
    bench.renewal.want_reload("HUP")
    for _ in range(2):
        bench.go_on()
        if bench.renewal.reload is not None:
            bench.reloads[-1].failed("")
    for call in (bench.renewal.reap, bench.renewal.forget, bench.renewal.abandon):
        call()
    assert (len(bench.reloads), bench.renewal.is_upgrading) == (1, False)
