"""SecureStream: a stream whose bytes may go through TLS.

Owns      ciphertext that the kernel has not taken yet (`_outbox`), and the time of a record that comes in pieces.
Promises  the same waits, deadlines, turns and counters as in plain text (bytes are counted before they are
          encrypted); a `TimeoutError` loses no byte, since what was encrypted is sent before anything else.
Refuses   the handshake's end: who asked for it says what a failure means.
Why       the socket stays a plain one, so that all of `careful` holds for it.  `ssl` is not imported here: a server
          without TLS does not need its 2 MB; a session knows its exception.

The pure twin takes every step here.  The native one has those of a common message in `_native/tls.pxi`, and
comes here for the rest.
"""

import errno
import socket
from typing import TYPE_CHECKING, NoReturn

from ..deadline import monotonic, soonest
from ..errors import ConnectionEnded
from ..events import Cause
from .careful import MSG_WAITALL, CarefulStream
from .stream import MSG_DONTWAIT, MSG_PEEK, READ, RECV_SIZE, WRITE

if TYPE_CHECKING:
    import ssl

    from _typeshed import ReadableBuffer

    from .tls import Session

#: asked for in one receive: four records, which one burst of a peer seldom exceeds
ARRIVING = 64 * 1024
#: plain text that is encrypted at once; so much at most waits in `_outbox`
CHUNK = 64 * 1024
KNOWN_FLAGS = MSG_PEEK | MSG_DONTWAIT | MSG_WAITALL | int(socket.MSG_NOSIGNAL)


