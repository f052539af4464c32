"""Logs: which event becomes which line, and how many of them."""

import logging
from collections.abc import Iterator
from dataclasses import fields

import pytest

from moorage import twins
from moorage.config import ServerSettings
from moorage.events import (
    CAUSES,
    EVENT_TYPES,
    AcceptFailed,
    AcceptPaused,
    AcceptResumed,
    Cause,
    CertificatesRejected,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRefused,
    DrainFinished,
    DrainStarted,
    Event,
    Events,
    HandlerFailed,
    HandlerHeldHub,
    HandlersCut,
    Phase,
    PoolSaturated,
    RefusalObserved,
    RulesLoaded,
    ServerResumed,
    ServerStarted,
    ServerStopped,
    ServerSuspended,
    SetupFailed,
    SiblingsLeft,
    SubscriberRemoved,
    TlsEstablished,
)
from moorage.observe.limiter import BURST, WINDOW, Limiter
from moorage.observe.logs import MOST_REASONS, LogSubscriber, log_events
from support.clock import FakeClock

PEER = ("192.0.2.1", 4000)


class Lines(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in self.records]


class Log:
    """A subscriber on a logger of its own."""

    def __init__(self, level: int = logging.DEBUG, log_connections: bool = False, is_worker: bool = False) -> None:
        self.events, self.clock, self.lines = Events(), FakeClock(), Lines()
        logger = logging.Logger("moorage.test", level)  # noqa: LOG001  # which no other test shares
        logger.addHandler(self.lines)
        self.subscriber = LogSubscriber(
            self.events,
            log_connections=log_connections,
            is_worker=is_worker,
            logger=logger,
            limiter=Limiter(clock=self.clock),
        )

    def of(self, *events: Event) -> list[tuple[str, str]]:
        for event in events:
            self.events.emit(event)
        return self.lines.said


def closed(cause: Cause, id: int = 1, phase: Phase = Phase.HANDLER) -> ConnectionClosed:
    return ConnectionClosed(id, PEER, cause, phase, 10, 20, 1.5, 0.25, 1.0)


END = (
    "connection 1 from 192.0.2.1:4000 ended: message_deadline in phase handler, 10 bytes in, 20 out, "
    "1.500 s (0.250 queued, 1.000 handled)"
)
SAMPLES: dict[Event, tuple[str, str]] = {
    ServerStarted((("127.0.0.1", 1), ("::1", 2, 0, 0), "/run/x"), "threads"): (
        "INFO",
        f"listening on 127.0.0.1:1, [::1]:2, unix:/run/x with runner threads ({'native' if twins.NATIVE else 'pure'})",
    ),
    ServerSuspended(): ("INFO", "accepting is suspended; clients wait in the backlog"),
    ServerResumed(): ("INFO", "accepting goes on"),
    ServerStopped(): ("INFO", "stopped"),
    DrainStarted(2, 30.0): ("INFO", "draining 2 connections, for at most 30 s"),
    DrainStarted(1, None): ("INFO", "draining 1 connection, with no time limit"),
    DrainFinished(0, 1.0): ("INFO", "the drain ended after 1.0 s: no connection cut"),
    DrainFinished(3, 30.0): ("WARNING", "the drain ended after 30.0 s: 3 connections cut"),
    AcceptPaused(OSError(24, "Too many open files"), 0.1, 9): (
        "ERROR",
        "accept failed 9 times: [Errno 24] Too many open files; clients wait in the backlog, tried again in 0.1 s",
    ),
    AcceptResumed(2.0): ("INFO", "accept works again after 2.0 s"),
    AcceptFailed(OSError(9, "Bad")): ("CRITICAL", "accept failed for good: [Errno 9] Bad"),
    ConnectionRefused(PEER, Cause.REFUSED_TOTAL): (
        "WARNING",
        "refused 192.0.2.1:4000: `max_connections` was reached and `overflow` is refuse or reset",
    ),
    ConnectionRefused(PEER, Cause.DENIED): ("INFO", "refused 192.0.2.1:4000: a rule denies this network"),
    RefusalObserved(PEER, Cause.REFUSED_RATE): (
        "WARNING",
        "192.0.2.1:4000 goes on, since this is only observed: clients arrive faster than `accept_rate` or `client_rate`",
    ),
    SetupFailed(7, PEER, Cause.TLS_ERROR, "no shared cipher"): (
        "INFO",
        "connection 7 from 192.0.2.1:4000 could not be set up: tls_error: no shared cipher",
    ),
    TlsEstablished(7, PEER, "TLSv1.3", "TLS_AES_128_GCM_SHA256", 0.0125): (
        "DEBUG",
        "connection 7 from 192.0.2.1:4000 speaks TLSv1.3 with TLS_AES_128_GCM_SHA256 after 0.013 s",
    ),
    CertificatesRejected(("/a",), "/a has no key"): (
        "ERROR",
        "new certificates will not do, and those from before are used on: /a has no key",
    ),
    RulesLoaded("/r", 2): ("INFO", "new rules decide (/r), with those of the settings 2 networks"),
    closed(Cause.MESSAGE_DEADLINE): (
        "INFO",
        END,
    ),
    HandlerFailed(1, PEER, ValueError("x")): ("ERROR", "the handler of connection 1 from 192.0.2.1:4000 failed"),
    HandlersCut(("a stack",)): (
        "ERROR",
        "1 handler did not return after their connections were ended:\na stack",
    ),
    SiblingsLeft(1, PEER, ("a stack", "another")): (
        "ERROR",
        "connection 1 from 192.0.2.1:4000 ended, and 2 siblings of its handler did not return:\na stack\nanother",
    ),
    HandlerHeldHub("/srv/app.py", 12, "Echo.handle", 0.25, True, "use moorage.sleep"): (
        "WARNING",
        "Echo.handle (/srv/app.py:12) held the hub for 0.250 s, and no other connection was served: use moorage.sleep",
    ),
    HandlerHeldHub("/srv/app.py", 12, "Echo.handle", 1.0, False, "use it"): (
        "WARNING",
        "Echo.handle (/srv/app.py:12) held the hub for 1.000 s so far, and no other connection was served: use it",
    ),
    SubscriberRemoved("me", ValueError("x")): ("ERROR", "me raised and gets no more events"),
}


