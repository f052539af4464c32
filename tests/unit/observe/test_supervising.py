"""The log lines of a supervisor: one for each of its events."""

import logging

import pytest

from moorage.events import (
    EVENT_TYPES,
    Events,
    ReloadFailed,
    ReloadFinished,
    SupervisorStarted,
    WorkerEnded,
    WorkerFailed,
    WorkerStuck,
    supervising,
)
from moorage.observe.logs import LogSubscriber
from moorage.observe.supervising import LINES


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Events:
    caplog.set_level(logging.DEBUG, "moorage")
    events = Events()
    LogSubscriber(events)
    return events


def test_every_event_of_a_supervisor_has_its_line() -> None:
    assert set(LINES) == {kind for kind in EVENT_TYPES if kind.__module__ == supervising.__name__}


def test_start_says_where_and_with_how_many(events: Events, caplog: pytest.LogCaptureFixture) -> None:
    events.emit(SupervisorStarted((("127.0.0.1", 80), "/run/x"), "threads", 4))
    assert caplog.messages[0].startswith("listening on 127.0.0.1:80, unix:/run/x with 4 workers and runner threads (")


@pytest.mark.parametrize(
    ("event", "level", "words"),
    [
        (WorkerFailed(2, 77, "no module", 4.0), logging.ERROR, "no module; tried again in 4 s"),
        (WorkerFailed(2, 77, "no module", None), logging.ERROR, "did not become ready: no module"),
        (WorkerEnded(1, 7, "killed by SIGKILL", False), logging.ERROR, "worker 1 (7) ended: killed by SIGKILL"),
        (WorkerEnded(1, 7, "exit status 0", True), logging.INFO, "exit status 0"),
        (WorkerEnded(1, 7, "exit status 0", False), logging.WARNING, "exit status 0"),
        (WorkerEnded(1, 7, "exit status 1", True, has_served=False), logging.DEBUG, "exit status 1"),
        (WorkerEnded(1, 7, "killed by SIGSEGV", False, stacks="File x"), logging.ERROR, "SIGSEGV\nFile x"),
        (WorkerStuck(1, 7, 31.2, "File x"), logging.CRITICAL, "stood still for 31 s and is killed:\nFile x"),
        (WorkerStuck(1, 7, 31.2, ""), logging.CRITICAL, "it told no stacks"),
        (ReloadFinished(1.0, ()), logging.INFO, "reloaded after 1.0 s"),
        (ReloadFinished(1.0, ("pid_file",)), logging.WARNING, "a restart is needed for: pid_file"),
        (ReloadFailed("bad key"), logging.ERROR, "the old workers serve on: bad key"),
    ],
)
def test_line_says_what_happened(
    events: Events, caplog: pytest.LogCaptureFixture, event: object, level: int, words: str
) -> None:
    events.emit(event)  # type: ignore[arg-type]  # every case above is an event
    assert caplog.records[0].levelno == level
    assert words in caplog.messages[0]
