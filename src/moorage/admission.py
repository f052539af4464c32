"""Admission: who may come in.

Owns      the count of connections being served, waiting and lingering ones included, of all and of each client.
Promises  never more tickets out than the limit; a ticket goes back exactly once, whoever gives it back
          and however often; those who wait for a free one are called when there is one; a client at its
          limit is refused and never waits, since it is known only after `accept`.
Refuses   before TLS and before a Connection object exists, so that saying no stays cheap.
Why       counting in one place is the only way the limit means what its name says.
How       a token is an element of a list: `pop` and `append` are atomic, so that a ticket can be given
          back from a signal handler or a finaliser that interrupts `take` in the same thread; a lock
          could not.
"""

import socket
from collections.abc import Callable
from typing import Any, Protocol

from .errors import SettingError
from .events import Address

#: RFC 4291 2.5.5.2: the first 12 bytes of an IPv4 address as an IPv6 socket sees it
_MAPPED = bytes(10) + b"\xff\xff"


class Gate:
    """Counts.  `limit` is the number of tickets that can be out at once."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise SettingError(f"max_connections is {limit}; a server needs at least 1")
        self.limit = limit
        self._tokens: list[None] = [None] * limit
        self._waiters: list[Callable[[], None]] = []

    @property
    def free(self) -> int:
        """How many tickets can still be taken."""
        return len(self._tokens)

    @property
    def taken(self) -> int:
        """How many tickets are out."""
        return self.limit - len(self._tokens)

    def take(self) -> "Ticket | None":
        """The right of one connection to be served, or None when all are out."""
        try:
            self._tokens.pop()
        except IndexError:
            return None
        return Ticket(self)

    def when_free(self, callback: Callable[[], None]) -> None:
        """Call back once, as soon as a ticket is free, in the thread that gave it back.

        All who wait are called, not one: the first may have no client to give the ticket to.
        """
        self._waiters.append(callback)
        if self._tokens:  # given back between a failed `take` and now
            self._call_waiters()

    def _call_waiters(self) -> None:
        for _ in range(len(self._waiters)):  # not those that wait again because they found none
            try:
                callback = self._waiters.pop(0)
            except IndexError:  # another thread was faster
                return
            callback()


class Ticket:
    """The right of one connection to be served."""

    __slots__ = ("_gate",)

    def __init__(self, gate: Gate) -> None:
        self._gate: Gate | None = gate

    def give_back(self) -> None:
        """Give the right back; every call but the first does nothing."""
        gate = self._gate
        self._gate = None  # no call since it was read: the interpreter changes threads only at calls and jumps
        if gate is not None:
            gate._tokens.append(None)
            if gate._waiters:
                gate._call_waiters()


class ClientCounts(Protocol):
    """Who counts the connections of each client.  `drop` is called from any thread, the others from one."""

    def count(self, key: int, /) -> int: ...
    def add(self, key: int, /) -> None: ...
    def drop(self, key: int, /) -> None: ...


class ClientLimit:
    """At most so many connections of one client at once; asked in the thread that accepts."""

    def __init__(self, most: int, counts: ClientCounts) -> None:
        if most < 1:
            raise SettingError(f"max_per_client is {most}; a client needs at least 1")
        self.most = most
        self._counts = counts

    def enter(self, ticket: Any, addr: Address) -> Any:
        """A ticket that gives back this one and the client's place; None when the client has `most` already.

        Then this one is still the caller's.
        """
        key = client_key(addr)
        if key is None:
            return ticket
        if self._counts.count(key) >= self.most:  # who leaves meanwhile makes it less, and nobody else adds
            return None
        self._counts.add(key)
        return ClientTicket(ticket, self._counts, key)


class ClientTicket:
    """The right of one connection of one client."""

    __slots__ = ("_counts", "_key", "_ticket")

    def __init__(self, ticket: Any, counts: ClientCounts, key: int) -> None:
        self._ticket = ticket
        self._counts = counts
        self._key = key

    def give_back(self) -> None:
        """Give both rights back; every call but the first does nothing."""
        ticket = self._ticket
        self._ticket = None  # no call since it was read; see `Ticket`
        if ticket is not None:
            self._counts.drop(self._key)  # first: whom the ticket wakes may be the next one of this client
            ticket.give_back()


class LocalCounts:
    """The connections of each client of one process.

    As the gate does, it counts by the length of lists, so that `drop` needs no lock; only `add`, which
    one thread calls, takes a client out of the table: no other can fill a list that it has found empty.
    """

    def __init__(self) -> None:
        self._here: dict[int, list[None]] = {}
        self._left: list[int] = []  # clients of whom perhaps none is here any more

    @property
    def distinct(self) -> int:
        """How many clients are in the table."""
        return len(self._here)

    def count(self, key: int) -> int:
        """How many connections this client has."""
        return len(self._here.get(key, ()))

    def add(self, key: int) -> None:
        """One more."""
        while self._left:
            gone = self._left.pop()
            if not self._here.get(gone, True):
                del self._here[gone]
        self._here.setdefault(key, []).append(None)

    def drop(self, key: int) -> None:
        """One less, of those that were added."""
        here = self._here[key]
        here.pop()
        if not here:
            self._left.append(key)


def client_key(addr: Address) -> int | None:
    """Who a peer is, as a number of 64 bits: its IPv4 address, or the /64 of its IPv6 address.

    An end site has a whole /64 and more (RFC 6177): its host chooses the rest.  A peer on a Unix socket is
    nobody.  Never 0, which marks an empty place in a table: ::/64 is 1, as which no IPv4 host can come.
    """
    if type(addr) is not tuple:
        return None
    host = addr[0]
    if ":" not in host:
        return int.from_bytes(socket.inet_aton(host)) or 1
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])  # after it: the scope of a local address
    if packed.startswith(_MAPPED):
        return int.from_bytes(packed[12:]) or 1
    return int.from_bytes(packed[:8]) or 1
