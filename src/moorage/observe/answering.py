"""Answering: the few clients of a supervisor's own sockets, none of which can hold it up.

Owns      these listeners and the sockets accepted on them, each for one request and one reply.
Promises  no call blocks and nothing that a client does raises; `MOST_CLIENTS` at once, of which the oldest makes
          room; a request has at most `REQUEST_LIMIT` bytes; `ANSWER_SECONDS` after accept a client is closed,
          however little it has sent, read or closed.
Refuses   to know what is said: the `Dialogue` does.
Why       the supervisor has one thread, and no operator's script or scraper may keep it from replacing a worker.
Note      after the reply it says end of stream and waits for the client's: a socket that is closed with unread
          input sends a reset, which destroys the reply (RFC 1122 4.2.2.13).
"""

import logging
import os
import select
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from ..config import Address, ListenerSettings, parse_address
from ..deadline import Clock, monotonic
from ..errors import BindError
from ..listener import Listener, open_listeners
from .logs import LOGGER

#: an operator, a few scrapers, and some that hang
MOST_CLIENTS = 16
#: a scraper sends some 300 bytes, an operator's command 30
REQUEST_LIMIT = 4096
#: from accept to close; half of the usual time of a scrape (Prometheus `scrape_timeout`: 10 s)
ANSWER_SECONDS = 5.0
#: how long accept is left alone after it failed: the backlog would wake us at once, again and again
PAUSE_SECONDS = 1.0
#: clients that may wait for accept; more would not be served in their time
BACKLOG = 64
SCRATCH = 64 * 1024  # what is discarded at once of what a client sends after its request

READ_MASK = select.EPOLLIN | select.EPOLLRDHUP


class Dialogue(Protocol):
    """What is said to a client; called in the thread that turns the Watch, and must not block."""

    def admits(self, sock: socket.socket) -> bool: ...
    def reply(self, received: bytes) -> bytes | None:
        """The reply to what has come so far; None while the request is not complete."""
        ...

    def refuse_long(self) -> bytes:
        """The reply to a request above the limit."""
        ...


class Timer(Protocol):
    """A call to come; see watch."""

    def cancel(self) -> None: ...


class Watch(Protocol):
    """Who waits for us; see watch."""

    def listen(self, fd: int, call: Callable[[], object]) -> None: ...
    def unlisten(self, fd: int) -> None: ...
    def park(self, fd: int, ready: Callable[[int], None], mask: int) -> None: ...
    def unpark(self, fd: int) -> None: ...
    def call_at(self, when: float, call: Callable[[], object]) -> Timer: ...


def open_own(bind: str, setting: str, inherited: Sequence[int] = ()) -> list[Listener]:
    """Listeners at this address, for this user alone where it is a path; those that were passed on, if they are there.

    `BindError` or `SettingError`, whose sentence names the setting.
    """
    address = parse_address(bind, f"the setting {setting}")
    settings = ListenerSettings(bind=bind, backlog=BACKLOG, unix_mode=0o600)
    try:
        return open_listeners([settings], _PassedOn(address, inherited))
    except BindError as error:
        raise BindError(str(error).replace("`bind`", f"`{setting}`")) from error


