"""Gate: how many may be here at once.

Owns      the count of tickets that are out.
Promises  never more than the limit; a ticket goes back exactly once, whoever gives it back and however often; those
          who wait for a free one are called when there is one.
Refuses   to know who a client is; see admission.
Why       counting in one place is the only way the limit means what its name says.
How       a token is an element of a list: `pop` and `append` are atomic, so that a ticket can be given back from a
          signal handler or a finaliser that interrupts `take` in the same thread; a lock could not.  This is the
          pure twin; the one in `_native` counts in C, where nothing interrupts it.
"""

from collections.abc import Callable

from .errors import SettingError


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