class SecureStream(CarefulStream):
    """Plain until `_secure` is called."""

    __slots__ = ()

    def _secure(self, session: "Session") -> None:
        """From now on, when the handshake is done, all bytes go through this session."""
        self._use(session)
        self._try_to_push()  # what the handshake has left: session tickets

    def _shake_hands(self, session: "Session", seconds: float | None) -> None:
        """The handshake, with waits, all of them within so many seconds; the handler's own timeouts rest.

        Raises `ssl.SSLError` when it fails, `TimeoutError` when it is late, or what reading and writing raise.
        """
        timeout, until = self._timeout, self._until
        self._timeout, self._until = None, soonest(until, None if seconds is None else monotonic() + seconds)
        self._refresh()
        try:
            while not self._go_on(session):
                session.feed(self._receive(RECV_SIZE))
        finally:
            self._timeout, self._until = timeout, until
            self._refresh()

    def _go_on(self, session: "Session") -> bool:
        try:
            is_done = session.handshake()
        except session.failure:
            try:
                self._send(session.take(), MSG_DONTWAIT)  # the alert
            except OSError:
                pass
            raise
        if flight := session.take():
            self.sendall(flight)
        return is_done

    # Receiving

    def _recv_secure(self, size: int) -> bytes:
        """As `recv` where nothing is special; for the pure twin."""
        session = self._tls
        if self._outbox or not size:
            return self._recv_special(size, 0)
        data: bytes | None = self._read_fed(size)
        while data is None:
            self._waiting_since = monotonic()
            try:
                arrived = self._recv(ARRIVING) if self._loop is None else self._recv_in_fiber(ARRIVING)
            except BaseException as error:
                self._failed(error)
            self._waiting_since = 0.0
            if arrived is None:
                return self._recv_special(size, 0)
            data = self._decrypted(session, arrived, size)
        return self._received(data)

    def _receive_secure(self, size: int, flags: int = 0) -> bytes:
        """As `_receive`: what was decrypted before, or what one receive brings, after a wait if need be."""
        if flags & MSG_PEEK:
            data = self._receive_record(RECV_SIZE, flags)
            if data:
                self._buffer = bytearray(data)
            return data[:size]
        return self._receive_record(size, flags)

    def _receive_record(self, size: int, flags: int) -> bytes:
        session = self._tls
        is_patient = self._timeout != 0 and not flags & MSG_DONTWAIT
        data = self._read_fed(size)
        while data is None:
            mask = self._push_before_wait()
            if is_patient:
                self._wait(mask)
            try:
                arrived = self._recv(ARRIVING, MSG_DONTWAIT)
            except BlockingIOError as error:
                self._readable = False
                if self._told:
                    return self._end_of_stream()
                if not is_patient:
                    self._failed(error)
            except OSError as error:
                self._failed(error)
            else:
                if len(arrived) < ARRIVING:
                    self._readable = self._sticky
                data = self._decrypted(session, arrived, size)
        return self._received(data)

    def _read_fed(self, size: int) -> bytes | None:
        """Plain text of what was fed before."""
        if not self._tls.more:
            return None
        try:
            data: bytes | None = self._tls.read(size)
        except self._tls.failure as error:
            self._tls_failed(error)
        except ConnectionResetError as error:
            self._failed(error)
        return data

    def _decrypted(self, session: "Session", arrived: bytes, size: int) -> bytes | None:
        try:
            data = session.decrypt(arrived, size)
        except session.failure as error:
            self._tls_failed(error)
        except ConnectionResetError as error:
            self._failed(error)
        if data is None:
            self._note_part()
        return data

    def _received(self, data: bytes) -> bytes:
        self._record_begun = 0.0
        self.bytes_received += len(data)
        return data or self._end_of_stream()

    def _note_part(self) -> None:
        """What came makes no plain text: a part of a record, which has `message_timeout`, as a begun message has.

        Looked at whenever a part comes: else a byte now and then would hold a handler for days, as none of its reads ends.
        """
        now, limit = monotonic(), self._limits.message_timeout
        self._answer(now)
        if not self._tls.is_partial:
            self._record_begun = 0.0
            return
        if not self._record_begun:
            self._record_begun = now
        elif limit is not None and now >= self._record_begun + limit:
            self._expire(Cause.MESSAGE_DEADLINE)
            self._check(False)

    def _answer(self, now: float) -> None:
        """Send what TLS itself wants to be sent; whoever says nothing else is idle, and has to take the answers."""
        session, moved = self._tls, self._moved_at
        if not session.silent_since and not session.is_partial:
            session.silent_since = now
        self._try_to_push()
        self._moved_at = moved
        self._check_outbox()
        if self._loop is not None:
            self._loop.spend()

    def _check_outbox(self) -> None:
        """More than a send leaves there is answers, which a peer may ask for without end."""
        if len(self._outbox) > 2 * CHUNK:
            self._tls_failed(self._tls.failure(1, "the peer does not take what it asks for"))

    # Sending; all of it in our turn

    def _send_secure(self, data: "ReadableBuffer", flags: int = 0) -> int:
        """Encrypt and send without a wait; what the kernel does not take of it waits in `_outbox`."""
        self._push(b"", flags)
        view = memoryview(data).cast("B")[:CHUNK]
        try:
            self._outbox = self._tls.encrypt(view)
        except self._tls.failure as error:
            self._encrypt_failed(error)
        try:
            self._push(b"", flags)
        except BlockingIOError:
            self._writable = False
        return len(view)

    def _push(self, _: object, flags: int) -> int:
        """Send `_outbox`; `BlockingIOError` as long as the kernel does not take all of it.  For `_transmit`: no plain byte."""
        session = self._tls
        if session.has_output:
            self._outbox += session.take()
        while self._outbox:
            count = self._send(self._outbox, flags | MSG_DONTWAIT)
            self._moved_at = monotonic()
            self._outbox = self._outbox[count:]
        return 0

    def _flush(self, flags: int = 0) -> None:
        """Wait until all of `_outbox` is sent."""
        if self._outbox:
            self._transmit(self._push, b"", flags)

    def _send_one(self, data: "ReadableBuffer", flags: int) -> int:
        """As `send`: once it is encrypted it counts as sent, even if the kernel then takes its time."""
        self._check_flags(flags)
        self._take_turn()
        try:
            count = self._transmit(self._send_secure, data, flags)
            try:
                self._flush(flags)
            except (TimeoutError, BlockingIOError) as error:
                if isinstance(error, ConnectionEnded):
                    raise
            return count
        finally:
            self._end_turn()

    def _push_before_wait(self) -> int:
        """Before a wait for the peer, which may be waiting for this; returns what is to be waited for."""
        if self._writing or not (self._outbox or self._tls.has_output):
            return READ
        self._try_to_push()
        self._check_outbox()
        return READ | WRITE if self._outbox else READ

    def _try_to_push(self) -> None:
        """The same, of what can be sent at once; whatever stands in the way is found by the next call."""
        if self._writing:
            return
        self._writing = True
        try:
            self._push(b"", 0)
        except BlockingIOError:
            self._writable = False
        except OSError:  # nobody will read it; what has arrived before that can be read
            self._outbox = b""
        finally:
            self._end_turn()

    def _check_flags(self, flags: int) -> None:
        """Most flags speak of bytes in the kernel, which are not those that a program sees; an SSLSocket takes none."""
        if flags & ~KNOWN_FLAGS:
            raise ValueError(f"flags {flags & ~KNOWN_FLAGS:#x} mean nothing over TLS")

    # Ends

    def _say_end(self) -> bytes:
        """Send close_notify, without a wait; returns what is left to be sent.  Not in the middle of a message."""
        if self._writing:
            return b""
        self._tls.close_notify()
        self._try_to_push()
        left: bytes = self._outbox
        return left

    def _end_writing(self) -> None:
        """Send close_notify, after all that was written."""
        self._take_turn()
        try:
            self._tls.close_notify()
            self._transmit(self._push, b"", 0)
        finally:
            self._end_turn()

    def _encrypt_failed(self, error: "ssl.SSLError") -> NoReturn:
        if self._tls.is_closed:  # by our own shutdown(), as on a plain socket
            raise BrokenPipeError(errno.EPIPE, "this side has said end of stream") from error
        self._tls_failed(error)

    def _tls_failed(self, error: "ssl.SSLError") -> NoReturn:
        """A record is not what it should be: send the alert, and end."""
        self._try_to_push()
        self._expire(Cause.TLS_ERROR)
        self._check(False)
        raise error  # only where nobody answers `_check`
