"""Door: who may come in by one listener.

Owns      the order in which its policies are asked: rules, then how many the client has, then its rate.
Promises  who is turned away costs a place of nobody, and of his own rate nothing: a turn is taken last; a policy under
          `observe_only` turns nobody away, and says by an event whom it would have, once; with PROXY on the listener
          the peer is asked about by the rules alone, and the client that the header names by all of them.
Refuses   to close anything, and to count: `RefusalObserved` and whoever refuses do.
Thread    that which turns the Watch, alone.
"""

from collections.abc import Callable, Collection
from typing import Any, Protocol

from .deadline import Clock, monotonic
from .events import Address, Cause, Events, RefusalObserved


class Ticket(Protocol):
    """The right of one connection; see admission."""

    def give_back(self) -> None: ...


class Rules(Protocol):
    """Which networks may come in; see rules."""

    def admits(self, addr: Address, /) -> bool: ...
    def refresh(self) -> None: ...


class ClientRates(Protocol):
    """How many of each client may come in a second; see rates."""

    def take(self, key: int, now: float, /) -> float: ...


class ClientLimit(Protocol):
    """How many of each client may be here; see admission."""

    def refuses(self, key: int, /) -> bool: ...
    def enter(self, ticket: Any, key: int, /) -> Any: ...


class Door:
    """Asked once for each connection, or with `has_proxy` twice.

    client_key    who a peer is, None for nobody in particular; see admission
    observe_only  the names of the policies that only look
    """

    def __init__(
        self,
        events: Events,
        *,
        rules: Rules | None = None,
        rates: ClientRates | None = None,
        limit: ClientLimit | None = None,
        client_key: Callable[[Address], int | None],
        observe_only: Collection[str] = (),
        has_proxy: bool = False,
        clock: Clock = monotonic,
    ) -> None:
        self._events = events
        self._rules, self._rates, self._limit = rules, rates, limit
        self._client_key = client_key
        self._observes_rules = "rules" in observe_only
        self._observes_rates = "client_rate" in observe_only
        self._observes_limit = "max_per_client" in observe_only
        self._has_proxy = has_proxy
        self._clock = clock

    def enter(self, ticket: Ticket, addr: Address) -> Ticket | Cause:
        """The ticket to keep for this peer; or why it may not come in, and then the ticket is still the caller's."""
        if self._has_proxy:
            return Cause.DENIED if self._rules is not None and self._denies(self._rules, addr) else ticket
        return self.enter_claimed(ticket, addr)

    def enter_claimed(self, ticket: Ticket, addr: Address, *, is_peer: bool = False) -> Ticket | Cause:
        """As `enter`, for the client that a PROXY header names.

        Or, with `is_peer`, for the peer itself where none is named: the rules have been asked about it by `enter`.
        """
        if not is_peer and self._rules is not None and self._denies(self._rules, addr):
            return Cause.DENIED
        if self._limit is None and self._rates is None:
            return ticket
        key = self._client_key(addr)
        return ticket if key is None else self._enter_client(ticket, addr, key)

    def _enter_client(self, ticket: Ticket, addr: Address, key: int) -> Ticket | Cause:
        limit, rates = self._limit, self._rates
        has_enough = limit is not None and limit.refuses(key)
        if has_enough and not self._only_observes(self._observes_limit, addr, Cause.REFUSED_CLIENT):
            return Cause.REFUSED_CLIENT
        is_too_fast = rates is not None and rates.take(key, self._clock()) > 0
        if is_too_fast and not self._only_observes(self._observes_rates, addr, Cause.REFUSED_RATE):
            return Cause.REFUSED_RATE
        if limit is None or has_enough:  # whom the limit only observes has no place of it
            return ticket
        within: Ticket = limit.enter(ticket, key)
        return within

    def _denies(self, rules: Rules, addr: Address) -> bool:
        rules.refresh()
        return not rules.admits(addr) and not self._only_observes(self._observes_rules, addr, Cause.DENIED)

    def _only_observes(self, observes: bool, addr: Address, cause: Cause) -> bool:
        if observes and RefusalObserved in self._events.wanted:
            self._events.emit(RefusalObserved(addr, cause))
        return observes
