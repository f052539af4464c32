"""Handlers that send back what they receive, in the ways that programs are written."""

from moorage import Connection, StreamRequestHandler


def blocks(conn: Connection) -> None:
    """As examples with sockets do."""
    while data := conn.recv(8192):
        conn.sendall(data)


class Lines(StreamRequestHandler):
    """As every book does."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


def patient_blocks(conn: Connection) -> None:
    """With timeouts, each of which sets a timer."""
    conn.settimeout(20.0)
    while True:
        with conn.deadline(30.0):
            data = conn.recv(8192)
        if not data:
            return
        conn.sendall(data)
