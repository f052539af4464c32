"""Accept errors: what an error of `get_request()` means for the loop, and what is said about it.

Owns      the count of failures of one server and the moment of its last log line.
Promises  one log line a second at most, with the count, however many loops fail; one when it is over.
Refuses   to judge by itself: the table of accept errors is in `verdict`.
Why       here the error may come from the program's own `get_request()` (a failed TLS handshake), so an
          unknown one ends the loop only when the listener is of no more use.
"""

import logging
import socket
from typing import Any

from ..acceptor import ODD_IN_A_ROW
from ..deadline import Clock, monotonic
from ..shortage import PAUSE_SECONDS, REPORT_SECONDS
from ..verdict import Verdict, judge

__all__ = ["AcceptErrors"]

_log = logging.getLogger("moorage.socketserver")


class AcceptErrors:
    """The accept errors of one server."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._failures = 0  # since the last line
        self._in_a_row = 0
        self._since: float | None = None
        self._said = float("-inf")

    def met(self, error: OSError, listener: Any) -> float | None:
        """Seconds to pause after this error; raises it when the listener is of no more use."""
        verdict = judge(error)
        if verdict is Verdict.EMPTY:
            return None
        if verdict is Verdict.PAUSE:
            return self._pause(error)
        if verdict is Verdict.FAIL and _is_useless(listener):
            raise error
        self._in_a_row += 1
        _log.debug("a client could not be accepted: %s", error)
        return self._pause(error) if self._in_a_row >= ODD_IN_A_ROW else None

    def over(self) -> None:
        """A client was accepted."""
        self._in_a_row = 0
        if self._since is not None and self._clock() - self._said >= REPORT_SECONDS:
            _log.warning("accepting clients again after %.1f s", self._clock() - self._since)
            self._since = None
            self._failures = 0

    def _pause(self, error: OSError) -> float:
        now = self._clock()
        self._in_a_row = 0
        self._failures += 1
        if self._since is None:
            self._since = now
        if now - self._said >= REPORT_SECONDS:
            _log.warning(
                "cannot accept clients: %s; %d tries failed, tried again every %g s",
                error,
                self._failures,
                PAUSE_SECONDS,
            )
            self._said = now
            self._failures = 0
        return PAUSE_SECONDS


def _is_useless(listener: Any) -> bool:
    """Whether no accept on this listener can ever succeed."""
    if not isinstance(listener, socket.socket):
        return False
    try:
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return True
    return not is_listening and listener.type == socket.SOCK_STREAM
