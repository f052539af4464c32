"""Visitors: thousands of clients that are here at the same time, in a process of their own.

Run as a program: the argument is JSON with `address`, `count` and `source`, the address that they come from.  Each
connects and has one message echoed; then it prints a line of JSON.  When it is given a line, or the end of its
input, they leave: one third by closing, one third by a reset, one third by a half-close first.
"""

import json
import resource
import socket
import struct
import sys
from typing import Any

PATIENCE = 30.0
AT_ONCE = 500  # fewer than a backlog
MESSAGE = b"x" * 127 + b"\n"
IP_BIND_ADDRESS_NO_PORT = 24  # from linux/in.h
ABORT = struct.pack("ii", 1, 0)


def connect(address: Any, source: str) -> socket.socket:
    """One visitor."""
    visitor = socket.socket()
    visitor.settimeout(PATIENCE)
    visitor.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)  # else each searches for a port among thousands
    visitor.bind((source, 0))
    visitor.connect(address)
    return visitor


def come(address: Any, count: int, source: str) -> list[socket.socket]:
    """So many, all of whom were echoed."""
    here: list[socket.socket] = []
    while len(here) < count:
        coming = [connect(address, source) for _ in range(min(AT_ONCE, count - len(here)))]
        for visitor in coming:
            visitor.sendall(MESSAGE)
        for visitor in coming:
            assert visitor.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE
        here += coming
    return here


def leave(here: list[socket.socket]) -> None:
    """All of them."""
    for number, visitor in enumerate(here):
        if number % 3 == 1:
            visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        elif number % 3 == 2:
            visitor.shutdown(socket.SHUT_WR)
            assert visitor.recv(1) == b""
        visitor.close()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    task: dict[str, Any] = json.loads(sys.argv[1])
    here = come(tuple(task["address"]), task["count"], task["source"])
    print(json.dumps({"here": len(here)}), flush=True)
    sys.stdin.readline()
    leave(here)


if __name__ == "__main__":
    main()
