"""Screening: what is asked about a client between `accept` and the reception.

Owns      the socket and the ticket of this client until they are handed on, or refused and given back.
Promises  who is turned away gives everything back: his ticket, and his turn.
Refuses   to exist where nobody is to be asked: the acceptor then hands on directly, and pays nothing.
"""

import _socket
from collections.abc import Callable
from typing import Any, Protocol

from .events import Address, Cause


class Ticket(Protocol):
    """The right of one connection; see admission."""

    def give_back(self) -> None: ...


class Door(Protocol):
    """Who may come in; see door."""

    def enter(self, ticket: Any, addr: Address, /) -> Any: ...


class Pace(Protocol):
    """How fast; see pace."""

    def refuses(self, addr: Address, /) -> bool: ...
    def put_back(self) -> None: ...


class Refusal(Protocol):
    """Says no; see refusal."""

    def refuse(self, sock: _socket.socket, addr: Address, cause: Cause, /) -> None: ...


class Screening:
    """Asks pace and door, of which at least one is there, and hands on to `admit`."""

    def __init__(
        self,
        pace: Pace | None,
        door: Door | None,
        refusal: Refusal,
        admit: Callable[[_socket.socket, Address, Any, Any], None],
    ) -> None:
        self._pace, self._door = pace, door
        self._refusal, self._hand_on = refusal, admit

    def admit(self, sock: _socket.socket, addr: Address, ticket: Ticket, listener: Any) -> None:
        """Take over socket and ticket; hand them on, or refuse the client."""
        entered = self._ask(addr, ticket)
        if isinstance(entered, Cause):
            ticket.give_back()
            self._refusal.refuse(sock, addr, entered)
        else:
            self._hand_on(sock, addr, entered, listener)

    def _ask(self, addr: Address, ticket: Ticket) -> Any:
        if self._pace is not None and self._pace.refuses(addr):
            return Cause.REFUSED_RATE
        if self._door is None:
            return ticket
        entered = self._door.enter(ticket, addr)
        if self._pace is not None and isinstance(entered, Cause):
            self._pace.put_back()
        return entered
