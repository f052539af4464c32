"""Faults: which exceptions that leave a handler only say that this client is gone.

Owns      the quiet-error rule of the old door.
Promises  quiet only if the request's own TCP state says closed, or its own timeout is set and the innermost
          frame is one of its reads or writes, or our own reader found a line too long.
Refuses   to go by the class of the exception: the same one from a database or a future is a handler error.
Why       ten resets by a load balancer are 170 lines on standard error (measured), and the one traceback
          that matters is among them.
"""

import select
import socket
from types import TracebackType
from typing import Any

from ..errors import TooLarge
from ..events import Cause

__all__ = ["cause_of"]

_CLOSED = 7  # TCP_CLOSE of linux/tcp_states.h


def cause_of(request: Any, error: BaseException | None) -> Cause | None:
    """Why this is no error of the handler; None when it is one."""
    if not isinstance(request, socket.socket) or error is None:
        return None
    if isinstance(error, TooLarge):
        return Cause.TOO_LARGE if _is_its_own(request, error.__traceback__) else None
    if not isinstance(error, OSError):
        return None
    if isinstance(error, TimeoutError) and _is_its_own(request, error.__traceback__):
        return Cause.WRITE_STALLED if _is_write(error.__traceback__) else Cause.IDLE
    return Cause.RESET if _is_gone(request) else None


def _is_gone(request: socket.socket) -> bool:
    """Whether the connection exists no more, in the kernel's own words."""
    try:
        if request.family == socket.AF_UNIX:
            poller = select.poll()
            poller.register(request, 0)
            return any(mask & select.POLLHUP for _, mask in poller.poll(0))
        return request.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSED
    except (OSError, ValueError):
        return False


def _innermost(traceback: TracebackType | None) -> Any:
    """The object whose method raised."""
    if traceback is None:
        return None, ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    first = code.co_varnames[0] if code.co_argcount else ""
    return traceback.tb_frame.f_locals.get(first), code.co_name


def _is_its_own(request: socket.socket, traceback: TracebackType | None) -> bool:
    """Whether the innermost frame is a read or a write of this request: of its file, or of its TLS layer."""
    raiser, _ = _innermost(traceback)
    return raiser is request or getattr(raiser, "_sock", None) is request


def _is_write(traceback: TracebackType | None) -> bool:
    return _innermost(traceback)[1] in {"write", "send", "sendall"}
