"""ClientHello: whom a TLS client asks for, read before OpenSSL sees a byte.

Owns      the bytes of the first message, until it is whole.
Promises  whatever the bytes are, the same bytes come out, and OpenSSL alone says what is wrong with them; save for
          a server name with a byte above 127, which is refused here.  A name is of printable ASCII, so that it
          can stand in a log.
Refuses   to hold back more than `LARGEST`.
Why       `SSLContext.sni_callback` would tell the name; but CPython prints a traceback, before it calls us, for each
          name with a byte above 127, and so every stranger could fill the log (3.11 to 3.13).
"""

import ssl

LARGEST = 64 * 1024  # a hello has some hundred bytes, with post-quantum keys some thousand
RECORD_HEADER, MESSAGE_HEADER = 5, 4  # RFC 8446 5.1, 4
HANDSHAKE, CLIENT_HELLO = 22, 1
SERVER_NAME, HOST_NAME = 0, 0  # RFC 6066 3
_FIXED = 2 + 32  # version and random
_PRINTABLE = frozenset(range(0x21, 0x7F))


class ClientHello:
    """Bytes in, the same bytes out."""

    __slots__ = ("_at", "_held", "_message", "server_name")

    def __init__(self) -> None:
        #: whom the client asks for; None when it does not say, or says what is no name
        self.server_name: str | None = None
        self._held = bytearray()
        self._at = 0  # where the next record begins
        self._message = bytearray()  # what the records before it hold

    def feed(self, data: bytes) -> bytes | None:
        """All bytes so far as soon as the hello is whole, or is none; None: more is needed.

        Raises `ssl.SSLError` when the server name is not ASCII.
        """
        self._held += data
        if not self._is_decided() and len(self._held) <= LARGEST:
            return None
        self.server_name = _server_name(self._message)
        return bytes(self._held)

    def _is_decided(self) -> bool:
        """Whether the hello is whole, or these bytes are none."""
        held, message = self._held, self._message
        while self._at < len(held) and held[self._at] == HANDSHAKE:
            body = self._at + RECORD_HEADER
            if len(held) < body:
                return False
            end = body + int.from_bytes(held[body - 2 : body], "big")
            if len(held) < end:
                return False
            message += held[body:end]  # of no bytes, too: OpenSSL takes some such records
            self._at = end
            if message and message[0] != CLIENT_HELLO:
                return True
            if len(message) >= MESSAGE_HEADER and len(message) >= _end_of(message):
                return True
        return self._at < len(held)


def _end_of(message: bytearray) -> int:
    """Where the message ends, by its own header."""
    return MESSAGE_HEADER + int.from_bytes(message[1:MESSAGE_HEADER], "big")


def _server_name(message: bytearray) -> str | None:
    """The name in a ClientHello; None when there is none, or one that cannot be printed."""
    try:
        name = _host_name(message[MESSAGE_HEADER : _end_of(message)])
    except IndexError:  # no hello, or one that is cut off
        return None
    if not name.isascii():
        raise ssl.SSLError(1, "the server name in the ClientHello is not ASCII")
    return name.decode("ascii") if name and _PRINTABLE.issuperset(name) else None


def _host_name(hello: bytearray) -> bytearray:
    """What the extension server_name says; raises IndexError when the message ends before."""
    at = _FIXED
    at += 1 + hello[at]  # session
    at += 2 + _number(hello, at)  # ciphers
    at += 1 + hello[at]  # compression
    at += 2  # the length of the extensions
    while True:
        kind, size = _number(hello, at), _number(hello, at + 2)
        body = hello[at + 4 : at + 4 + size]
        if kind == SERVER_NAME and body[2] == HOST_NAME:
            return body[5 : 5 + _number(body, 3)]
        at += 4 + size


def _number(data: bytearray, at: int) -> int:
    """Two bytes."""
    return data[at] << 8 | data[at + 1]
