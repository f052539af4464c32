"""A TLS 1.3 client that sends KeyUpdate records, which neither Python's `ssl` nor the openssl command can be told to.

Owns      the socket, the handshake (by `ssl`), and after it the keys of what is sent (RFC 8446 7.2 and 7.3).
Refuses   to read: the peers that it plays do not.
"""

import hmac
import os
import socket
import ssl
import struct
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .certificates import client_context

__all__ = ["KeyUpdater"]

DATA, HANDSHAKE = b"\x17", b"\x16"
REQUESTED = bytes([24, 0, 0, 1, 1])


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label of TLS 1.3, of at most one block."""
    label = b"tls13 " + label
    info = struct.pack("!HB", size, len(label)) + label + b"\0"
    return hmac.digest(secret, info + b"\x01", "sha384")[:size]


class KeyUpdater:
    """Speaks TLS_AES_256_GCM_SHA384, which OpenSSL prefers."""

    def __init__(self, address: Any, folder: Path) -> None:
        self.sock = socket.create_connection(address, timeout=10)
        context = client_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.keylog_filename = os.fspath(folder / "keys.log")
        arriving, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(arriving, leaving, server_hostname="localhost")
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(leaving.read())
                arriving.write(self.sock.recv(65536))
        self.sock.sendall(leaving.read())
        assert session.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
        lines = [line.split() for line in (folder / "keys.log").read_text().splitlines()]
        [self._secret] = [bytes.fromhex(line[2]) for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0"]
        self._take_keys()

    def _take_keys(self) -> None:
        self._cipher, self._nonce, self._count = (
            AESGCM(_expand(self._secret, b"key", 32)), int.from_bytes(_expand(self._secret, b"iv", 12)), 0,
        )  # fmt: skip

    def _record(self, inner: bytes) -> bytes:
        nonce, header = (self._nonce ^ self._count).to_bytes(12), b"\x17\x03\x03" + struct.pack("!H", len(inner) + 16)
        self._count += 1
        return header + self._cipher.encrypt(nonce, inner, header)

    def data(self, text: bytes) -> bytes:
        """A record with this in it."""
        return self._record(text + DATA)

    def update(self) -> bytes:
        """A record that changes our keys, and asks the peer to change its own."""
        record = self._record(REQUESTED + HANDSHAKE)
        self._secret = _expand(self._secret, b"traffic upd", 48)
        self._take_keys()
        return record

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