class Answering:
    """Answers on these listeners until `close`."""

    def __init__(
        self, listeners: Sequence[Listener], watch: Watch, dialogue: Dialogue, clock: Clock = monotonic
    ) -> None:
        self.listeners = tuple(listeners)
        self.watch = watch
        self.dialogue = dialogue
        self.clock = clock
        self.is_closed = False
        self._clients: dict[_Client, None] = {}  # the oldest first
        self._pause: Timer | None = None
        self._listen()

    def sockets(self) -> list[int]:
        """The listening descriptors, for handing over."""
        return [listener.fileno() for listener in self.listeners]

    def __str__(self) -> str:
        """Where it listens."""
        return ", ".join(map(str, self.listeners))

    def disown(self) -> None:
        """The path of a Unix socket is the next program's now: `close` leaves it."""
        for listener in self.listeners:
            listener.disown()

    def adopt(self) -> None:
        """The program before this one has disowned the path of a socket that was passed on: `close` removes it."""
        for listener in self.listeners:
            listener.adopt()

    def suspend(self) -> None:
        """Leave new clients in the backlog, for the program before this one, which has the same sockets."""
        self._unlisten()

    def resume(self) -> None:
        """Answer again."""
        self._listen()

    def close(self) -> None:
        """Close everything; a client that is being answered at this moment still gets its reply."""
        if self.is_closed:
            return
        self.is_closed = True
        self._unlisten()
        for listener in self.listeners:
            listener.close()
        for client in tuple(self._clients):
            if not client.is_answering:
                client.close()

    def leave_to_parent(self) -> None:
        """In a forked child: close these copies, and touch nothing that is shared with the parent."""
        self.is_closed = True
        for listener in self.listeners:
            listener.close()  # a path stays: it is the parent's
        for client in self._clients:
            client.sock.close()
        self._clients.clear()

    def forget(self, client: "_Client") -> None:
        """This client is closed."""
        self._clients.pop(client, None)

    def _listen(self) -> None:
        self._pause = None
        for listener in self.listeners:
            self.watch.listen(listener.fileno(), partial(self._accept, listener))

    def _unlisten(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for listener in self.listeners:
            self.watch.unlisten(listener.fileno())

    def _accept(self, listener: Listener) -> None:
        """One client; if more wait, the Watch calls again when the others have had their turn."""
        try:
            sock, _ = listener.socket.accept()
        except (BlockingIOError, ConnectionError):  # nobody there after all
            return
        except OSError:  # no descriptor is free, most likely
            self._unlisten()
            self._pause = self.watch.call_at(self.clock() + PAUSE_SECONDS, self._listen)
            return
        sock.setblocking(False)
        if not self.dialogue.admits(sock):
            sock.close()
            return
        if len(self._clients) >= MOST_CLIENTS:
            next(iter(self._clients)).close()
        client = _Client(sock, self)
        self._clients[client] = None
        client.begin()


class _Client:
    """One client: asks, is told, leaves; it is parked with the method for what it does at the time."""

    scratch = bytearray(SCRATCH)  # what arrives here is read by nobody

    def __init__(self, sock: socket.socket, owner: Answering) -> None:
        self.sock = sock
        self.is_answering = False
        self._fd = sock.fileno()
        self._owner = owner
        self._watch = owner.watch
        self._received = bytearray()
        self._reply = memoryview(b"")
        self._timer: Timer | None = None

    def begin(self) -> None:
        self._timer = self._watch.call_at(self._owner.clock() + ANSWER_SECONDS, self.close)
        self._watch.park(self._fd, self._ask, READ_MASK)

    def close(self) -> None:
        """Now; what it was not told yet is lost."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None  # no cycle: it calls us
        self._watch.unpark(self._fd)
        self.sock.close()
        self._owner.forget(self)

    def _ask(self, _mask: int) -> None:
        """Read more of the request."""
        try:
            data = self.sock.recv(REQUEST_LIMIT + 1 - len(self._received))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        if not data:
            self.close()
        elif (reply := self._find_reply()) is not None:
            self._watch.unpark(self._fd)
            self._reply = memoryview(reply)
            if self._send():
                self._watch.park(self._fd, self._tell, select.EPOLLOUT)
        if self._owner.is_closed:  # by what was asked for
            self.close()

    def _find_reply(self) -> bytes | None:
        if len(self._received) > REQUEST_LIMIT:
            return self._owner.dialogue.refuse_long()
        self.is_answering = True
        try:
            return self._owner.dialogue.reply(bytes(self._received))
        except Exception:  # a bug of ours: the supervisor lives on
            logging.getLogger(LOGGER).exception("a request could not be answered")
            return b""
        finally:
            self.is_answering = False

    def _tell(self, _mask: int) -> None:
        """Send more of the reply; a client that takes none of it is closed by its timer."""
        self._send()

    def _send(self) -> bool:
        """Whether some of the reply is left."""
        try:
            self._reply = self._reply[self.sock.send(self._reply) :]
        except BlockingIOError:
            return True
        except OSError:
            self.close()
            return False
        if not self._reply:
            self._leave()
        return bool(self._reply)

    def _leave(self) -> None:
        """Say end of stream, and wait for the client's."""
        self._watch.unpark(self._fd)
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it is gone already
            self.close()
            return
        self._watch.park(self._fd, self._discard, READ_MASK)

    def _discard(self, _mask: int) -> None:
        try:
            count = self.sock.recv_into(self.scratch)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self.close()


class _PassedOn:
    """Listening sockets of the program before this one, of which those are taken that are at this address."""

    def __init__(self, address: Address, fds: Sequence[int]) -> None:
        self._address = address
        self._fds = fds

    def claim(self, bind: str) -> list[int]:
        """Those that are where the setting wants them now; the others are closed."""
        return [fd for fd in self._fds if self._take(socket.socket(fileno=fd))]

    def _take(self, sock: socket.socket) -> bool:
        if _is_at(sock, self._address):
            sock.detach()
            return True
        sock.close()
        return False


def _is_at(sock: socket.socket, address: Address) -> bool:
    found = sock.getsockname()
    if address.kind == "tcp" and isinstance(found, tuple):
        try:
            named = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError):
            return False
        return address.port in (0, found[1]) and found[0] in {sockaddr[0] for *_, sockaddr in named}
    if address.kind == "unix" and sock.family == socket.AF_UNIX:
        path = os.fsdecode(found)
        return path.replace("\0", "@", 1) == address.path or os.path.abspath(path) == os.path.abspath(address.path)
    return address.kind in ("fd", "systemd")  # whoever opened it for us has chosen the address
