"""The handler of a soak: the first line of a client says what it wants to be served like."""

import struct
import threading
from collections.abc import Callable

import moorage
from moorage import Connection, Incomplete

LENGTH = struct.Struct(">I")
POUR = 3_000_000  # bytes sent to who asks for them

lock = moorage.Lock()
notes: moorage.Queue[int] = moorage.Queue(100)
mine = moorage.local()


def blocks(conn: Connection) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def lines(conn: Connection) -> None:
    for line in conn.rfile:
        conn.wfile.write(line)


def counted(conn: Connection) -> None:
    """Blocks that say how long they are."""
    while head := conn.rfile.read(LENGTH.size):
        (size,) = LENGTH.unpack(head)
        conn.sendall(head + conn.read_exactly(size))


def paragraphs(conn: Connection) -> None:
    while True:
        try:
            data = conn.read_until(b"\r\n\r\n", 10_000)
        except Incomplete:
            return
        conn.sendall(data)


def pour(conn: Connection) -> None:
    piece = bytes(100_000)
    for _ in range(POUR // len(piece)):
        conn.sendall(piece)


def impatient(conn: Connection) -> None:
    """Short timeouts, again and again, and a deadline."""
    conn.settimeout(0.05)
    for _ in range(20):
        try:
            with conn.deadline(0.2):
                data = conn.recv(1000)
        except TimeoutError:
            continue
        if not data:
            return
        conn.sendall(data)


def siblings(conn: Connection) -> None:
    """One reads, and gives to another that writes."""
    received: moorage.Queue[bytes] = moorage.Queue(10)

    def write() -> None:
        while data := received.get():
            conn.sendall(data)

    writer = moorage.spawn(write)
    left = moorage.spawn(moorage.Event().wait)  # still there when the handler leaves
    while data := conn.recv(1000):
        received.put(data)
    received.put(b"")
    writer.join()
    assert left.is_alive()


def busy(conn: Connection) -> None:
    """What handlers do beside serving."""
    mine.connection = conn
    while line := conn.readline():
        with lock:
            moorage.sleep(0.001)
        answer = moorage.run_blocking(line.upper)
        if notes.qsize() < 50:
            notes.put(threading.get_ident())
        else:
            notes.get()
        mine.connection.sendall(answer.swapcase())


def proxy(conn: Connection) -> None:
    with moorage.connect(conn.local) as upstream:
        upstream.sendall(b"blocks\n")
        while data := conn.recv(1000):
            upstream.sendall(data)
            conn.sendall(upstream.read_exactly(len(data)))


def fail(conn: Connection) -> None:
    raise LookupError("asked for")


def leave(conn: Connection) -> None:
    """Early, while input is unread."""
    conn.sendall(b"bye\n")


WAYS: dict[str, Callable[[Connection], None]] = {
    way.__name__: way
    for way in (blocks, lines, counted, paragraphs, pour, impatient, siblings, busy, proxy, fail, leave)
}


def serve_as_asked(conn: Connection) -> None:
    """In the way that the first line names."""
    word = conn.readline().decode("ascii", "replace").strip()
    if word in WAYS:
        WAYS[word](conn)
