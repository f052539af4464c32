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
from types import FrameType, TracebackType
from typing import Any

from ..errors import TooLarge
from ..events import Cause
from . import rfile, wfile

__all__ = ["cause_of"]

_CLOSED = 7  # TCP_CLOSE of linux/tcp_states.h
#: the modules whose functions read and write a request, which is their first argument or its `_sock`
FILES = {"socket", "ssl", rfile.__name__, wfile.__name__}


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


def _innermost(traceback: TracebackType | None) -> FrameType | None:
    """The frame that raised."""
    if traceback is None:
        return None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame


def _is_its_own(request: socket.socket, traceback: TracebackType | None) -> bool:
    """Whether the innermost frame is a read or a write of this request: of its file, or of its TLS layer."""
    frame = _innermost(traceback)
    if frame is None or frame.f_globals.get("__name__") not in FILES or not frame.f_code.co_argcount:
        return False
    raiser = frame.f_locals.get(frame.f_code.co_varnames[0])
    return raiser is request or getattr(raiser, "_sock", None) is request


def _is_write(traceback: TracebackType | None) -> bool:
    frame = _innermost(traceback)
    return frame is not None and (
        frame.f_globals.get("__name__") == wfile.__name__ or frame.f_code.co_name in {"write", "send", "sendall"}
    )
