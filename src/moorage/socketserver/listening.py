"""Listening: what is done to a program's listening socket, and to what it accepts.

Owns      the last listener seen, because `server.socket` may be replaced at any time.
Promises  a bigger backlog where the program chose none, keepalive that accepted sockets inherit, a
          listener that never blocks in a serve loop, no TLS handshake in the accept thread.
Refuses   to change what the program set itself, and the timeout that Python shows for the listener.
"""

import math
import os
import select
import socket
import socketserver as stdlib
import sys
from typing import Any

__all__ = ["Listening", "has_input", "is_tls", "shake_hands"]

#: what is set where the program's class still has the standard library's 5
BACKLOG = 2048
#: marks the timeout that is ours: programs do not set such fractions of a second
MARK = 1e-6


class Listening:
    """The state of one server's listener."""

    def __init__(self) -> None:
        self._seen: Any = None
        self._is_for_loop = False
        self._mark = 0.0
        #: the listener is TLS-wrapped, and its handshakes are ours to make
        self.defers_handshake = False

    def prepare(self, server: Any, *, in_loop: bool, setup_timeout: float | None) -> None:
        """Make the listener fit, once for each socket that the program puts there.

        setup_timeout  for a handshake in the program's own `get_request()`; None where it has none
        """
        sock: Any = getattr(server, "socket", None)
        if sock is self._seen and in_loop <= self._is_for_loop:
            return
        self.defers_handshake = self.defers_handshake and sock is self._seen
        self._seen, self._is_for_loop = sock, in_loop
        if not isinstance(sock, socket.socket) or sock.fileno() < 0 or sock.type != socket.SOCK_STREAM:
            return
        if in_loop:
            os.set_blocking(sock.fileno(), False)  # of the descriptor alone: gettimeout() stays what it was
        if getattr(sock, "do_handshake_on_connect", False):  # an SSLSocket
            vars(sock)["do_handshake_on_connect"] = False
            self.defers_handshake = True
        elif setup_timeout is not None and type(sock) is socket.socket:
            self._mark = setup_timeout + MARK
            sock.__class__ = _marking(self._mark)
        _set_options(server, sock)

    def admit(self, request: Any) -> None:
        """Take back the timeout that a handshake in the program's `get_request()` was given."""
        if isinstance(request, socket.socket):
            timeout = request.gettimeout()
            if timeout is not None and math.isclose(timeout, self._mark, abs_tol=MARK / 10):
                request.settimeout(socket.getdefaulttimeout())


def is_tls(sock: Any) -> bool:
    """Whether this is an SSLSocket; where nobody imported `ssl` there are none."""
    ssl = sys.modules.get("ssl")
    return ssl is not None and isinstance(sock, ssl.SSLSocket)


def has_input(sock: socket.socket) -> bool:
    """Whether a read would return at once, with data, an end or an error."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def shake_hands(request: Any, timeout: float | None) -> None:
    """Make the handshake that was left out at accept; raises `OSError`."""
    before = request.gettimeout()
    request.settimeout(timeout)
    request.do_handshake()  # its timeout is for the whole handshake
    request.settimeout(before)


def _marking(mark: float) -> type[socket.socket]:
    """A class of listeners whose accepted sockets have this timeout, until `admit` takes it back.

    Programs that wrap in their own `get_request()` call `self.socket.accept()`: there is no hook of
    `socketserver` between that call and the handshake.  A plain socket can be turned into one of these,
    for the layouts are the same.
    """

    class Listener(socket.socket):
        __slots__ = ()

        def accept(self) -> tuple[socket.socket, Any]:
            sock, addr = super().accept()
            if sock.gettimeout() is None:
                sock.settimeout(mark)
            return sock, addr

    return Listener


def _set_options(server: Any, sock: socket.socket) -> None:
    if _owner_of(server, "request_queue_size") is stdlib.TCPServer and _is_listening(sock):
        sock.listen(BACKLOG)  # on a listening socket this only changes the number
    keepalive = server.keepalive
    is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
    if isinstance(keepalive, tuple) and is_tcp and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
        idle, interval, count = keepalive
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)


def _is_listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _owner_of(server: Any, name: str) -> Any:
    """The class that has this attribute; None when the instance has it."""
    if name in vars(server):
        return None
    return next((cls for cls in type(server).__mro__ if name in vars(cls)), None)
