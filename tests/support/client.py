"""Clients of a server under test.

Promises  every wait ends after `SOON` seconds; a server that forks in this very process does not take the
          clients with it: a copy of their descriptors in a child would keep them open after `close()`.
"""

import os
import select
import socket
import struct
import threading
import weakref
from typing import Any, Self

__all__ = ["SOON", "Client"]

SOON = 20.0  # seconds after which a test gives up
CHUNK = 65536

_everybody: "weakref.WeakSet[Client]" = weakref.WeakSet()
_making = threading.Lock()  # held while a client is made, and over every fork


class Client(socket.socket):
    """One client, as a socket with a few words more."""

    def __init__(self, address: Any, receive_buffer: int | None = None) -> None:
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if len(address) == 4 else socket.AF_INET
        )
        with _making:
            super().__init__(family, socket.SOCK_STREAM)
            _everybody.add(self)
        try:
            if receive_buffer is not None:
                self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.settimeout(SOON)
            self.connect(address)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def receive(self, size: int) -> bytes:
        """Exactly so many bytes, fewer at the end of the stream."""
        parts = []
        while size > 0 and (data := self.recv(min(size, CHUNK))):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def ask(self, data: bytes) -> bytes:
        """Send, and receive as much."""
        self.sendall(data)
        return self.receive(len(data))

    def line(self) -> bytes:
        """One line with its newline, less at the end of the stream."""
        line = b""
        while not line.endswith(b"\n") and (byte := self.recv(1)):
            line += byte
        return line

    def rest(self) -> bytes:
        """Everything up to the end of the stream; then this client leaves, and nothing lingers for it."""
        try:
            return b"".join(iter(lambda: self.recv(CHUNK), b""))
        finally:
            self.close()

    def is_cut(self) -> bool:
        """Wait for the end, then leave; whether nothing came before it."""
        try:
            return self.recv(1) == b""
        except ConnectionError:
            return True
        finally:
            self.close()

    def hears_nothing(self, seconds: float) -> bool:
        """Whether neither a byte nor an end comes within this time."""
        return not select.select([self], [], [], seconds)[0]

    def say_no_more(self) -> None:
        """End of stream for the server; receiving goes on."""
        self.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave by a reset, as far as the family knows one."""
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def abandon(self) -> None:
        """Close this copy of the descriptor, without a word to the peer: another process has the client."""
        self.close()


def _stay_with_the_parent() -> None:
    for client in tuple(_everybody):
        client.abandon()
    _making.release()


os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_stay_with_the_parent)
