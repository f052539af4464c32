"""Admission: who may come in.

Owns      the count of the connections of each client, waiting and lingering ones included; that of all is the gate's.
Promises  a client at its limit is refused and never waits, since it is known only after `accept`; a client has the
          same key in all processes that were forked from one.
Refuses   before TLS and before a Connection object exists, so that saying no stays cheap.
"""

from collections.abc import Callable
from socket import AF_INET6, inet_aton, inet_pton
from typing import Any, Protocol

from .errors import SettingError
from .events import Address
from .twins import Gate, Ticket

__all__ = ["ClientCounts", "ClientLimit", "ClientTicket", "Gate", "LocalCounts", "Ticket", "client_key", "client_keys"]

#: RFC 4291 2.5.5.2: the first 12 bytes of an IPv4 address as an IPv6 socket sees it
_MAPPED = bytes(10) + b"\xff\xff"
#: the bits of an address that are one client, unless the settings say otherwise
WHOLE_V4, SITE_V6 = 32, 64
_KEY_BITS = (1 << 64) - 1


class ClientCounts(Protocol):
    """Who counts the connections of each client.  `drop` is called from any thread, the others from one."""

    def count(self, key: int, /) -> int: ...
    def add(self, key: int, /) -> None: ...
    def drop(self, key: int, /) -> None: ...


class ClientLimit:
    """At most so many connections of one client at once; asked in the thread that accepts, by the client's key."""

    def __init__(self, most: int, counts: ClientCounts) -> None:
        if most < 1:
            raise SettingError(f"max_per_client is {most}; a client needs at least 1")
        self.most = most
        self._counts = counts

    def refuses(self, key: int) -> bool:
        """Whether this client has `most` already; False holds until it enters: others leave, and nobody else adds."""
        return self._counts.count(key) >= self.most

    def enter(self, ticket: Any, key: int) -> "ClientTicket":
        """A ticket that gives back this one and the client's place, for a client that is not refused."""
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


def client_keys(prefix_v4: int = WHOLE_V4, prefix_v6: int = SITE_V6) -> Callable[[Address], int | None]:
    """As `client_key`, with so many first bits of an address for one client."""
    if (prefix_v4, prefix_v6) == (WHOLE_V4, SITE_V6):
        return client_key  # which has nothing to mask, and is called for each connection
    mask_v4, mask_v6 = -1 << 32 - prefix_v4, -1 << 128 - prefix_v6

    def key(addr: Address) -> int | None:
        if type(addr) is not tuple:
            return None
        packed = _packed(addr[0])
        if len(packed) == 4:
            return int.from_bytes(packed) & mask_v4 or 1
        number = int.from_bytes(packed) & mask_v6
        if prefix_v6 <= 64:
            return number >> 64 or 1
        # More bits than a key has.  SipHash, whose secret all processes forked from one have in common: nobody can
        # choose an address that is taken for another's, and by chance it is one in 2**64.
        return hash(number.to_bytes(16)) & _KEY_BITS or 1

    return key


def client_key(addr: Address) -> int | None:
    """Who a peer is, as a number of 64 bits: its IPv4 address, or the /64 of its IPv6 address.

    An end site has a whole /64 and more (RFC 6177): its host chooses the rest.  A peer on a Unix socket is
    nobody.  Never 0, which marks an empty place in a table: ::/64 is 1, as which no IPv4 host can come.
    """
    if type(addr) is not tuple:
        return None
    host = addr[0]  # not by `_packed`: that call would be a fifth of what this costs
    if ":" not in host:
        return int.from_bytes(inet_aton(host)) or 1
    packed = inet_pton(AF_INET6, host.partition("%")[0])
    return int.from_bytes(packed[12:] if packed.startswith(_MAPPED) else packed[:8]) or 1


def _packed(host: str) -> bytes:
    """The bytes of an address: 4 of IPv4, also where IPv6 maps it, 16 of IPv6."""
    if ":" not in host:
        return inet_aton(host)
    packed = inet_pton(AF_INET6, host.partition("%")[0])  # after it: the scope of a local address
    return packed[12:] if packed.startswith(_MAPPED) else packed
