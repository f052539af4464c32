"""Runner: what every runner has without a line of its own."""

from typing import Any

import pytest

from moorage.config import ServerSettings
from moorage.events import Cause, Events
from moorage.runners.base import Runner
from support.fake_watch import FakeWatch


class Smallest(Runner):
    name = "smallest"

    def submit(self, connection: Any) -> None:
        self._serve(connection)


def make(kind: Any, serve: Any = lambda _: None) -> Runner:
    watch: Any = FakeWatch()
    runner: Runner = kind(serve, ServerSettings(), watch, Events())
    return runner


def test_runner_must_say_how_it_serves() -> None:
    with pytest.raises(TypeError, match="submit"):
        make(Runner)


def test_other_verbs_do_nothing_by_default() -> None:
    served: list[Any] = []
    runner = make(Smallest, served.append)
    runner.start()
    runner.submit("connection")  # type: ignore[arg-type]
    runner.drain(None)
    assert runner.stop(0) == []
    assert served == ["connection"]
    assert not runner.has_this_thread()


def test_notify_makes_the_calls_in_order() -> None:
    made: list[int] = []
    make(Smallest).notify([lambda: made.append(1), lambda: made.append(2)])
    assert made == [1, 2]


def test_settings_of_the_runner_are_its_own_until_the_server_says_otherwise() -> None:
    runner = make(Smallest)
    assert runner.at_once > 1
    assert runner._own_fds() == []
    assert not runner.passes_on_stop(None, Cause.DRAIN_DEADLINE)
    runner.on_stop(None, Cause.DRAIN_DEADLINE)


def test_notify_does_not_hide_a_call_that_raises() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(Smallest).notify([fail])


def test_offloaded_steps_take_one_turn_of_the_watch_each() -> None:
    runner, made = make(Smallest), []
    watch: Any = runner._watch
    for name in "abc":
        runner.offload(lambda name=name: made.append(name), lambda name=name: made.append(name.upper()))  # type: ignore[misc]  # cannot infer
    assert made == []
    for whole in ("aA", "aAbB", "aAbBcC"):
        watch.calls.pop(0)()
        assert "".join(made) == whole
    assert watch.calls == []


def test_step_that_is_offloaded_when_the_others_are_done_is_made_too() -> None:
    runner, made = make(Smallest), []
    watch: Any = runner._watch
    runner.offload(lambda: made.append(1), lambda: runner.offload(lambda: made.append(2), lambda: made.append(3)))
    watch.run_calls()
    assert made == [1, 2, 3]


def test_steps_go_on_while_one_that_was_done_turns_the_watch() -> None:
    made: list[str] = []
    runner = make(Smallest)
    watch: Any = runner._watch

    def wait_as_an_inline_handler() -> None:
        watch.run_calls()
        made.append("left")

    runner.offload(lambda: made.append("one"), wait_as_an_inline_handler)
    runner.offload(lambda: made.append("two"), lambda: None)
    watch.run_calls()
    assert made == ["one", "two", "left"]