@pytest.mark.parametrize(("event", "line"), SAMPLES.items(), ids=lambda value: type(value).__name__)
def test_event_becomes_its_line(event: Event, line: tuple[str, str]) -> None:
    assert Log().of(event) == [line]


def test_start_and_stop_of_a_worker_are_told_at_debug_and_the_rest_as_ever() -> None:
    events = [ServerStarted((("127.0.0.1", 1),), "threads"), DrainStarted(1, None), ServerStopped()]
    assert [level for level, _ in Log(is_worker=True).of(*events)] == ["DEBUG", "INFO", "DEBUG"]


@pytest.mark.parametrize(("is_native", "word"), [(True, "native"), (False, "pure")])
def test_start_says_which_twins_are_in_use(is_native: bool, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "NATIVE", is_native)
    assert Log().of(ServerStarted((("::1", 2, 0, 0),), "forks")) == [
        ("INFO", f"listening on [::1]:2 with runner forks ({word})")
    ]


def test_pool_that_is_full_is_a_warning_with_advice() -> None:
    level, line = Log().of(PoolSaturated(5, 1))[0]
    assert level == "WARNING"
    assert line.startswith("all 5 threads are taken and 1 connection waits for one: raise `threads`")


def test_every_event_but_the_opening_of_a_connection_has_a_line() -> None:
    assert set(EVENT_TYPES) - Log().events.wanted == {ConnectionOpened}


@pytest.mark.parametrize("cause", [cause for cause in Cause if CAUSES[cause].level == logging.DEBUG])
def test_peer_that_goes_away_is_no_line_at_the_default_level(cause: Cause) -> None:
    assert Log(level=logging.INFO).of(closed(cause)) == []
    assert Log().of(closed(cause))[0][0] == "DEBUG"


def test_handler_error_is_one_line_with_its_traceback() -> None:
    log = Log()
    error = ValueError("mine")
    log.of(HandlerFailed(1, PEER, error), closed(Cause.HANDLER_ERROR))
    assert len(log.lines.records) == 1
    info = log.lines.records[0].exc_info
    assert info is not None
    assert info[1] is error


def test_log_connections_adds_a_line_for_each_end_and_leaves_none_out() -> None:
    log = Log(level=logging.INFO, log_connections=True)
    said = log.of(*[closed(Cause.PEER_CLOSED, id) for id in range(100)])
    assert len(said) == 100
    assert {level for level, _ in said} == {"INFO"}


