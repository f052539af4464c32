"""Tickets: which accepted request holds which ticket of the gate, and when it gives it back.

Owns      the tickets that are out, by request, and the list of requests that went astray.
Promises  a ticket is back at the first of: `close_request` ran, `fileno() == -1`, the object is garbage.
Refuses   to close a request, and to take a handler's return for its end: programs hand the socket to
          another thread and skip `shutdown_request`.
Why       a finaliser may run in the middle of anything, so it only appends to `lost`; the serve loop,
          which it wakes, does the rest.
"""

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from ..admission import Ticket

__all__ = ["Held", "Tickets"]


class Held:
    """One ticket that is out, and who holds it."""

    __slots__ = ("claimed", "key", "look", "ticket")

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.key = 0
        #: gives the request, or None once it is garbage
        self.look: Callable[[], Any] = _nobody
        #: somebody other than the serve loop settles it: the job in the pool, the child process
        self.claimed = False


class Tickets:
    """The tickets of one server in one process; `wake` is called when one is lost."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._held: dict[int, Held] = {}
        #: requests whose handler returned without closing them
        self._astray: dict[int, Held] = {}
        self._lost: deque[Held] = deque()

    def hold(self, request: Any, ticket: Ticket) -> Held:
        """From now on this request holds this ticket."""
        held = Held(ticket)
        self._bind(held, request)
        return held

    def find(self, request: Any) -> Held | None:
        """What this request holds."""
        held = self._held.get(id(request))
        return held if held is not None and held.look() is request else None

    def move(self, held: Held, request: Any) -> None:
        """The program has wrapped the request in another object, which holds the ticket now."""
        self._unbind(held)
        self._bind(held, request)

    def release(self, request: Any) -> None:
        """`close_request` ran."""
        held = self.find(request)
        if held is not None:
            self._give_back(held)

    def take_over(self, held: Held) -> Ticket:
        """The ticket itself, for a holder that outlives the request: a child process."""
        held.claimed = True
        self._unbind(held)
        return held.ticket

    def settle(self, held: Held) -> None:
        """The handler has returned: is the request closed, or has it gone astray?"""
        if self._held.get(held.key) is not held:
            return
        if _is_closed(held.look()):
            self._give_back(held)
        else:
            self._astray[held.key] = held

    @property
    def has_astray(self) -> bool:
        """Whether any request is open although its handler returned."""
        return bool(self._astray)

    def collect(self) -> None:
        """Give back for what is garbage by now."""
        while self._lost:
            self._give_back(self._lost.popleft())

    def sweep(self) -> None:
        """Give back for what was closed without a word, too: looks at all that went astray."""
        self.collect()
        for held in tuple(self._astray.values()):
            if _is_closed(held.look()):
                self._give_back(held)

    def _bind(self, held: Held, request: Any) -> None:
        held.key = id(request)
        try:
            held.look = weakref.ref(request, lambda _: self._lose(held))
        except TypeError:  # a datagram's pair cannot be referred to weakly, nor outlive its handler
            held.look = lambda: request
        self._held[held.key] = held

    def _unbind(self, held: Held) -> None:
        held.look = _nobody
        self._astray.pop(held.key, None)
        if self._held.get(held.key) is held:
            del self._held[held.key]

    def _give_back(self, held: Held) -> None:
        self._unbind(held)
        held.ticket.give_back()

    def _lose(self, held: Held) -> None:
        self._lost.append(held)
        self._wake()


def _nobody() -> None:
    return None


def _is_closed(request: Any) -> bool:
    """Whether there is nothing left that could use a descriptor."""
    try:
        return bool(request.fileno() < 0)
    except (AttributeError, TypeError, OSError, ValueError):
        return True
