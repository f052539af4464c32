"""Runners: each is found by its name, and there is one for every name of the setting."""

from typing import Any, get_args

import pytest

from moorage.config import ServerSettings
from moorage.config.settings import Runner as Names
from moorage.events import Events
from moorage.runners import RUNNERS, make_runner
from support.fake_watch import FakeWatch


@pytest.mark.parametrize("name", list(RUNNERS))
def test_runner_is_found_by_the_name_of_the_setting(name: Any) -> None:
    watch: Any = FakeWatch()
    serve: Any = lambda _: None  # noqa: E731  # any stand-in does
    runner = make_runner(ServerSettings(runner=name), serve, watch, Events(), list)
    assert runner.name == name
    assert runner.at_once >= 1


def test_every_runner_of_the_settings_exists() -> None:
    assert set(RUNNERS) == set(get_args(Names))
