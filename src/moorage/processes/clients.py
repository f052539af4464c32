"""Clients: how many connections each client has, over all workers.

Owns      one table for each row of the scoreboard, client to number, in shared memory; the sum over all of them.
Promises  a table holds as many clients as it was made for at half load; a reader in another process never waits
          and never sees half a removal for longer than a few tries, not even of a worker that was killed in it;
          `add` and `drop` may be called from every thread, signal handler and finaliser of the worker.
Refuses   to count a client that finds the table full: it is let in uncounted, and its `drop` does nothing.  A reload
          that would come to this is not taken; see reload.
Why       a removal moves other entries back (Knuth 6.4, algorithm R), so that a table never fills with the
          gravestones of clients that left; while entries move, the sequence number is odd.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from ..errors import InternalError

#: cells of 64 bits before the entries: the sequence number, how many clients; one line of the cache
_HEAD = 8
_SEQUENCE, _DISTINCT = 0, 1
#: so often a reader looks again when entries moved below it: a removal takes microseconds, a look one
_LOOKS = 8
_MASK = (1 << 64) - 1


def slots_for(clients: int) -> int:
    """How many slots a table for so many clients has: a power of two, at least twice as many."""
    return 1 << max(2 * clients - 1, 7).bit_length()


def room_of(slots: int) -> int:
    """How many clients a table of so many slots counts: an empty slot is what ends a search, so it never fills."""
    return slots - slots // 8


def cells_for(clients: int) -> int:
    """How many cells of 64 bits a table for so many clients takes; none for none."""
    return _HEAD + 2 * slots_for(clients) if clients else 0


class ClientCounts:
    """One row's table.  A key is a 64-bit number, not 0; `cells` is memory of `cells_for(clients)` cells, zeroed.

    `salt` is an odd number that is the same in all processes and that no client knows: who may choose
    his address freely cannot choose addresses that fall upon each other.
    """

    def __init__(self, cells: memoryview, salt: int) -> None:
        slots = (len(cells) - _HEAD) // 2
        self._cells = cells  # 64 bits each: the head, then key and count of each slot
        self._salt = salt
        self._shift = 65 - slots.bit_length()
        self._last = slots - 1
        self._most = room_of(slots)
        # Guards the table between threads of this process.  Re-entrant: a signal handler or a finaliser may
        # come in the middle of a change; then `_is_busy`, and its change is made when that one is.
        self._guard = threading.RLock()
        self._is_busy = False
        self._postponed: deque[tuple[int, int]] = deque()

    def count(self, key: int) -> int:
        """How many connections this client has in this row; at worst a moment old."""
        cells, most = self._cells, 0
        with self._guard:  # against our own threads; for other processes there is the sequence number
            for _ in range(_LOOKS):
                before, slot = cells[_SEQUENCE], self._find(key)
                count = cells[_HEAD + 2 * slot + 1] if slot >= 0 else 0
                if not before & 1 and cells[_SEQUENCE] == before:
                    return count
                most = max(most, count)
        return most  # an entry that moves is twice there for a moment, so who found it once is right

    def add(self, key: int) -> None:
        """One more connection of this client."""
        self._change(key, 1)

    def drop(self, key: int) -> None:
        """One less; for a client that is not here this does nothing."""
        self._change(key, -1)

    @property
    def distinct(self) -> int:
        """How many clients are in this table."""
        return int(self._cells[_DISTINCT])

    def close(self) -> None:
        """Let go of the memory."""
        self._cells.release()

    def _change(self, key: int, by: int) -> None:
        if not 0 < key <= _MASK:
            raise InternalError(f"{key} is no key of a client: 0 marks an empty slot, and there are 64 bits")
        with self._guard:
            self._postponed.append((key, by))
            if self._is_busy:
                return
            self._is_busy = True
            try:
                while self._postponed:
                    self._apply(*self._postponed.popleft())
            finally:
                self._is_busy = False

    def _apply(self, key: int, by: int) -> None:
        slot = self._find(key)
        if slot >= 0:
            count = self._cells[_HEAD + 2 * slot + 1] + by
            if count > 0:
                self._cells[_HEAD + 2 * slot + 1] = count
            else:
                self._remove(slot)
        elif by > 0 and self._cells[_DISTINCT] < self._most:
            self._insert(~slot, key)

    def _home(self, key: int) -> int:
        """The slot where the search for this client begins."""
        return ((key * self._salt) & _MASK) >> self._shift

    def _find(self, key: int) -> int:
        """The slot of this client; `~slot` of the empty one where it would be, if it is not here."""
        cells, last, slot = self._cells, self._last, self._home(key)
        for _ in range(last + 1):  # bounded: what a reader sees may be changing
            found = cells[_HEAD + 2 * slot]
            if found == key:
                return slot
            if not found:
                return ~slot
            slot = (slot + 1) & last
        return -1  # ~0; only a reader comes here, and only in the middle of a change

    def _insert(self, slot: int, key: int) -> None:
        at = _HEAD + 2 * slot
        self._cells[at + 1] = 1
        self._cells[at] = key  # last: it is there for readers from now on
        self._cells[_DISTINCT] += 1

    def _remove(self, hole: int) -> None:
        """Empty a slot, and move back those behind it whose search would end there now."""
        cells, last = self._cells, self._last
        cells[_SEQUENCE] += 1  # odd: readers look again
        slot = hole
        while key := cells[_HEAD + 2 * (slot := (slot + 1) & last)]:
            if (slot - self._home(key)) & last >= (slot - hole) & last:  # its search passes the hole
                cells[_HEAD + 2 * hole + 1] = cells[_HEAD + 2 * slot + 1]
                cells[_HEAD + 2 * hole] = key  # twice here for a moment, never missing
                hole = slot
        cells[_HEAD + 2 * hole] = 0
        cells[_DISTINCT] -= 1
        cells[_SEQUENCE] += 1


class HasClients(Protocol):
    """A row of the scoreboard, as far as clients go; see scoreboard."""

    @property
    def clients(self) -> ClientCounts | None: ...


class Rows(Protocol):
    """The scoreboard, as far as clients go; see scoreboard."""

    def rows(self) -> Sequence[HasClients]: ...


class SharedCounts:
    """The connections of each client over all workers, as one worker sees and changes them.

    A worker counts its own at once and sees those of others a moment late: of several that admit the
    same client at the same moment each may miss the others' one.
    """

    def __init__(self, scoreboard: Rows, row: HasClients) -> None:
        if row.clients is None:
            raise InternalError("the scoreboard was made without clients")
        self._scoreboard = scoreboard
        self._own = row.clients

    def add(self, key: int) -> None:
        """One more connection of this client, in this worker."""
        self._own.add(key)

    def drop(self, key: int) -> None:
        """One less."""
        self._own.drop(key)

    def count(self, key: int) -> int:
        """How many connections this client has, in all workers together."""
        return sum(row.clients.count(key) for row in self._scoreboard.rows() if row.clients is not None)
