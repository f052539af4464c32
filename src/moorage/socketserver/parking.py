"""Parking: connections that wait for their first byte without a thread, and those that live too long.

Owns      the wait between `verify_request()` and `process_request()` under `wait_for_data`, and the end at
          `lifetime`; both are off by default.
Promises  both happen in the thread of the loop, as the hooks do; a request that is closed is left alone.
Refuses   datagrams, and anything that is no socket.
"""

import select
import socket
import weakref
from collections.abc import Callable
from typing import Any

from ..deadline import monotonic
from .loop import Loop

__all__ = ["limit_life", "park"]


def park(loop: Loop, request: socket.socket, timeout: float | None, ready: Callable[[bool], None]) -> None:
    """Call `ready` once, with whether there is something to read: data or an end."""
    fd = request.fileno()

    def decide(has_data: bool) -> None:
        loop.watch.unpark(fd)
        if timer is not None:
            timer.cancel()
        ready(has_data)

    timer = None if timeout is None else loop.watch.call_at(monotonic() + timeout, lambda: decide(False))
    loop.watch.park(fd, lambda mask: decide(bool(mask & (select.EPOLLIN | select.EPOLLRDHUP))))


def limit_life(loop: Loop, request: Any, seconds: float) -> None:
    """Cut this request after so many seconds, unless it is closed by then."""
    if isinstance(request, socket.socket):
        look = weakref.ref(request)
        loop.watch.call_at(monotonic() + seconds, lambda: _cut(look()))


def _cut(request: socket.socket | None) -> None:
    if request is not None:
        try:
            socket.socket.shutdown(request, socket.SHUT_RDWR)
        except OSError:
            pass
