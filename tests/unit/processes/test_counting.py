"""What a worker's events become in its row."""

import os
import sys
import threading
from collections.abc import Iterator
from errno import EMFILE

import pytest

from moorage.events import (
    CAUSES,
    EVENT_TYPES,
    AcceptPaused,
    Cause,
    CertificatesRejected,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRefused,
    Event,
    Events,
    HandlerFailed,
    HandlerHeldHub,
    HandlersCut,
    Phase,
    PoolSaturated,
    RefusalObserved,
    RulesRejected,
    SiblingsLeft,
    SubscriberRemoved,
    TlsEstablished,
)
from moorage.processes.counting import Counting
from moorage.processes.scoreboard import FIELDS, OBSERVED, REFUSALS, Kind, Row, Scoreboard

PEER = ("192.0.2.1", 40000)
OPENED = ConnectionOpened(1, PEER, ("192.0.2.2", 20000))


def closed(
    cause: Cause = Cause.HANDLER_DONE, phase: Phase = Phase.HANDLER, received: int = 0, sent: int = 0
) -> ConnectionClosed:
    return ConnectionClosed(1, PEER, cause, phase, received, sent, seconds=2.0, queued=0.002, handled=1.5)


@pytest.fixture
def row() -> Iterator[Row]:
    scoreboard = Scoreboard(rows=2)
    yield scoreboard.allot()
    scoreboard.close()


@pytest.fixture
def events(row: Row) -> Events:
    events = Events()
    Counting(events, row)
    return events


def counted(row: Row) -> dict[str, int]:
    """Everything in the row that is not zero, histograms apart."""
    keys = [field.key for field in FIELDS if field.kind is not Kind.HISTOGRAM]
    return {key: row.get(key) for key in keys if row.get(key)}


def test_connection_that_is_open_is_accepted_and_open(row: Row, events: Events) -> None:
    events.emit(OPENED)
    assert counted(row) == {"accepted": 1, "open": 1}


def test_connection_that_is_over_is_no_longer_open_and_has_its_bytes_and_times(row: Row, events: Events) -> None:
    events.emit(OPENED)
    events.emit(closed(received=10, sent=20))
    assert counted(row) == {"accepted": 1, "ended:handler_done": 1, "bytes_received": 10, "bytes_sent": 20}
    assert row.histogram("connection_seconds").seconds == 2.0
    assert row.histogram("queued_seconds").seconds == 0.002
    assert row.histogram("handler_seconds").seconds == 1.5


def test_connection_that_never_had_a_handler_has_no_handler_time(row: Row, events: Events) -> None:
    events.emit(OPENED)
    events.emit(closed(Cause.QUEUE_TIMEOUT, Phase.WAITING))
    assert sum(row.histogram("connection_seconds").counts) == 1
    assert sum(row.histogram("handler_seconds").counts) == 0


@pytest.mark.parametrize("cause", Cause)
def test_end_by_any_cause_counts_under_that_cause(row: Row, events: Events, cause: Cause) -> None:
    events.emit(OPENED)
    events.emit(closed(cause))
    assert counted(row) == {"accepted": 1, f"ended:{cause}": 1}


@pytest.mark.parametrize("cause", REFUSALS)
def test_refusal_counts_under_its_cause_and_is_no_connection(row: Row, events: Events, cause: Cause) -> None:
    events.emit(ConnectionRefused(PEER, cause))
    assert counted(row) == {f"refused:{cause}": 1}


@pytest.mark.parametrize("cause", OBSERVED)
def test_refusal_that_was_only_observed_is_none(row: Row, events: Events, cause: Cause) -> None:
    events.emit(RefusalObserved(PEER, cause))
    assert counted(row) == {f"observed:{cause}": 1}


def test_every_cause_of_a_refusal_can_be_recorded_of_a_client_just_accepted() -> None:
    assert {Cause.REFUSED_TOTAL, Cause.REFUSED_CLIENT} <= set(REFUSALS)
    assert all(Phase.ACCEPTED in CAUSES[cause].phases for cause in REFUSALS)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (HandlerFailed(1, PEER, ValueError()), {"handler_errors": 1}),
        (HandlersCut(("a", "b")), {"handlers_cut": 2}),
        (SiblingsLeft(1, PEER, ("a", "b", "c")), {"siblings_left": 3}),
        (AcceptPaused(OSError(EMFILE, "too many"), 0.1, failures=10), {"accept_pauses": 10}),
        (PoolSaturated(16, 3), {"saturated": 1}),
        (HandlerHeldHub("app.py", 3, "handle", 0.2, True, ""), {"held_hub": 1}),
        (SubscriberRemoved("one", ValueError()), {"subscribers_removed": 1}),
        (TlsEstablished(1, PEER, "TLSv1.3", "TLS_AES_256_GCM_SHA384", 0.01), {"tls_handshakes": 1}),
        (CertificatesRejected(("a",), "it will not do"), {"certificates_rejected": 1}),
        (RulesRejected("a", "it will not do"), {"rules_rejected": 1}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else "",
)
def test_trouble_counts_as_often_as_it_happened(
    row: Row, events: Events, event: Event, expected: dict[str, int]
) -> None:
    events.emit(event)
    assert counted(row) == expected


def test_events_that_count_nothing_are_not_wanted(row: Row) -> None:
    events = Events()
    Counting(events, row)
    assert ConnectionOpened in events.wanted
    assert len(events.wanted) < len(EVENT_TYPES) / 2


def test_close_ends_the_counting(row: Row) -> None:
    events = Events()
    Counting(events, row).close()
    events.emit(OPENED)
    assert not events.wanted
    assert counted(row) == {}


def test_events_of_many_threads_at_once_are_all_counted(row: Row, events: Events) -> None:
    def live() -> None:
        together.wait()
        for _ in range(2000):
            events.emit(OPENED)
            events.emit(closed(received=1, sent=2))

    together = threading.Barrier(4)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=live) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert counted(row) == {
        "accepted": 8000, "ended:handler_done": 8000, "bytes_received": 8000, "bytes_sent": 16000
    }  # fmt: skip
    assert sum(row.histogram("connection_seconds").counts) == 8000


def test_child_that_counts_is_read_by_its_parent(row: Row) -> None:
    pid = os.fork()
    if pid == 0:
        events = Events()
        Counting(events, row)
        for _ in range(3):
            events.emit(OPENED)
        events.emit(closed(Cause.IDLE))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert counted(row) == {"accepted": 3, "open": 2, "ended:idle": 1}
