"""Connections for tests: real sockets in a home of fakes.

Owns      `Home`, what a connection sees of its server, and `Guest`, a connection with its peer.
Promises  the Watch is a fake: what it was asked to do, the test does.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moorage.connection import Connection
from moorage.events import ConnectionClosed, Events
from moorage.runners.waiters import PlainWaiter, WakeableWaiter

from .fake_watch import FakeWatch
from .sink import Sink
from .sockets import connect_pair
from .streams import Limits


class FakeTicket:
    """Counts how often it was given back."""

    def __init__(self) -> None:
        self.given_back = 0

    def give_back(self) -> None:
        self.given_back += 1


class Home:
    """Where connections of a test live."""

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = Limits(**settings)
        self.events = Events()
        self.sink = Sink(self.events)
        self.watch = FakeWatch()
        self.draining = False
        self.forgotten: list[Connection] = []

    def forget(self, connection: Connection) -> None:
        self.forgotten.append(connection)


class Guest:
    """A connection and its peer; given to a handler unless `begin` is False."""

    def __init__(self, family: str = "tcp", begin: bool = True, **settings: Any) -> None:
        self.sock, self.peer = connect_pair(family)
        self.fd = self.sock.fileno()
        self.home = Home(**settings)
        self.ticket = FakeTicket()
        self.connection = Connection(self.sock, "peer", self.ticket, self.home, 7)
        if begin:
            self.connection.queue()
            self.begin()

    def begin(self) -> None:
        """The handler's thread takes it."""
        self.connection.begin(WakeableWaiter() if self.sock.family == socket.AF_UNIX else PlainWaiter())

    def arrive(self, data: bytes) -> None:
        """The peer sends this, and it has arrived."""
        self.peer.sendall(data)
        PlainWaiter().wait(self.sock, 1, 20)

    def closed(self) -> ConnectionClosed:
        """The one event of its end."""
        [event] = self.home.sink.of(ConnectionClosed)
        return event

    def close(self) -> None:
        self.peer.close()
        self.sock.close()


@contextmanager
def guest(family: str = "tcp", begin: bool = True, **settings: Any) -> Iterator[Guest]:
    """One connection for the length of a `with` block."""
    one = Guest(family, begin, **settings)
    try:
        yield one
    finally:
        one.close()
