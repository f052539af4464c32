"""Real sockets for tests: connected pairs, and what the kernel says of descriptors.

Promises  both ends are closed when the `with` block ends, whoever closed one before.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

FAMILIES = ("tcp", "unix")
#: seconds after which a test's own end of a pair gives up: a bug must not hang the suite
PATIENCE = 20.0


def connect_pair(family: str = "tcp") -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, ours and the peer's; the peer's has a timeout."""
    if family == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
    theirs.settimeout(PATIENCE)
    return ours, theirs


@contextmanager
def pair(family: str = "tcp") -> Iterator[tuple[socket.socket, socket.socket]]:
    """`connect_pair` for the length of a `with` block."""
    ours, theirs = connect_pair(family)
    with ours, theirs:
        yield ours, theirs


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    received = bytearray()
    while data := sock.recv(65536):
        received += data
    return bytes(received)


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, fewer at the end of the stream."""
    received = bytearray()
    while len(received) < size and (data := sock.recv(size - len(received))):
        received += data
    return bytes(received)


def shrink(*socks: socket.socket) -> None:
    """Make the kernel's buffers small, so that writing soon has to wait."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()


def open_fds() -> set[str]:
    """The descriptors of this process, each with what it is."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:  # the listing's own, closed by now
            continue
    return found
