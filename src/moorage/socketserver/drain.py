"""Drain: waiting for the handlers that are at work, for so long and no longer.

Owns      who is at work: threads, and the request of each.
Promises  an idle client does not keep `server_close()`: a connection that has been quiet is told end of
          stream; at the deadline the rest is cut and the stacks of what does not end are logged.
Refuses   to close a request: its handler does that.
Why       `server_close()` of the standard library waits for ever for one idle client.
"""

import logging
import socket
import struct
import sys
import threading
import traceback
from typing import Any

from ..deadline import Clock, Deadline, monotonic
from .listening import has_input, is_tls

__all__ = ["Busy", "Quiet", "quiet_needed"]

QUIET_SECONDS = 1.0  # as `drain_quiet`: told at once, 92 of 110 live conversations broke, so none
LOOK_SECONDS = 0.1  # between two looks at who is quiet, while draining only
CUT_SECONDS = 1.0  # for handlers to notice that they were cut
LAST_PART = 0.1  # of the window, in which nobody needs to be quiet any more
#: tcpi_last_data_sent and tcpi_last_data_recv of linux/tcp.h, in milliseconds
_TCP_INFO = struct.Struct("44xI4xI")

_log = logging.getLogger("moorage.socketserver")


class Busy:
    """The threads of one server that run handlers."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._at_work: dict[threading.Thread, tuple[Any, bool]] = {}
        self._left = threading.Event()
        self._is_draining = False
        #: as the server's setting, which may be changed at any time
        self.drain_timeout: float | None = 30.0

    def enter(self, thread: threading.Thread, request: Any, *, daemon: bool) -> None:
        """This thread begins to handle this request; nobody waits for a daemon."""
        self._at_work[thread] = (request, daemon)

    def leave(self, thread: threading.Thread) -> None:
        """This thread has done its work."""
        self._at_work.pop(thread, None)
        if self._is_draining:
            self._left.set()

    def is_here(self) -> bool:
        """Whether the calling thread runs a handler."""
        return threading.current_thread() in self._at_work

    def threads(self) -> list[threading.Thread]:
        """The threads at work that are waited for."""
        return [thread for thread, (_, daemon) in self._at_work.copy().items() if not daemon]

    def drain(self) -> list[threading.Thread]:
        """Wait for `drain_timeout` at most; returns the threads that are still at work."""
        if not self._others():
            return []
        deadline = Deadline(self.drain_timeout, self._clock)
        self._is_draining = True
        quiet = Quiet(self._clock)
        while self._others() and not deadline.is_due():
            for thread in self._others():
                quiet.tell(thread, self._request_of(thread), quiet_needed(deadline, self.drain_timeout))
            self._left.wait(min(LOOK_SECONDS, deadline.remaining() or LOOK_SECONDS))
            self._left.clear()
        return self._cut()

    def _others(self) -> list[threading.Thread]:
        own = threading.current_thread()
        return [thread for thread in self.threads() if thread is not own and thread.is_alive()]

    def _request_of(self, thread: threading.Thread) -> Any:
        return self._at_work.get(thread, (None, False))[0]

    def _cut(self) -> list[threading.Thread]:
        """End the connections that are left, and say where the handlers are that do not end."""
        if not self._others():
            return []
        deadline = Deadline(CUT_SECONDS, self._clock)
        for thread in self._others():
            _shut(self._request_of(thread), socket.SHUT_RDWR)
        while self._others() and not deadline.is_due():
            self._left.wait(deadline.remaining())
            self._left.clear()
        left = self._others()
        for thread in left:
            _log.warning("%s still runs after %s s:\n%s", thread.name, self.drain_timeout, _stack_of(thread))
        return left


class Quiet:
    """Tells quiet connections end of stream, once; `key` is the same for the same connection."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._since: dict[Any, float] = {}  # when it was first seen with nothing to read
        self._told: set[Any] = set()

    def tell(self, key: Any, request: Any, needed: float) -> None:
        """End the stream of this request if no byte has moved for so many seconds and none is unread."""
        if key in self._told or not isinstance(request, socket.socket):
            return
        if _has_unread(request):
            self._since.pop(key, None)
        elif self._quiet_for(key, request) >= needed:
            self._told.add(key)
            _shut(request, socket.SHUT_RD)

    def _quiet_for(self, key: Any, request: socket.socket) -> float:
        now = self._clock()
        since = self._since.setdefault(key, now)
        try:
            info = request.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            return float(min(_TCP_INFO.unpack(info))) / 1000
        except (OSError, struct.error):  # no TCP: only what was seen since the drain began counts
            return now - since


def quiet_needed(deadline: Deadline, timeout: float | None) -> float:
    """How long a connection must have been quiet: in the last part of the window no more at all."""
    remaining = deadline.remaining()
    return QUIET_SECONDS if remaining is None or remaining > LAST_PART * (timeout or 0.0) else 0.0


def _has_unread(request: socket.socket) -> bool:
    """Whether anything is unread, an end of stream included."""
    try:
        return bool(is_tls(request) and request.pending()) or has_input(request)  # type: ignore[attr-defined]  # is_tls knows
    except (OSError, ValueError):
        return True


def _shut(request: Any, how: int) -> None:
    try:
        socket.socket.shutdown(request, how)  # SSLSocket.shutdown() would drop the TLS layer
    except (OSError, TypeError):
        pass


def _stack_of(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""
