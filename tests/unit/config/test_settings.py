"""Settings: every one has what a command line, a reference page and a sentence need."""

from dataclasses import fields

import pytest

from moorage.config.settings import SHARED_SETTINGS, ListenerSettings, ProgramSettings, ServerSettings
from moorage.config.values import Given, Settings, convert, kind, names

ALL: list[tuple[Settings, str]] = [
    (settings, name) for settings in (ServerSettings, ListenerSettings, ProgramSettings) for name in names(settings)
]


@pytest.mark.parametrize(("settings", "name"), ALL)
def test_setting_says_what_it_is_and_when_to_change_it(settings: Settings, name: str) -> None:
    field = next(field for field in fields(settings) if field.name == name)
    assert field.metadata["help"]
    assert field.metadata["change"]
    assert kind(settings, name).accepted


@pytest.mark.parametrize(("settings", "name"), ALL)
def test_default_of_a_setting_is_accepted_by_itself(settings: Settings, name: str) -> None:
    default = getattr(settings(), name)
    assert convert(settings, name, Given(default, "a test")) == default


def test_settings_stay_few_enough_to_be_read() -> None:
    assert len(names(ServerSettings)) <= 50
    assert len(names(ListenerSettings)) <= 30


def test_setup_timeout_is_the_servers_and_the_old_doors() -> None:
    assert "setup_timeout" in names(ServerSettings)
    assert "setup_timeout" in SHARED_SETTINGS
    assert "setup_timeout" not in names(ProgramSettings)


def test_no_name_stands_for_two_settings() -> None:
    every = [name for _, name in ALL]
    assert len(every) == len(set(every))
