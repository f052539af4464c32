"""Supervising: the log lines of a supervisor's events.

Owns      for each of these events its level and its sentence.
Promises  what changes nothing is told as loudly as what changes something: a reload that fails is an error, and
          says that the old workers serve on.
Refuses   to limit them: a supervisor does little, and each of it matters.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import events as happened
from .. import twins
from ..config.address import describe
from ..events import Event

#: how a worker ends that was told to, be it by hand
FINE = "exit status 0"


class Line(NamedTuple):
    """How an event is logged."""

    level: Callable[[Any], int]
    sentence: Callable[[Any], str]


def _always(level: int, sentence: Callable[[Any], str]) -> Line:
    return Line(lambda event: level, sentence)


def _started(event: happened.SupervisorStarted) -> str:
    where = ", ".join(map(describe, event.addresses))
    which = "native" if twins.NATIVE else "pure"
    workers = "1 worker" if event.workers == 1 else f"{event.workers} workers"
    return f"listening on {where} with {workers} and runner {event.runner} ({which})"


def _stopping(event: happened.SupervisorStopping) -> str:
    return f"{event.reason}: {'ending now' if event.is_now else 'stopping; the workers drain'}"


def _failed(event: happened.WorkerFailed) -> str:
    then = "" if event.delay is None else f"; tried again in {event.delay:g} s"
    return f"worker {event.number} ({event.pid}) did not become ready: {event.reason}{then}"


def _ended(event: happened.WorkerEnded) -> str:
    return f"worker {event.number} ({event.pid}) ended: {event.manner}" + (f"\n{event.stacks}" if event.stacks else "")


def _level_of_end(event: happened.WorkerEnded) -> int:
    """One that never served has said why: its end is no news."""
    if not event.is_expected:
        return logging.WARNING if event.manner == FINE else logging.ERROR  # somebody has told it to leave
    return logging.INFO if event.has_served else logging.DEBUG


def _stuck(event: happened.WorkerStuck) -> str:
    stacks = f"\n{event.stacks}" if event.stacks else " (it told no stacks)"
    return f"worker {event.number} ({event.pid}) has stood still for {event.seconds:.0f} s and is killed:{stacks}"


def _reloaded(event: happened.ReloadFinished) -> str:
    rest = f"; a restart is needed for: {', '.join(event.unchanged)}" if event.unchanged else ""
    return f"reloaded after {event.seconds:.1f} s{rest}"


#: Every event of a supervisor, and its line.
LINES: dict[type[Event], Line] = {
    happened.SupervisorStarted: _always(logging.INFO, _started),
    happened.SupervisorStopping: _always(logging.INFO, _stopping),
    happened.SupervisorStopped: _always(logging.INFO, lambda event: "stopped"),
    happened.WorkerStarted: _always(logging.DEBUG, lambda event: f"worker {event.number} ({event.pid}) started"),
    happened.WorkerReady: _always(
        logging.INFO, lambda event: f"worker {event.number} ({event.pid}) is ready after {event.seconds:.1f} s"
    ),
    happened.WorkerFailed: _always(logging.ERROR, _failed),
    happened.WorkerEnded: Line(_level_of_end, _ended),
    happened.WorkerStuck: _always(logging.CRITICAL, _stuck),
    happened.WorkerRecycled: _always(
        logging.INFO, lambda event: f"worker {event.number} ({event.pid}) is to be replaced: {event.reason}"
    ),
    happened.WorkerCountChanged: _always(logging.INFO, lambda event: f"the wish is now: workers {event.workers}"),
    happened.ReloadStarted: _always(logging.INFO, lambda event: f"{event.reason}: reloading"),
    happened.ReloadFinished: Line(lambda event: logging.WARNING if event.unchanged else logging.INFO, _reloaded),
    happened.ReloadFailed: _always(
        logging.ERROR, lambda event: f"the reload failed, and the old workers serve on: {event.reason}"
    ),
    happened.UpgradeStarted: _always(logging.INFO, lambda event: f"upgrading: the new program is process {event.pid}"),
    happened.UpgradeFinished: _always(
        logging.INFO,
        lambda event: f"the new program ({event.pid}) is ready after {event.seconds:.1f} s: this one drains and leaves",
    ),
    happened.UpgradeFailed: _always(
        logging.ERROR, lambda event: f"the upgrade failed, and this program serves on: {event.reason}"
    ),
}
