"""Clients that speak TLS, with the same words as `Client`.

Owns      the handshake, in a thread of its own: a client may have to wait for its turn before anybody answers,
          and speaks meanwhile as it would in plain text.
Promises  an end of stream is one only by close_notify, a bare end raises `Truncated`; the end of what is sent
          (`say_no_more`) is said by close_notify, and receiving goes on.
Why       an `SSLObject` over buffers: `SSLSocket.unwrap` waits for the peer, and throws away what still comes.
"""

import contextlib
import functools
import select
import socket
import ssl
import threading
import time
from typing import Any

from .certificates import client_context
from .client import CHUNK, Client

__all__ = ["NAME", "TlsClient", "Truncated", "trusting"]

NAME = "localhost"  # whom clients ask for
RECORD = 17_000  # a record of the largest size, with what is around it
TICKETS = 4096  # of TLS 1.3, which nobody reads; unread they would make a reset of a close
PATIENCE = 2.0  # for tickets, and for the handshake of a client that leaves when it has something to say still


@functools.cache
def trusting() -> ssl.SSLContext:
    """What clients use when nothing else is said."""
    return client_context()


class Truncated(ConnectionError):
    """The stream ended without close_notify."""


class TlsClient(Client):
    """One client over TLS; in plain text until `secure()` if it is not to be `secured` at once."""

    def __init__(
        self,
        address: Any,
        receive_buffer: int | None = None,
        *,
        context: ssl.SSLContext | None = None,
        name: str | None = NAME,
        secured: bool = True,
    ) -> None:
        self._session: ssl.SSLObject | None = None
        self._thread: threading.Thread | None = None
        super().__init__(address, receive_buffer)
        if secured:
            self.secure(context, name)

    # The handshake

    def secure(self, context: ssl.SSLContext | None = None, name: str | None = NAME) -> None:
        """Begin with TLS."""
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._lock = threading.Lock()  # guards the session, its buffers and `_plain`
        self._sending = threading.Lock()  # held by who sends, and taken before `_lock`; guards `_queued` and `_mute`
        self._settled = threading.Event()  # the handshake is over
        self._failure: OSError | None = None  # what every receiving call raises
        self._queued: list[bytes] | None = []  # said before the end of the handshake
        self._mute = False  # nothing more is to be sent
        self._plain = b""  # received and not yet asked for
        self._ended = False  # the peer has said close_notify
        self._session = (context or trusting()).wrap_bio(self._in, self._out, server_hostname=name)
        self._thread = threading.Thread(target=self._shake_hands)
        self._thread.start()

    @property
    def session(self) -> ssl.SSLObject:
        """What TLS says of itself, when the handshake is done."""
        assert self._session is not None
        self.wait_for_handshake()
        return self._session

    def _shake_hands(self) -> None:
        try:
            while not self._go_on():
                data = super().recv(CHUNK)
                if not data:
                    raise Truncated("in the handshake")
                self._in.write(data)
            self._await_tickets()
            with self._sending:
                queued, self._queued = self._queued or [], None
                self._settled.set()
                for data in queued:
                    self._encrypt(data)
                if self._mute:
                    self._say_goodbye()
        except OSError as error:
            self._failure = self._failure or error
        self._settled.set()

    def _go_on(self) -> bool:
        assert self._session is not None
        try:
            self._session.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False
        finally:
            super().sendall(self._out.read())  # an alert, too

    def _await_tickets(self) -> None:
        """Of TLS 1.3; by then the server, too, knows that the handshake is done, and a close leaves nothing unread."""
        assert self._session is not None
        if self._session.version() == "TLSv1.3" and select.select([self], [], [], PATIENCE)[0]:
            self._in.write(super().recv(CHUNK))

    def wait_for_handshake(self) -> None:
        """Until it is done; raises what went wrong."""
        assert self._settled.wait(self.gettimeout()), "no handshake"
        if self._failure is not None:
            raise self._failure

    # Sending

    def sendall(self, data: Any, flags: int = 0) -> None:
        if self._session is None:
            return super().sendall(data, flags)
        with self._sending:
            if self._queued is None:
                self._encrypt(bytes(data))
            elif self._failure is None:
                self._queued.append(bytes(data))
            else:
                raise self._failure
        return None

    def send(self, data: Any, flags: int = 0) -> int:
        self.sendall(data, flags)
        return len(data)

    def say_no_more(self) -> None:
        if self._session is None:
            return super().say_no_more()
        with self._sending:
            self._mute = True
            if self._queued is None:
                self._say_goodbye()
        return None

    def _encrypt(self, data: bytes) -> None:
        assert self._session is not None
        view = memoryview(data)
        while view:
            with self._lock:
                self._session.write(view[:CHUNK])
                encrypted = self._out.read()
            super().sendall(encrypted)
            view = view[CHUNK:]

    def _say_goodbye(self) -> None:
        """Send close_notify; before it, take what is here: OpenSSL would call it an error, and the end."""
        assert self._session is not None
        with self._lock:
            while self._decrypt():
                pass
            with contextlib.suppress(ssl.SSLError):  # the answer to it is not here yet
                self._session.unwrap()
            encrypted = self._out.read()
        super().sendall(encrypted)

    # Receiving

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self._session is None:
            return super().recv(size, flags)
        self.wait_for_handshake()
        while not self._has_something():
            self._feed(size)
        with self._lock:
            data, self._plain = self._plain[:size], self._plain[size:]
            return data

    def hears_nothing(self, seconds: float) -> bool:
        if self._session is None:
            return super().hears_nothing(seconds)
        until = time.monotonic() + seconds
        if not self._settled.wait(seconds):
            return True
        while self._failure is None and not self._has_something():
            if not select.select([self], [], [], max(0.0, until - time.monotonic()))[0]:
                return True
            with contextlib.suppress(OSError):  # told to the next who receives
                self._feed(RECORD)
        return False

    def _has_something(self) -> bool:
        """Whether a byte or the end is here."""
        with self._lock:
            if not self._plain and not self._ended:
                self._decrypt()
            return bool(self._plain or self._ended)

    def _decrypt(self) -> bool:
        """Take what is here; whether there was something."""
        assert self._session is not None
        if self._ended:
            return False
        try:
            data = self._session.read(CHUNK)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLZeroReturnError:
            data = b""
        self._plain += data
        self._ended = not data
        return True

    def _feed(self, size: int) -> None:
        try:
            data = super().recv(max(size, RECORD))
            if not data:
                raise Truncated("no close_notify before the end of the stream")
        except TimeoutError:
            raise
        except OSError as error:
            self._failure = error
            raise
        with self._lock:
            self._in.write(data)

    # Leaving

    def close(self) -> None:
        if self._session is not None and self.fileno() >= 0:
            if self._queued:
                self._settled.wait(PATIENCE)
            if self._queued is None and self._failure is None:
                self._leave_politely()
            self._end_handshake()
        super().close()

    def _leave_politely(self) -> None:
        self.setblocking(False)
        with contextlib.suppress(OSError):
            super().recv(TICKETS)
        with contextlib.suppress(OSError), self._sending:
            if not self._mute:
                self._say_goodbye()

    def reset(self) -> None:
        if self._session is not None:
            self._end_handshake()
            self._session = None  # nothing is said
        super().reset()

    def abandon(self) -> None:
        self._session = None
        super().close()

    def _end_handshake(self) -> None:
        """Its thread is over; what waits in the kernel keeps a descriptor open."""
        if not self._settled.is_set():
            with contextlib.suppress(OSError):
                super().shutdown(socket.SHUT_RD)
        if self._thread is not threading.current_thread() and self._thread is not None:
            self._thread.join()
