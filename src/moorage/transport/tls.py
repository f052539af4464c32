"""Session: one TLS conversation, bytes in and bytes out.

Owns      the SSL object with its two memory buffers, and where the records of the peer end.
Promises  it never waits and knows no socket; a stream that ends without close_notify ends as one that has it,
          as `SSLSocket` does by default, but in the middle of a record that is a reset; after either, what was
          not sent yet can still be encrypted.
Refuses   to renegotiate, which is the context's affair; and `SSLSocket`: its `shutdown()` drops the TLS layer,
          and the next write leaves in clear text.
Why       the socket stays a plain one: deadlines, drains and fibers work on it as on every other.

Two threads may use it at once: one reads, one writes, and OpenSSL's own object is not made for that.
"""

import errno
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .hello import ClientHello

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

RECORD = 16 * 1024  # plain text in one record, at most: RFC 8446 5.1
#: bytes that come and make no plain text, and answers to them that the peer did not wait for: OpenSSL has no bound of its
#: own on the KeyUpdates of TLS 1.3, each of which it answers.  A record and a peer's tickets are half of it
MOST_SILENT = 64 * 1024
HEADER = 5  # bytes in front of each record; its length is in the last two
WANTS_MORE = ssl.SSLWantReadError


@dataclass(frozen=True)
class TlsInfo:
    """What TLS says of a connection: `conn.tls`.

    version           such as "TLSv1.3"
    cipher            its name, such as "TLS_AES_256_GCM_SHA384"
    server_name       whom the client asked for (SNI); None when it did not say
    alpn              the protocol that both agreed on; None without
    peer_certificate  as `ssl.SSLSocket.getpeercert()` has it; None when there is none, or nobody verified it
    """

    version: str
    cipher: str
    server_name: str | None
    alpn: str | None
    peer_certificate: dict[str, Any] | None


