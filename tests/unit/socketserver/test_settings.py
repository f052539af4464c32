"""Unit tests of `moorage.socketserver.settings`."""

from collections.abc import Iterator

import pytest

from moorage.errors import SettingError
from moorage.socketserver import StreamRequestHandler, TCPServer, ThreadingTCPServer, configure
from moorage.socketserver.settings import SETTINGS


@pytest.fixture(autouse=True)
def _settings_as_they_were() -> Iterator[None]:
    before = [(owner, name, getattr(owner, name)) for owner, name in SETTINGS.values()]
    yield
    for owner, name, value in before:
        setattr(owner, name, value)


def test_settings_reach_every_class_that_does_not_set_its_own() -> None:
    class Own(ThreadingTCPServer):
        max_connections = 7

    configure({"max_connections": 3, "backlog": 10, "line_limit": 99})
    assert ThreadingTCPServer.max_connections == 3
    assert Own.max_connections == 7
    assert TCPServer.request_queue_size == 10
    assert StreamRequestHandler.line_limit == 99


def test_unknown_setting_is_named_and_nothing_is_set() -> None:
    with pytest.raises(SettingError, match=r"no setting max_conections; it has backlog, .*max_connections"):
        configure({"max_conections": 3, "backlog": 10})
    assert TCPServer.request_queue_size == 2048


def test_every_setting_is_an_attribute_of_its_class() -> None:
    for owner, name in SETTINGS.values():
        assert name in vars(owner) or hasattr(owner, name)


def test_defaults_that_are_on_are_finite() -> None:
    finite = ("backlog", "max_connections", "max_children", "drain_timeout", "setup_timeout", "line_limit")
    for setting in (*finite, "message_timeout", "write_timeout", "first_data_timeout"):
        owner, name = SETTINGS[setting]
        assert getattr(owner, name) > 0, setting
