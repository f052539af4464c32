"""Endpoint: where the numbers of a server are told, and whether it is ready, over HTTP.

Owns      the listeners of the setting `metrics`, and the few words of HTTP/1.0 that a scraper needs.
Promises  GET and HEAD of `/metrics` and `/ready` are answered, the second with 200 or 503; everything else with a
          status that says why; the bounds are those of `answering`.
Refuses   to be a web server: no bodies, no second request on a connection, no TLS.
"""

import logging
import re
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus

from ..deadline import Clock, monotonic
from .answering import Answering, Watch, open_own
from .logs import LOGGER
from .metrics import CONTENT_TYPE

PLAIN = "text/plain; charset=utf-8"
METHODS = ("GET", "HEAD")
_READY = (HTTPStatus.OK, "ready")
_NOT_READY = (HTTPStatus.SERVICE_UNAVAILABLE, "not ready")
#: the end of the head of a request; a bare line feed counts (RFC 9112 2.2)
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.[0-9]\r?\n")


class MetricsEndpoint(Answering):
    """Answers scrapers until `close`; `inherited` are listening sockets of the program before this one."""

    def __init__(
        self,
        address: str,
        watch: Watch,
        tell: Callable[[], bytes],
        is_ready: Callable[[], bool],
        inherited: Sequence[int] = (),
        clock: Clock = monotonic,
    ) -> None:
        self._tell = tell
        self._is_ready = is_ready
        super().__init__(open_own(address, "metrics", inherited), watch, self, clock)

    def admits(self, sock: socket.socket) -> bool:
        """Everybody who can connect."""
        return True

    def reply(self, received: bytes) -> bytes | None:
        """The whole reply to a request, None while its head is not complete."""
        received = received.lstrip(b"\r\n")  # empty lines before it are to be ignored (RFC 9112 2.2)
        if not _END_OF_HEAD.search(received):
            return None
        line = _REQUEST_LINE.match(received)
        if line is None:
            return _say(HTTPStatus.BAD_REQUEST)
        method, target = line[1].decode(), line[2].decode()
        if method not in METHODS:
            return _say(HTTPStatus.METHOD_NOT_ALLOWED, allow=True)
        try:
            reply = self._find(target.partition("?")[0])
        except Exception:  # a bug of ours: the scraper learns that there is one
            logging.getLogger(LOGGER).exception("the request for %s could not be answered", target)
            reply = _say(HTTPStatus.INTERNAL_SERVER_ERROR)
        return reply if method == "GET" else reply[: reply.index(b"\r\n\r\n") + 4]

    def refuse_long(self) -> bytes:
        """The reply to a head above the limit."""
        return _say(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _find(self, path: str) -> bytes:
        if path == "/metrics":
            return _write(HTTPStatus.OK, CONTENT_TYPE, self._tell())
        if path == "/ready":
            return _say(*(_READY if self._is_ready() else _NOT_READY))
        return _say(HTTPStatus.NOT_FOUND, "there is /metrics and /ready")


def _say(status: HTTPStatus, text: str = "", *, allow: bool = False) -> bytes:
    return _write(status, PLAIN, f"{text or status.phrase}\n".encode(), f"Allow: {', '.join(METHODS)}\r\n" * allow)


def _write(status: HTTPStatus, kind: str, body: bytes, more: str = "") -> bytes:
    head = f"HTTP/1.0 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{more}Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode() + body
