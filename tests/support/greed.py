"""Handlers that never have to wait, and somebody else of whom it is counted how long he waits for them.

The other one is a client of the same server, made by the greedy handler itself: it says a byte, from within the
handler's loop, and his own handler notes how many steps of the greedy one came before it was served.  So the bound
is a number, and no clock is read.
"""

import json
import socket
from collections.abc import Callable
from typing import Any

from moorage import Connection
from moorage.hub.loop import BUDGET

EVERY = 997  # steps between two bytes of the other one; prime, so that they meet every phase of a turn
BYTES = 30  # of the other one
ENOUGH = 10_000_000  # steps, after which somebody has been forgotten

PIECE = 1024
POURED = 50_000_000  # more than any socket takes
LINE = b"x\n"


class Other:
    """The one who waits: his client's end, and what was counted."""

    def __init__(self, address: Any) -> None:
        self.waits: list[int] = []
        self._address = address
        self._steps = 0
        self._said_at = 0
        self._client = socket.socket()
        self._meet()

    def step(self) -> bool:
        """One step of a greedy one; whether it is to go on."""
        self._steps += 1
        if self._steps % EVERY == 0 and not self._said_at and len(self.waits) < BYTES:
            self._said_at = self._steps
            self._say()
        return len(self.waits) < BYTES and self._steps < ENOUGH

    def was_served(self) -> None:
        """By his handler."""
        self.waits.append(self._steps - self._said_at)
        self._said_at = 0

    def close(self) -> None:
        """He leaves."""
        self._client.close()

    def _meet(self) -> None:
        """Come once."""
        self._client.connect(self._address)  # returns at once: the kernel answers for the backlog
        self._client.sendall(b"other\n")

    def _say(self) -> None:
        self._client.sendall(b"x")


class Newcomer(Other):
    """Each time somebody new, whom the listener has to take first."""

    def _meet(self) -> None:
        pass

    def _say(self) -> None:
        self._client.close()
        self._client = socket.socket()
        self._client.connect(self._address)
        self._client.sendall(b"other\nx")


#: who is waiting now; one greedy crowd at a time
here: list[Other] = []


def one_step() -> bool:
    """Of somebody as greedy, who may be here before the one who waits."""
    return here[0].step()


def other(conn: Connection) -> None:
    while conn.recv(1):
        here[0].was_served()


def receives(conn: Connection, step: Callable[[], bool]) -> None:
    while conn.recv(PIECE) and step():
        pass


def sends(conn: Connection, step: Callable[[], bool]) -> None:
    while step():
        conn.sendall(bytes(PIECE))


def pours(conn: Connection, step: Callable[[], bool]) -> None:
    conn.sendall(bytes(POURED))


def reads_lines(conn: Connection, step: Callable[[], bool]) -> None:
    for _ in conn.rfile:
        if not step():
            return


def reads_blocks(conn: Connection, step: Callable[[], bool]) -> None:
    while conn.read_exactly(len(LINE)) and step():
        pass


def reads_until(conn: Connection, step: Callable[[], bool]) -> None:
    while conn.read_until(LINE) and step():
        pass


def answers_lines(conn: Connection, step: Callable[[], bool]) -> None:
    for line in conn.rfile:
        conn.wfile.write(line)
        if not step():
            return


WAYS: dict[str, Callable[[Connection, Callable[[], bool]], None]] = {
    way.__name__: way for way in (receives, sends, pours, reads_lines, reads_blocks, reads_until, answers_lines)
}


def serve(conn: Connection) -> None:
    """As the first line says: "other", or a way and for whom: "other", "newcomer", or "nobody" beside the first."""
    words = conn.readline().decode().split()
    if words == ["other"]:
        other(conn)
        return
    way, waiting = words
    if waiting == "nobody":
        WAYS[way](conn, one_step)
        return
    here[:] = [{"other": Other, "newcomer": Newcomer}[waiting](conn.local)]
    WAYS[way](conn, here[0].step)
    conn.sendall(b"\n!" + json.dumps({"waits": here[0].waits, "budget": BUDGET}).encode() + b"\n")
    here[0].close()
    while conn.recv(65536):  # until it leaves: who hangs up on a sender may destroy the reply
        pass
