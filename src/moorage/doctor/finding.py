"""Finding: one thing that will go wrong, where it comes from, and the way out.

Owns      the levels, and how a finding names a setting and its place.
Promises  a finding is a sentence about what happens, not about a number; its fix can be typed in.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from ..config import Configuration, ListenerSettings, ServerSettings
from ..config.resolve import DEFAULT
from ..config.values import show


class Level(enum.IntEnum):
    """How bad it is: the server will not do what is set; it may be brought down; worth knowing."""

    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True)
class Finding:
    """One finding.

    what     what happens
    setting  which setting it comes from, with its listener where it is one's
    value    the setting's value, as an operator writes it
    place    where that was said
    fix      a command, or a setting
    """

    level: Level
    what: str
    setting: str
    value: str
    place: str
    fix: str


@dataclass(frozen=True)
class Where:
    """A setting in force, about which something is to be said."""

    setting: str
    value: str
    place: str

    def error(self, what: str, fix: str) -> Finding:
        """The server will not start, or not do what this says."""
        return self._found(Level.ERROR, what, fix)

    def warning(self, what: str, fix: str) -> Finding:
        """It may be brought down, or harm somebody."""
        return self._found(Level.WARNING, what, fix)

    def note(self, what: str, fix: str) -> Finding:
        """Worth knowing."""
        return self._found(Level.NOTE, what, fix)

    @property
    def is_chosen(self) -> bool:
        """Whether somebody has said it."""
        return self.place != DEFAULT

    def _found(self, level: Level, what: str, fix: str) -> Finding:
        return Finding(level, what, self.setting, self.value, self.place, fix)


def of_server(configuration: Configuration, name: str) -> Where:
    """A setting of the server."""
    value = show(ServerSettings, name, getattr(configuration.server, name))
    return Where(name, value, configuration.places.get(name, DEFAULT))


@dataclass(frozen=True)
class ListenerCase:
    """One listener under examination."""

    settings: ListenerSettings
    places: dict[str, str]

    def where(self, name: str) -> Where:
        """A setting of this listener."""
        value = show(ListenerSettings, name, getattr(self.settings, name))
        setting = name if name == "bind" else f"{name} of {self.settings.bind}"
        return Where(setting, value, self.places.get(name, DEFAULT))


def listeners_of(configuration: Configuration) -> Iterator[ListenerCase]:
    """Every listener with the places of its settings."""
    for number, settings in enumerate(configuration.listeners):
        said = configuration.listener_places[number] if configuration.listener_places else {}
        yield ListenerCase(settings, dict(said))
