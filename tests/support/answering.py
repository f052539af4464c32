"""What answers on the Watch of a supervisor, and its clients, all in the thread of the test.

Owns      `Turner`, a Watch with a fake clock; `Caller`, a client that turns it while it waits.
Promises  time passes when the test says so; every wait ends after `PATIENCE` seconds.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from moorage.deadline import Deadline
from moorage.watch import Watch

from .clock import FakeClock
from .sockets import PATIENCE

T = TypeVar("T")

TURN = 0.02  # seconds of one wait; what happens ends it
SETTLED = 0.003  # as long as nothing has happened, when nothing more is to come on one host


class Turner:
    """A Watch, turned by the test."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.watch = Watch(self.clock)

    def until(self, predicate: Callable[[], T]) -> T:
        """Turn until this is true."""
        deadline = Deadline(PATIENCE)
        while not (answer := predicate()):
            assert not deadline.is_due(), "it never comes true"
            self.watch.turn(TURN)
        return answer

    def settle(self) -> None:
        """Turn until nothing happens any more."""
        before = -1
        while before != (before := self._happened()):
            pass

    def _happened(self) -> int:
        self.watch.turn(0)
        self.watch.turn(SETTLED)
        return len(self.watch._parked) * 1000 + len(self.watch._listening)

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass, and what is due happen."""
        self.settle()
        self.clock.advance(seconds)
        self.settle()


class Caller:
    """A client."""

    def __init__(self, turner: Turner, address: str | tuple[str, int], receive_buffer: int = 0) -> None:
        self._turner = turner
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(address)
        self.sock.setblocking(False)

    def send(self, data: bytes) -> None:
        """All of it, as far as the other side takes it."""
        self.sock.send(data)
        self._turner.settle()

    def reply(self) -> bytes:
        """Everything up to the end of the stream; a reset raises."""
        received = bytearray()

        def is_over() -> bool:
            with suppress(BlockingIOError):
                while data := self.sock.recv(65536):
                    received.extend(data)
                return True
            return False

        self._turner.until(is_over)
        self.sock.close()
        return bytes(received)

    def is_closed(self) -> bool:
        """Whether the server has closed its side, without a byte."""
        self._turner.settle()
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
