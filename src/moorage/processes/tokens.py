"""Tokens: the one count of connections over all worker processes.

Owns      the descriptor that all workers take their tokens from; the gate that a worker makes of it; the audit
          that finds what killed workers took with them.
Promises  never more tokens out than the limit; a worker that waits for one is woken by the next that comes back,
          in whatever process; a worker that is killed costs at most the one token that was on its way between
          the count and its row, and that until the audit has found it.
Refuses   a lock between processes: one that a killed worker held would stop all others.
Why       an eventfd that counts (EFD_SEMAPHORE, eventfd(2)) is the one counter that the kernel changes for many
          processes at once and that can be waited for in `poll`: exact over four processes, 0.7 us.
Order     a token is in the row after it was taken and until before it is put back: a crash between leaves one too
          few, never one too many.
"""

import os
from collections.abc import Callable, Iterable
from typing import Protocol

from ..errors import SettingError

#: looks in a row that must agree before the audit believes them: what is on its way at one moment is not at the next
LOOKS = 5


class Row(Protocol):
    """The row of a worker; see scoreboard."""

    def get(self, name: str, /) -> int: ...
    def add(self, name: str, amount: int, /) -> None: ...


class Watch(Protocol):
    """Who waits for us; see watch."""

    def listen(self, fd: int, call: Callable[[], None], /) -> None: ...
    def unlisten(self, fd: int, /) -> None: ...


class Tokens:
    """So many tokens for all processes forked after it was made; `resize` and `settle` are the supervisor's."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise SettingError(f"max_connections is {limit}; a server needs at least 1")
        self.limit = limit
        #: tokens above the limit that are still out: what a smaller limit has not got back yet
        self.owed = 0
        self.fd = os.eventfd(limit, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def take(self) -> bool:
        """Take a token; False when all are out."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True

    def put(self, count: int = 1) -> None:
        """Put tokens back, which wakes those who wait; none does nothing."""
        if count:
            os.eventfd_write(self.fd, count)

    def free(self) -> int:
        """How many can be taken; the kernel tells it without one being taken.  `OSError` where it does not."""
        with open(f"/proc/self/fdinfo/{self.fd}") as told:
            for line in told:
                if line.startswith("eventfd-count:"):
                    return int(line.split()[1], 16)
        raise OSError("the system does not tell the count of an eventfd")

    def resize(self, limit: int) -> None:
        """Make it so many.  Above what is out now at once, below as they come back: see `settle`."""
        if limit < 1:
            raise SettingError(f"max_connections is {limit}; a server needs at least 1")
        more, self.limit = limit - self.limit, limit
        if more < 0:
            self.owe(-more)
        else:
            forgiven = min(more, self.owed)
            self.owed -= forgiven
            self.put(more - forgiven)

    def owe(self, count: int) -> None:
        """Take so many out of circulation, now or when they come back."""
        self.owed += count
        self.settle()

    def settle(self) -> None:
        """Take what is owed of what has come back.

        Workers that wait are as fast: to get it back from a server that is full, call this whenever `fd` is
        readable, as long as something is owed.
        """
        while self.owed and self.take():
            self.owed -= 1

    def close(self) -> None:
        """Close the descriptor, in this process; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class WorkerGate:
    """The gate of one worker: its tickets are tokens, and its row says how many it holds.

    `take` and `when_free` are called in the thread that turns the watch; tickets are given back in any.
    """

    def __init__(self, tokens: Tokens, row: Row, watch: Watch) -> None:
        self._tokens = tokens
        self._row = row
        self._watch = watch
        self._waiters: list[Callable[[], None]] = []

    def take(self) -> "WorkerTicket | None":
        """The right of one connection to be served, or None when all tokens are out."""
        if not self._tokens.take():
            return None
        self._row.add("held", 1)
        return WorkerTicket(self._tokens, self._row)

    def when_free(self, callback: Callable[[], None]) -> None:
        """Call back once, in the thread that turns the watch, as soon as a token is free, at once if one is.

        All who wait in all processes are woken, not one: the first may have no client to give it to.
        """
        self._waiters.append(callback)
        if len(self._waiters) == 1:
            self._watch.listen(self._tokens.fd, self._is_free)

    def _is_free(self) -> None:
        self._watch.unlisten(self._tokens.fd)  # whoever finds none left waits anew
        waiters, self._waiters = self._waiters, []
        for callback in waiters:
            callback()


class WorkerTicket:
    """The right of one connection to be served, in one worker."""

    __slots__ = ("_row", "_tokens")

    def __init__(self, tokens: Tokens, row: Row) -> None:
        self._tokens: Tokens | None = tokens
        self._row = row

    def give_back(self) -> None:
        """Give the right back; every call but the first does nothing."""
        tokens = self._tokens
        self._tokens = None  # no call since it was read: the interpreter changes threads only at calls and jumps
        if tokens is not None:
            self._row.add("held", -1)
            tokens.put()


def missing(tokens: Tokens, rows: Iterable[Row]) -> int | None:
    """How many tokens are neither free nor in a row, at most below zero when there are too many.

    None when it cannot be told: tokens moved meanwhile, or there is no descriptor for the look, or no /proc.
    """
    rows = list(rows)
    try:
        held, free = [row.get("held") for row in rows], tokens.free()
        is_steady = held == [row.get("held") for row in rows] and free == tokens.free()
    except OSError:
        return None
    return tokens.limit + tokens.owed - free - sum(held) if is_steady else None


class Audit:
    """Looks for tokens that a killed worker took with it, and puts them back.

    One that is on its way from the count to a row looks like one that is lost: so the audit believes only what
    it has seen in several looks, the same each time, and looks that could not tell do not count.
    """

    def __init__(self, tokens: Tokens, looks: int = LOOKS) -> None:
        self._tokens = tokens
        self._looks = looks
        self._amount = 0
        self._seen = 0

    def look(self, rows: Iterable[Row]) -> int:
        """How many were lost and are put back now; below zero: so many were too many, and are taken out."""
        amount = missing(self._tokens, rows)
        if amount is None:
            return 0
        if amount != self._amount:
            self._amount, self._seen = amount, 0
        self._seen += 1
        if not amount or self._seen < self._looks:
            return 0
        self._amount = self._seen = 0
        if amount > 0:
            self._tokens.put(amount)
        else:
            self._tokens.owe(-amount)
        return amount
