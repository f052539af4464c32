"""A good client beside an attack: so many exchanges at even distances, and how long each took.

Run as a program: the argument is JSON, the fields of `Task`.  It has one exchange on a connection that stays, prints
"ready", waits for a line, and prints a line of JSON at the end: microseconds of each exchange on the connection that
stays (`staying`), and of each on a connection of its own, from connect to reply (`new`); the two take turns.

Promises  each reply is checked; the first that is wrong, late or missing ends it with a sentence and a status of 1.
          An exchange that begins late because the one before took long is counted from the moment when it was due: a
          server that stands still for a second is not one slow exchange among two thousand.
"""

import json
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from typing import Any

PATIENCE = 30.0


@dataclass(frozen=True)
class Task:
    address: Any
    exchanges: int
    interval: float  # seconds from the begin of one to the begin of the next
    authority: str | None = None  # what a TLS server's certificate is checked against; without it, no TLS


class Client:
    """Connects, and has lines echoed."""

    def __init__(self, task: Task) -> None:
        self._address = task.address if isinstance(task.address, str) else tuple(task.address)
        self._context = ssl.create_default_context(cafile=task.authority) if task.authority else None
        self._count = 0

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET)
        sock.settimeout(PATIENCE)
        sock.connect(self._address)
        return self._context.wrap_socket(sock, server_hostname="localhost") if self._context else sock

    def ask(self, sock: socket.socket) -> None:
        self._count += 1
        line = b"%0127d\n" % self._count
        sock.sendall(line)
        answer = b""
        while not answer.endswith(b"\n"):
            if not (more := sock.recv(8192)):
                raise ConnectionError("the server closed the connection of a good client")
            answer += more
        if answer != line:
            raise ConnectionError("the reply differs from what was asked")

    def exchange(self, staying: socket.socket | None, due: float) -> int:
        """One exchange on this connection, or on a new one; its microseconds."""
        pause = due - time.monotonic()
        if pause > 0:
            time.sleep(pause)
            due = time.monotonic()
        sock = staying or self.connect()
        self.ask(sock)
        took = time.monotonic() - due
        if staying is None:
            sock.close()
        return round(took * 1e6)


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    client = Client(task)
    times: dict[str, list[int]] = {"staying": [], "new": []}
    try:
        with client.connect() as staying:
            client.ask(staying)
            print("ready", flush=True)
            sys.stdin.readline()
            begun = time.monotonic()
            for number in range(task.exchanges):
                is_new = number % 2 == 1
                took = client.exchange(None if is_new else staying, begun + number * task.interval)
                times["new" if is_new else "staying"].append(took)
    except OSError as error:
        sys.exit(f"the good client: {type(error).__name__}: {error}, after {sum(map(len, times.values()))} exchanges")
    print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