def test_repeated_refusals_are_limited_and_their_count_is_told_later() -> None:
    log = Log()
    log.of(*[ConnectionRefused(PEER, Cause.REFUSED_TOTAL)] * 1000)
    assert len(log.lines.records) == BURST
    log.clock.advance(WINDOW)
    said = log.of(ServerResumed())
    assert said[BURST:] == [
        ("WARNING", f"{1000 - BURST} more lines like the last of ConnectionRefused (refused_total)"),
        ("INFO", "accepting goes on"),
    ]


@pytest.mark.parametrize("event", [RefusalObserved(PEER, Cause.DENIED), SetupFailed(1, PEER, Cause.TLS_ERROR, "no")])
def test_what_strangers_can_repeat_is_limited(event: Event) -> None:
    log = Log()
    log.of(*[event] * 1000)
    assert len(log.lines.records) == BURST


def test_failed_setups_are_limited_by_their_reason() -> None:
    log = Log()
    for reason in ("no shared cipher", "unknown ca"):
        log.of(*[SetupFailed(1, PEER, Cause.TLS_ERROR, reason)] * 50)
    assert len(log.lines.records) == 2 * BURST


def test_failed_setups_whose_reasons_are_made_up_do_not_fill_the_log() -> None:
    log = Log()
    log.of(*[SetupFailed(1, PEER, Cause.PROXY_ERROR, f"the port is {port}") for port in range(10_000)])
    assert len(log.lines.records) == MOST_REASONS + BURST


def test_reason_of_a_failed_setup_is_one_line() -> None:
    [(_, line)] = Log().of(SetupFailed(1, PEER, Cause.PROXY_ERROR, "it says a\nb\x1b[31m"))
    assert line.endswith(r"it says a\nb\x1b[31m")


@pytest.mark.parametrize("phase", [Phase.PROXY, Phase.TLS])
@pytest.mark.parametrize("cause", [Cause.PROXY_ERROR, Cause.TLS_ERROR, Cause.SETUP_DEADLINE])
def test_end_of_a_failed_setup_is_told_once(cause: Cause, phase: Phase) -> None:
    assert len(Log().of(SetupFailed(1, PEER, cause, "why"), closed(cause, phase=phase))) == 1


def test_end_by_a_broken_record_in_the_handler_has_its_line() -> None:
    assert len(Log().of(closed(Cause.TLS_ERROR))) == 1


def test_count_of_lines_left_out_is_told_at_the_stop() -> None:
    log = Log()
    said = log.of(*[ConnectionRefused(PEER, Cause.REFUSED_RATE)] * 50, ServerStopped())
    assert said[BURST][1].startswith("40 more lines")
    assert said[-1] == ("INFO", "stopped")


def test_different_errors_are_limited_apart() -> None:
    log = Log()
    for kind in (ValueError, KeyError):
        log.of(*[HandlerFailed(1, PEER, kind())] * 50)
    assert len(log.lines.records) == 2 * BURST
    log.of(ServerStopped())
    assert [said for _, said in log.lines.said if "more lines" in said] == [
        "40 more lines like the last of HandlerFailed (ValueError)",
        "40 more lines like the last of HandlerFailed (KeyError)",
    ]


def test_record_carries_the_fields_of_its_event_for_json() -> None:
    log = Log()
    log.of(
        closed(Cause.TOO_LARGE), HandlerFailed(1, PEER, ValueError("x")), ServerStarted((("::1", 2, 0, 0),), "forks")
    )
    data = [vars(record)["moorage"] for record in log.lines.records]
    assert data[0].keys() == {"event"} | {field.name for field in fields(ConnectionClosed)}
    assert data[0]["peer"] == "192.0.2.1:4000"
    assert data[1]["error"] == "ValueError('x')"
    assert data[2]["addresses"] == ["[::1]:2"]


def test_close_ends_the_subscription() -> None:
    log = Log()
    log.subscriber.close()
    assert log.events.wanted == frozenset()


@pytest.fixture
def moorage_lines() -> Iterator[Lines]:
    lines, logger = Lines(), logging.getLogger("moorage")
    logger.addHandler(lines)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(level)


def test_log_events_speaks_to_the_logger_of_the_package(moorage_lines: Lines) -> None:
    events = Events()
    log_events(events, ServerSettings(log_connections=True))
    events.emit(closed(Cause.IDLE))
    assert [record.name for record in moorage_lines.records] == ["moorage"]
