"""Handlers whose connection is written to by several at once, each in another way; and how its reader checks them.

Each message says who wrote it and how long it is, and has nothing in it but its writer's number: a byte of somebody
else within it, or a part of it elsewhere, is seen.
"""

import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import moorage
from moorage import Connection

WRITERS = 5
HEAD = struct.Struct(">BI")
SEND_BUFFER = 8192
#: in bytes; after many small ones the writer's turn among the fibers is over, in the middle of a large one
SIZES = (*[3] * 40, 200_000, *[1] * 31, 70_000, *[500] * 32, 100_000, 0, 300_000)

Write = Callable[[int], None]


def message(writer: int, size: int) -> bytes:
    return HEAD.pack(writer, size) + bytes([writer]) * size


def expected() -> dict[int, list[int]]:
    """The sizes that each of the writers sends, in its order."""
    return {writer: list(SIZES) for writer in range(1, WRITERS + 1)}


def read_messages(receive: Callable[[int], bytes]) -> Iterator[tuple[int, int]]:
    """Writer and size of each, up to the end of the stream; every one must be whole."""
    while head := receive(HEAD.size):
        writer, size = HEAD.unpack(head)
        assert 1 <= writer <= WRITERS, f"no head of a message: {head!r}"
        assert size in SIZES, f"no head of a message: {head!r}"
        body = receive(size)
        assert body.count(bytes([writer])) == size, f"a message of {writer} has bytes of others"
        yield writer, size


def by_sendall(conn: Connection) -> Write:
    def write(writer: int) -> None:
        for size in SIZES:
            conn.sendall(message(writer, size))
            if size == 0:
                moorage.sleep(0)

    return write


def by_file(conn: Connection) -> Write:
    def write(writer: int) -> None:
        for size in SIZES:
            conn.wfile.write(message(writer, size))

    return write


def by_every_call(conn: Connection) -> Write:
    """Messages as objects of any kind, which take the careful way."""

    def write(writer: int) -> None:
        for number, size in enumerate(SIZES):
            data = message(writer, size)
            if number % 3 == 0:
                conn.sendall(bytearray(data))
            elif number % 3 == 1:
                conn.sendall(memoryview(data))
            elif writer % 2:
                conn.sendall(data)
            else:
                conn.wfile.write(data)

    return write


def in_siblings(write: Write) -> None:
    siblings = [moorage.spawn(write, writer) for writer in range(2, WRITERS + 1)]
    write(1)
    for sibling in siblings:
        assert sibling.join(20.0)


def in_blocking_calls(write: Write) -> None:
    """Under `fibers` half of them are threads of `run_blocking`, the others fibers."""
    in_siblings(lambda writer: moorage.run_blocking(write, writer) if writer % 2 else write(writer))


def in_threads(write: Write) -> None:
    """Threads of the program's own, beside the handler."""
    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(2, WRITERS + 1)]
    for thread in threads:
        thread.start()
    write(1)
    for thread in threads:
        moorage.run_blocking(thread.join)


WAYS: dict[str, tuple[Callable[[Connection], Write], Callable[[Write], None]]] = {
    "siblings": (by_sendall, in_siblings),
    "siblings by wfile": (by_file, in_siblings),
    "siblings by every call": (by_every_call, in_siblings),
    "blocking calls": (by_sendall, in_blocking_calls),
    "blocking calls by every call": (by_every_call, in_blocking_calls),
    "threads": (by_sendall, in_threads),
}


class InLine:
    """A writer that waits for its turn, as the one whose turn ends sees it; `seen` has whether it still had the turn."""

    def __init__(self, stream: Any, monkeypatch: Any) -> None:
        self.seen: list[bool] = []
        self.released = 0
        end_turn = stream._end_turn

        def observed(_self: Any) -> None:
            self.seen.append(stream._writing)
            end_turn()

        monkeypatch.setattr(type(stream), "_end_turn", observed)
        stream._line = deque([self])

    def release(self) -> None:
        self.released += 1


def write_as_asked(conn: Connection) -> None:
    """In the way that the first line names; "patiently" before it sets a timeout, which makes all calls careful."""
    sys.setswitchinterval(1e-5)  # threads of this process take turns as often as they can
    words = conn.readline().decode().strip()
    if words.startswith("patiently "):
        conn.settimeout(20.0)
    make, run = WAYS[words.removeprefix("patiently ")]
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    run(make(conn))