class Session:
    """One TLS conversation; first `handshake` until it is done, then `read` and `write`."""

    __slots__ = (
        "_ahead", "_feed", "_for_name", "_hello", "_incoming", "_info", "_is_at_end", "_is_ready", "_left", "_lock", "_object",
        "_outgoing", "_read", "_silent", "_start", "_take", "_write", "is_closed", "more", "server_name", "silent_since",
    )  # fmt: skip

    #: what a failure of the conversation is raised as
    failure = ssl.SSLError

    def __init__(
        self, context: ssl.SSLContext, *, server_hostname: str | None = None, server_side: bool = True
    ) -> None:
        # Guards the SSL object and what is fed to it.  Re-entrant, since a signal handler may close the connection.
        self._lock = threading.RLock()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._hello: ClientHello | None = ClientHello() if server_side else None
        self._for_name = getattr(context, "for_name", None)  # of our certificates: the context for a name
        #: whom the client asked for
        self.server_name: str | None = server_hostname
        #: whether `read` may find something without being fed before
        self.more = False
        self._info: TlsInfo | None = None
        self._is_ready = False  # the handshake is done
        self._is_at_end = False  # of what is fed
        #: whether we have said end of stream
        self.is_closed = False
        self._ahead = b""  # plain text read before it was asked for
        self._left = 0  # bytes missing of the record that has begun
        self._start = b""  # of a record whose header is not whole
        self._silent = 0  # bytes fed since the last plain text
        #: when the first record came that carried no data, of those after the last plain text; 0.0 when there is none
        self.silent_since = 0.0
        # bound once: each message needs all four
        self._feed, self._take = self._incoming.write, self._outgoing.read
        self._read, self._write = self._object.read, self._object.write

    @property
    def has_input(self) -> bool:
        """Whether plain text, or a part of a record, is here."""
        if not self._lock.acquire(blocking=False):
            return True  # somebody is reading it, or writing
        try:
            return bool(self.more or self.is_partial or self._ahead or self._incoming.pending or self._object.pending())
        finally:
            self._lock.release()

    @property
    def is_partial(self) -> bool:
        """Whether the last record is not whole yet."""
        return bool(self._left or self._start)

    @property
    def has_output(self) -> bool:
        """Whether `take` has anything to send."""
        return self._outgoing.pending > 0

    @property
    def info(self) -> TlsInfo:
        """What was agreed on; after the handshake."""
        with self._lock:
            if self._info is None:
                made = self._object
                cipher = made.cipher()
                self._info = TlsInfo(
                    made.version() or "",
                    cipher[0] if cipher else "",
                    self.server_name,
                    made.selected_alpn_protocol(),
                    made.getpeercert() or None,
                )
            return self._info

    def handshake(self) -> bool:
        """Go on with what was fed; True when it is done.

        Raises `ssl.SSLError` when it fails, at the end of the stream too; then `take` may have the alert for the peer.
        """
        with self._lock:
            try:
                self._object.do_handshake()
            except WANTS_MORE:
                if not self._is_at_end:
                    return False
                self._incoming.write_eof()
                self._object.do_handshake()  # which says so
            if not self._is_ready:
                self._is_ready = True
                if held := self._incoming.read():  # what came behind the last flight, from the start of a record on
                    self._feed(held)
                    self._count(held)
                    self.more = True
            return True

    def feed(self, data: bytes) -> None:
        """Take ciphertext that has arrived; b"" is the end of the stream."""
        with self._lock:
            if not data:
                self._is_at_end = self.more = True
                return
            if self._hello is not None:
                hello = self._hello.feed(data)
                if hello is None:
                    return
                self.server_name = self._hello.server_name
                if self._for_name is not None:  # before OpenSSL has seen a byte
                    self._object.context = self._for_name(self.server_name)
                data, self._hello = hello, None
            self._feed(data)
            if self._is_ready:
                self._count(data)
                self.more = True

    def read(self, size: int) -> bytes | None:
        """Up to `size` bytes of plain text, of one record; b"" at the end of the stream; None: feed it first.

        Raises `ConnectionResetError` when the stream has ended in the middle of a record.
        """
        with self._lock:
            return self._read_on(size)

    def decrypt(self, data: bytes, size: int) -> bytes | None:
        """`feed` and `read` in one."""
        with self._lock:
            if not data:
                self._is_at_end = True
            else:
                self._feed(data)
                if self._left or self._start or len(data) < HEADER or HEADER + (data[3] << 8 | data[4]) != len(data):
                    self._count(data)
            text = self._read_on(size)
            if text is None:
                self._silent += len(data)
            elif self._silent:
                self._silent, self.silent_since = 0, 0.0
            if self._silent > MOST_SILENT or self._outgoing.pending > MOST_SILENT:
                raise ssl.SSLError(1, "too many records that carry no data")
            return text

    def write(self, data: "ReadableBuffer") -> None:
        """Encrypt; the result is in `take`."""
        with self._lock:
            view = memoryview(data).cast("B")
            while view:
                view = view[self._write(view) :]

    def encrypt(self, data: "ReadableBuffer") -> bytes:
        """`write` and `take` in one."""
        with self._lock:
            if type(data) is bytes and 0 < len(data) <= RECORD:
                self._write(data)
            else:
                self.write(data)
            return self._take()

    def take(self) -> bytes:
        """Ciphertext to send; b"" when there is none."""
        with self._lock:
            return self._take()

    def close_notify(self) -> None:
        """Say end of stream, once; what the peer still sends can be read."""
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            # `unwrap` says it, and then looks for the peer's own: plain text that it finds there is an error to it
            held = self._incoming.read()
            while count := self._object.pending():
                self._ahead += self._read(count)
            try:
                self._object.unwrap()
            except ssl.SSLError:  # nothing there, as we took care of; or the conversation has failed before
                pass
            if held:
                self._feed(held)
            self.more = self.more or bool(held or self._ahead)

    def _read_on(self, size: int) -> bytes | None:
        if self._ahead:
            taken, self._ahead = self._ahead[:size], self._ahead[size:]
            return taken
        try:
            data = self._read(min(size, RECORD))
        except WANTS_MORE:
            self.more = self._is_at_end
            if self._is_at_end and self.is_partial:
                raise ConnectionResetError(errno.ECONNRESET, "the stream ended in the middle of a TLS record") from None
            return b"" if self._is_at_end else None
        except ssl.SSLZeroReturnError:  # the peer's close_notify, after our own
            data = b""
        self.more = len(data) == size or not data or self._incoming.pending > 0
        return data

    def _count(self, data: bytes) -> None:
        """Note where the last record of these bytes ends."""
        if self._start:
            data = self._start + data
        at, size = self._left, len(data)
        while at + HEADER <= size:
            at += HEADER + (data[at + 3] << 8 | data[at + 4])
        self._left = max(0, at - size)
        self._start = data[at:] if at < size else b""
