"""Runners: each is found by its name, and imported when it is asked for."""

import subprocess
import sys
from typing import Any, get_args

import pytest

from moorage.config import ServerSettings
from moorage.config.settings import Runner as Names
from moorage.events import Events
from moorage.runners import RUNNERS, make_runner
from support.fake_watch import FakeWatch

IMPORTED = """
import sys
from types import SimpleNamespace
from moorage.runners import make_runner
make_runner(SimpleNamespace(runner=sys.argv[1]), None, None, None, list)
print(*sorted(name for name in ("forks", "inline", "threads") if f"moorage.runners.{name}" in sys.modules))
"""


def test_every_runner_of_the_settings_exists_and_no_other() -> None:
    assert set(RUNNERS) == set(get_args(Names))


@pytest.mark.parametrize("name", list(RUNNERS))
def test_runner_is_found_by_the_name_of_the_setting(name: Any) -> None:
    watch: Any = FakeWatch()
    runner = make_runner(ServerSettings(runner=name), lambda _: None, watch, Events(), list)
    assert (runner.name, type(runner).__name__) == (name, RUNNERS[name])
    assert runner.at_once >= 1


def test_runner_gets_what_the_server_gives() -> None:
    settings, events = ServerSettings(runner="inline"), Events()
    watch: Any = FakeWatch()
    serve: Any = object()
    runner = make_runner(settings, serve, watch, events, lambda: [3, 4])
    assert runner._settings is settings
    assert runner._serve is serve
    assert runner._watch is watch
    assert runner._events is events
    assert runner._own_fds() == [3, 4]


@pytest.mark.parametrize("name", list(RUNNERS))
def test_only_the_runner_in_use_is_imported(name: str) -> None:
    expected = ["forks", "inline"] if name == "forks" else [name]  # a child waits as `inline` does
    program = [sys.executable, "-c", IMPORTED, name]
    assert subprocess.run(program, capture_output=True, text=True, check=True, timeout=20).stdout.split() == expected
