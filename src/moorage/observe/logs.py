"""Logs: events as lines of the logger `moorage`.

Owns      the sentence for each event, and which of them are repeated often enough to be limited.
Promises  start, stop, refusals and errors are logged, a client that goes away only at debug level;
          `log_connections` adds a line for each end; no name is ever resolved; what a supervisor says once for all
          its workers each of them says at debug level.
Refuses   to configure logging: `logfile` does, for `serve()` and the command line alone.
"""

import logging
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

from .. import events as happened
from .. import twins
from ..config import ServerSettings
from ..config.address import describe
from ..events import CAUSES, Cause, Event, Events, Phase
from .files import FILES
from .limiter import Limiter
from .supervising import LINES, Line

LOGGER = "moorage"
#: reasons of failed setups that are told apart; a peer that makes up new ones is not to fill the log
MOST_REASONS = 50
_SETUP = frozenset({Phase.PROXY, Phase.TLS})
_FAILED_SETUP = frozenset({Cause.PROXY_ERROR, Cause.TLS_ERROR, Cause.SETUP_DEADLINE})


class Kind(NamedTuple):
    """What makes two lines alike for the limiter."""

    event: type[Event]
    name: str
    level: int
    place: tuple[str, int] | None = None


class LogSubscriber:
    """Logs the events of one server; `close()` ends it."""

    def __init__(
        self,
        events: Events,
        *,
        log_connections: bool = False,
        is_worker: bool = False,
        logger: logging.Logger | None = None,
        limiter: Limiter[Kind] | None = None,
    ) -> None:
        self._logger = logger or logging.getLogger(LOGGER)
        self._log_connections = log_connections
        self._life = logging.DEBUG if is_worker else logging.INFO  # of its start and its stop
        self._limiter = limiter or Limiter()
        self._reasons: set[str] = set()  # of failures of the setup
        self._lines = self._table()
        least = 0 if log_connections else self._logger.getEffectiveLevel()
        ends = [cause for cause, row in happened.CAUSES.items() if row.level >= least]
        self.close = events.subscribe(self, *self._lines, ends=ends)

    def _table(self) -> dict[type[Event], Callable[[Any], None]]:
        """Who has the line of each event."""
        return {
            happened.ServerStarted: self._started,
            happened.ServerSuspended: self._plain(logging.INFO, "accepting is suspended; clients wait in the backlog"),
            happened.ServerResumed: self._plain(logging.INFO, "accepting goes on"),
            happened.ServerStopped: self._stopped,
            happened.DrainStarted: self._drain_started,
            happened.DrainFinished: self._drain_finished,
            happened.AcceptPaused: self._accept_paused,
            happened.AcceptResumed: self._accept_resumed,
            happened.AcceptFailed: self._accept_failed,
            happened.ConnectionRefused: self._refused,
            happened.RefusalObserved: self._refusal_observed,
            happened.SetupFailed: self._setup_failed,
            happened.TlsEstablished: self._tls_established,
            **dict.fromkeys(FILES, self._file_changed),
            happened.ConnectionClosed: self._closed,
            happened.HandlerFailed: self._handler_failed,
            happened.HandlersCut: self._handlers_cut,
            happened.SiblingsLeft: self._siblings_left,
            happened.PoolSaturated: self._pool_saturated,
            happened.HandlerHeldHub: self._handler_held_hub,
            happened.SubscriberRemoved: self._subscriber_removed,
            **{kind: partial(self._supervising, line) for kind, line in LINES.items()},
        }

    def __call__(self, event: Event) -> None:
        self._say_left_out()
        self._lines[type(event)](event)

    # --- the server ------------------------------------------------------------------------------

    def _started(self, event: happened.ServerStarted) -> None:
        where = ", ".join(map(describe, event.addresses))
        which = "native" if twins.NATIVE else "pure"
        self._log(event, self._life, "listening on %s with runner %s (%s)", where, event.runner, which)

    def _stopped(self, event: happened.ServerStopped) -> None:
        self._say_left_out(everything=True)
        self._log(event, self._life, "stopped")

    def _drain_started(self, event: happened.DrainStarted) -> None:
        limit = "with no time limit" if event.timeout is None else f"for at most {event.timeout:.3g} s"
        self._log(event, logging.INFO, "draining %s, %s", _count(event.open, "connection"), limit)

    def _drain_finished(self, event: happened.DrainFinished) -> None:
        if event.cut:
            message = "the drain ended after %.1f s: %s cut"
            self._log(event, logging.WARNING, message, event.seconds, _count(event.cut, "connection"))
        else:
            self._log(event, logging.INFO, "the drain ended after %.1f s: no connection cut", event.seconds)

    # --- accepting -------------------------------------------------------------------------------

    def _accept_paused(self, event: happened.AcceptPaused) -> None:
        message = "accept failed %s: %s; clients wait in the backlog, tried again in %g s"
        self._log(event, logging.ERROR, message, _count(event.failures, "time"), event.error, event.delay)

    def _accept_resumed(self, event: happened.AcceptResumed) -> None:
        self._log(event, logging.INFO, "accept works again after %.1f s", event.paused)

    def _accept_failed(self, event: happened.AcceptFailed) -> None:
        self._log(event, logging.CRITICAL, "accept failed for good: %s", event.error)

    def _refused(self, event: happened.ConnectionRefused) -> None:
        row = CAUSES[event.cause]
        kind = Kind(type(event), event.cause, row.level)
        self._limited(event, kind, "refused %s: %s", describe(event.peer), row.meaning)

    def _refusal_observed(self, event: happened.RefusalObserved) -> None:
        row = CAUSES[event.cause]
        kind = Kind(type(event), event.cause, row.level)
        self._limited(event, kind, "%s goes on, since this is only observed: %s", describe(event.peer), row.meaning)

    def _setup_failed(self, event: happened.SetupFailed) -> None:
        reason = event.reason if event.reason.isprintable() else ascii(event.reason)[1:-1]
        if len(self._reasons) < MOST_REASONS:
            self._reasons.add(reason)
        kind = Kind(type(event), reason if reason in self._reasons else event.cause, CAUSES[event.cause].level)
        message = "connection %d from %s could not be set up: %s: %s"
        self._limited(event, kind, message, event.id, describe(event.peer), event.cause, reason)

    def _tls_established(self, event: happened.TlsEstablished) -> None:
        message = "connection %d from %s speaks %s with %s after %.3f s"
        self._log(
            event, logging.DEBUG, message, event.id, describe(event.peer), event.version, event.cipher, event.seconds
        )

    def _file_changed(self, event: Event) -> None:
        level, sentence = FILES[type(event)]
        self._log(event, level, "%s", sentence(event))

    # --- connections -----------------------------------------------------------------------------

    def _closed(self, event: happened.ConnectionClosed) -> None:
        level = CAUSES[event.cause].level
        if self._log_connections:
            self._log(event, max(level, logging.INFO), "%s", _end_of(event))
        elif self._logger.isEnabledFor(level) and not _is_told_already(event):
            self._limited(event, Kind(type(event), event.cause, level), "%s", _end_of(event))

    def _handler_failed(self, event: happened.HandlerFailed) -> None:
        kind = Kind(type(event), type(event.error).__name__, logging.ERROR, _raised_at(event.error))
        message = "the handler of connection %d from %s failed"
        self._limited(event, kind, message, event.id, describe(event.peer), error=event.error)

    def _handlers_cut(self, event: happened.HandlersCut) -> None:
        message = "%s did not return after their connections were ended:\n%s"
        stacks = "\n".join(event.stacks)
        self._log(event, logging.ERROR, message, _count(len(event.stacks), "handler"), stacks)

    def _siblings_left(self, event: happened.SiblingsLeft) -> None:
        message = "connection %d from %s ended, and %s of its handler did not return:\n%s"
        siblings = _count(len(event.stacks), "sibling")
        self._log(event, logging.ERROR, message, event.id, describe(event.peer), siblings, "\n".join(event.stacks))

    def _pool_saturated(self, event: happened.PoolSaturated) -> None:
        message = "all %s are taken and %s for one: raise `threads`, shorten `idle_timeout`, or turn `wait_for_data` on"
        waiting = _count(event.waiting, "connection") + (" waits" if event.waiting == 1 else " wait")
        self._log(event, logging.WARNING, message, _count(event.threads, "thread"), waiting)

    def _handler_held_hub(self, event: happened.HandlerHeldHub) -> None:
        message = "%s (%s:%d) held the hub for %.3f s%s, and no other connection was served: %s"
        so_far = "" if event.is_over else " so far"
        place = (event.function, event.file, event.line)
        self._log(event, logging.WARNING, message, *place, event.seconds, so_far, event.advice)

    def _subscriber_removed(self, event: happened.SubscriberRemoved) -> None:
        self._log(event, logging.ERROR, "%s raised and gets no more events", event.subscriber, error=event.error)

    def _supervising(self, line: Line, event: Event) -> None:
        self._log(event, line.level(event), "%s", line.sentence(event))

    # --- the lines -------------------------------------------------------------------------------

    def _plain(self, level: int, message: str) -> Callable[[Event], None]:
        return lambda event: self._log(event, level, message)

    def _limited(
        self, event: Event, kind: Kind, message: str, *args: object, error: BaseException | None = None
    ) -> None:
        if self._logger.isEnabledFor(kind.level) and self._limiter.admit(kind):
            self._log(event, kind.level, message, *args, error=error)

    def _log(self, event: Event, level: int, message: str, *args: object, error: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            extra = {"moorage": {"event": type(event).__name__, **_data(event)}}
            self._logger.log(level, message, *args, exc_info=error, extra=extra)

    def _say_left_out(self, everything: bool = False) -> None:
        for kind, count in self._limiter.overdue(everything):
            self._logger.log(
                kind.level, "%d more lines like the last of %s (%s)", count, kind.event.__name__, kind.name
            )


def log_events(events: Events, settings: ServerSettings, *, is_worker: bool = False) -> LogSubscriber:
    """Log the events of a server as its settings say; what becomes of the lines is the program's affair."""
    return LogSubscriber(events, log_connections=settings.log_connections, is_worker=is_worker)


def _is_told_already(event: happened.ConnectionClosed) -> bool:
    """By HandlerFailed, or by SetupFailed."""
    return event.cause is Cause.HANDLER_ERROR or (event.phase in _SETUP and event.cause in _FAILED_SETUP)


def _end_of(event: happened.ConnectionClosed) -> str:
    return (
        f"connection {event.id} from {describe(event.peer)} ended: {event.cause} in phase {event.phase}, "
        f"{event.bytes_received} bytes in, {event.bytes_sent} out, "
        f"{event.seconds:.3f} s ({event.queued:.3f} queued, {event.handled:.3f} handled)"
    )


def _data(event: Event) -> dict[str, object]:
    """The fields of an event as JSON takes them."""
    return {field.name: _value(field.name, getattr(event, field.name)) for field in fields(event)}


def _value(name: str, value: object) -> object:
    if name in ("peer", "local"):
        return describe(value)
    if name == "addresses" and isinstance(value, tuple):
        return [describe(address) for address in value]
    return repr(value) if isinstance(value, BaseException) else value


def _raised_at(error: BaseException) -> tuple[str, int] | None:
    """File and line of the innermost frame, so that different errors of one class are told apart."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return None if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
