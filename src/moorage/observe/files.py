"""Files: the log lines of files that are read again while the server runs.

Owns      for each of these events its level and its sentence.
Promises  what changes nothing is told louder than what changes something, and says what is used on.
Refuses   to limit them: a file is looked at once a second at most, and told once for each change.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .. import events as happened
from ..events import Event


class Line(NamedTuple):
    """How an event is logged."""

    level: int
    sentence: Callable[[Any], str]


def _certificates(event: happened.CertificatesLoaded) -> str:
    return f"new certificates are used ({', '.join(event.paths)}); the first of them expires on {_day(event.expires)}"


def _no_certificates(event: happened.CertificatesRejected) -> str:
    return f"new certificates will not do, and those from before are used on: {event.reason}"


def _rules(event: happened.RulesLoaded) -> str:
    networks = "1 network" if event.networks == 1 else f"{event.networks} networks"
    return f"new rules decide ({event.path}), with those of the settings {networks}"


def _no_rules(event: happened.RulesRejected) -> str:
    return f"new rules will not do, and those from before decide: {event.reason}"


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


#: Every event of a file, and its line.
FILES: dict[type[Event], Line] = {
    happened.CertificatesLoaded: Line(logging.INFO, _certificates),
    happened.CertificatesRejected: Line(logging.ERROR, _no_certificates),
    happened.RulesLoaded: Line(logging.INFO, _rules),
    happened.RulesRejected: Line(logging.ERROR, _no_rules),
}
