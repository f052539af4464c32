"""Counting: writes what a worker's events say into its row of the scoreboard.

Owns      which event counts as what.
Promises  every connection and every refusal is counted once; one subscription, a few stores for each connection
          and nothing for each message.
Refuses   to know what the numbers are for: those who read the scoreboard do.
"""

from collections.abc import Callable
from typing import Any

from ..events import (
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
from .scoreboard import CELL_OF, Row

_OPEN, _ACCEPTED = CELL_OF["open"], CELL_OF["accepted"]
_RECEIVED, _SENT = CELL_OF["bytes_received"], CELL_OF["bytes_sent"]
_LASTED, _QUEUED, _HANDLED = "connection_seconds", "queued_seconds", "handler_seconds"
_ENDED = {cause: CELL_OF[f"ended:{cause}"] for cause in Cause}

#: events that count one, whatever they say
_PLAIN: dict[type[Event], str] = {
    HandlerFailed: "handler_errors",
    PoolSaturated: "saturated",
    HandlerHeldHub: "held_hub",
    SubscriberRemoved: "subscribers_removed",
    TlsEstablished: "tls_handshakes",
    CertificatesRejected: "certificates_rejected",
    RulesRejected: "rules_rejected",
}


class Counting:
    """Counts in this row what these events say, until `close`."""

    def __init__(self, events: Events, row: Row) -> None:
        self._row = row
        self._cells = row.cells
        self._observe = row.observe
        self._calls: dict[type[Event], Callable[[Any], None]] = {
            ConnectionOpened: self._opened,
            ConnectionClosed: self._closed,
            ConnectionRefused: self._refused,
            RefusalObserved: self._observed,
            AcceptPaused: self._paused,
            HandlersCut: self._cut,
            SiblingsLeft: self._left,
            **dict.fromkeys(_PLAIN, self._plain),
        }
        self.close = events.subscribe(self._count, *self._calls)

    def _count(self, event: Event) -> None:
        self._calls[type(event)](event)

    def _opened(self, _event: ConnectionOpened) -> None:
        cells = self._cells
        cells[_ACCEPTED] += 1
        cells[_OPEN] += 1

    def _closed(self, event: ConnectionClosed) -> None:
        # An addition is whole only while nothing is called between its load and its store (see scoreboard), and an
        # attribute may be a call: so what is added is looked up before.
        cells, ended, received, sent = self._cells, _ENDED[event.cause], event.bytes_received, event.bytes_sent
        cells[ended] += 1
        cells[_OPEN] -= 1
        cells[_RECEIVED] += received
        cells[_SENT] += sent
        self._observe(_LASTED, event.seconds)
        self._observe(_QUEUED, event.queued)
        if event.phase is Phase.HANDLER:
            self._observe(_HANDLED, event.handled)

    def _refused(self, event: ConnectionRefused) -> None:
        self._row.add(f"refused:{event.cause}")

    def _observed(self, event: RefusalObserved) -> None:
        self._row.add(f"observed:{event.cause}")

    def _paused(self, event: AcceptPaused) -> None:
        self._row.add("accept_pauses", event.failures)

    def _cut(self, event: HandlersCut) -> None:
        self._row.add("handlers_cut", len(event.stacks))

    def _left(self, event: SiblingsLeft) -> None:
        self._row.add("siblings_left", len(event.stacks))

    def _plain(self, event: Event) -> None:
        self._row.add(_PLAIN[type(event)])
