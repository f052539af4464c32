"""Closing: how a request is closed without destroying the reply.

Owns      the order: `close_notify`, the end of our side, what is left of the peer's, the descriptor.
Promises  unread input is discarded before the close, within the bounds of the Watch; the worker does not
          wait for it; the request's own object is closed (`fileno() == -1`) when `close()` returns.
Refuses   to linger over a request that still has open files, and over more than the server's limit.
Why       a socket closed with unread input sends a reset, and the peer loses what it had not read (20 of
          20 replies); `SSLSocket.shutdown()` drops the TLS layer, so that no `close_notify` is sent.
"""

import select
import socket
from collections.abc import Callable
from typing import Any

from ..deadline import Deadline
from ..watch import LINGER_BYTES, LINGER_SECONDS
from .engine import Engine
from .listening import has_input, is_tls

__all__ = ["close", "half_close"]


def half_close(request: Any) -> None:
    """Say that no more will be sent."""
    try:
        if is_tls(request):
            _notify(request)
        if isinstance(request, socket.socket):
            socket.socket.shutdown(request, socket.SHUT_WR)
        else:
            request.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the peer is gone already


def close(engine: Engine, request: Any, limit: int) -> None:
    """Close a request that was half closed."""
    if not _is_worth_it(request):
        request.close()
    elif engine.inherited is not None:
        _linger_here(request, LINGER_SECONDS)
        request.close()
    else:
        loop = next(iter(list(engine.loops)), None)
        if loop is None or len(engine.lingering) >= limit:
            _linger_here(request, 0.0)
            request.close()
            return
        sock = socket.socket(request.family, request.type, request.proto, fileno=request.detach())
        if socket.getdefaulttimeout() is not None:
            sock.setblocking(False)
        engine.lingering.add(sock)
        release = _releaser(engine, sock)
        loop.watch.linger(sock, release)
        if loop.is_closed:  # its Watch was closed meanwhile, and may not have seen the socket
            release()


def _notify(request: Any) -> None:
    """Send `close_notify` and do not wait for the peer's."""
    request.settimeout(0.0)
    try:
        request.unwrap()
    except (OSError, ValueError):  # SSLWantReadError: it is sent; ValueError: there is no TLS layer any more
        pass


def _is_worth_it(request: Any) -> bool:
    """Whether the peer may still send, so that a close might reset the connection."""
    if not isinstance(request, socket.socket) or request.fileno() < 0 or getattr(request, "_io_refs", None):
        return False
    try:
        # MSG_DONTWAIT alone would not do: Python waits first, for as long as the socket's timeout.
        return not has_input(request) or socket.socket.recv(request, 1, socket.MSG_PEEK) != b""
    except OSError:
        return False


def _linger_here(request: socket.socket, seconds: float) -> None:
    """Discard what is there and, in a child process, what comes within so many seconds."""
    deadline = Deadline(seconds)
    poller = select.poll()
    poller.register(request, select.POLLIN)
    left = LINGER_BYTES
    try:
        while left > 0 and poller.poll(1000 * (deadline.remaining() or 0.0)):
            data = socket.socket.recv(request, left)
            if not data:
                return
            left -= len(data)
    except OSError:
        pass


def _releaser(engine: Engine, sock: socket.socket) -> Callable[[], None]:
    """Close and forget; a second call does nothing."""

    def release() -> None:
        sock.close()
        engine.lingering.discard(sock)

    return release
