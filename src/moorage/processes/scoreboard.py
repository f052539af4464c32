"""Scoreboard: what the workers count, in memory that all processes share.

Owns      the shared memory: which rows are in use, the totals of the dead, a row for each worker; and the table of
          all there is to count, from which the metrics are made.
Promises  a row is written by its worker alone and read by all; each number is one aligned store of 64 bits, so it
          is never seen half written; a folded row gives its memory back; no file is made anywhere.
Refuses   a lock between processes: a worker killed while it held one would stop all others.
Why       rows start at pages, so no two workers write to one line of the cache; within a process an addition is
          whole because the interpreter changes threads, and runs signal handlers, only at calls and jumps.
"""

import mmap
import secrets
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from ..config.settings import MOST_WORKERS
from ..errors import InternalError, OperatorError
from ..events import CAUSES, Cause
from .clients import ClientCounts, cells_for, room_of, slots_for

#: upper bounds of the slots of a histogram, in seconds: what a handler takes, what a device's connection lasts;
#: there is one more slot, for what is above
BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
#: 64 bits each
CELL = 8
#: of a sum of seconds a microsecond is kept: 10,000 connections at once fill 63 bits in 29 years
MICRO = 1_000_000
_NANO = 1_000_000_000
_PAGE = mmap.PAGESIZE
#: asm-generic/mman-common.h; older versions of the module lack the name.  Memory is taken when it is touched, and
#: most of this never is: the kernel need not have all of it free.
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class Kind(StrEnum):
    """What a field counts: something now, something since the start, or how long things took."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Field:
    """One thing that is counted: its base name, what it is, and the label that tells it from its siblings."""

    name: str
    kind: Kind
    help: str
    label: str = ""
    value: str = ""
    #: whether the rows' values can be summed; a process id, say, is of one worker only
    is_summable: bool = True
    #: it is the least of the rows' values that is told, of those that are not 0
    is_least: bool = False

    @property
    def key(self) -> str:
        """What `get`, `set`, `add` and `total` call it: `open`, `ended:idle`."""
        return f"{self.name}:{self.value}" if self.label else self.name


#: the causes with which a client is refused before there is a connection
REFUSALS = tuple(cause for cause, row in CAUSES.items() if row.set_by == "admission")
#: the causes of policies that `observe_only` may name
OBSERVED = (Cause.REFUSED_CLIENT, Cause.REFUSED_RATE, Cause.DENIED, Cause.MIN_RATE)

_G, _C, _H = Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM
#: Everything that is counted.
FIELDS: tuple[Field, ...] = (
    Field("pid", _G, "Process of the worker.", is_summable=False),
    Field("number", _G, "Place of the worker, from 1.", is_summable=False),
    Field("generation", _G, "Reloads before the worker was started.", is_summable=False),
    Field("accepting", _G, "Workers that accept connections."),
    Field("open", _G, "Connections now."),
    Field("held", _G, "Places of `max_connections` taken now, those of closing connections included."),
    Field(
        "certificate_expiry", _G, "When the first certificate expires, in seconds since 1970.",
        is_summable=False, is_least=True,
    ),
    Field("accepted", _C, "Connections admitted."),
    *(Field("refused", _C, "Clients accepted only to be refused.", "cause", cause) for cause in REFUSALS),
    *(Field("observed", _C, "Clients whom a policy under `observe_only` would have refused or ended.", "cause", cause)
      for cause in OBSERVED),
    *(Field("ended", _C, "Connections that are over, by the cause of their end.", "cause", cause) for cause in Cause),
    Field("bytes_received", _C, "Bytes received, of connections that are over."),
    Field("bytes_sent", _C, "Bytes sent, of connections that are over."),
    Field("handler_errors", _C, "Handlers that raised an exception of their own."),
    Field("handlers_cut", _C, "Handlers that did not return although their connections were ended."),
    Field("siblings_left", _C, "Siblings of handlers that did not return although their connections ended."),
    Field("tls_handshakes", _C, "TLS handshakes that were completed."),
    Field("certificates_rejected", _C, "Certificates that changed on disk and would not do."),
    Field("rules_rejected", _C, "Files of rules that changed and would not do."),
    Field("accept_pauses", _C, "Times accept failed for want of descriptors or memory; each is followed by a pause."),
    Field("saturated", _C, "Warnings that every thread was taken while connections waited; at most one a minute."),
    Field("held_hub", _C, "Places in the program where a handler was found to hold the hub."),
    Field("subscribers_removed", _C, "Subscribers that raised an exception and get no more events."),
    Field("connection_seconds", _H, "How long a connection lasted."),
    Field("queued_seconds", _H, "How long a connection waited for a thread."),
    Field("handler_seconds", _H, "How long a handler took."),
)  # fmt: skip
GAUGES = tuple(field for field in FIELDS if field.kind is Kind.GAUGE)
COUNTERS = tuple(field for field in FIELDS if field.kind is Kind.COUNTER)
HISTOGRAMS = tuple(field for field in FIELDS if field.kind is Kind.HISTOGRAM)

# A row: the heartbeat, then every field; a histogram takes a cell for each slot and one for its sum.
_HEARTBEAT = 0
_SUM = len(BOUNDS) + 1
_WIDTHS = [_SUM + 1 if field.kind is Kind.HISTOGRAM else 1 for field in FIELDS]
_STARTS = list(accumulate(_WIDTHS, initial=1))
#: where in its row a field is; of a histogram, its first cell
CELL_OF: dict[str, int] = {field.key: start for field, start in zip(FIELDS, _STARTS, strict=False)}
_CELLS = _STARTS[-1]
_FOLDED_CELLS = range(CELL_OF[COUNTERS[0].key], _CELLS)  # gauges come first in `FIELDS`: they are not folded


class Histogram(NamedTuple):
    """How many were in each slot: at most so long and longer than the bound before, last longer than all; the sum."""

    counts: tuple[int, ...]
    seconds: float


class Row:
    """The numbers of one worker."""

    def __init__(self, index: int, cells: memoryview, clients: ClientCounts | None) -> None:
        self.index = index
        #: for who counts much: the cells themselves, see `CELL_OF`
        self.cells = cells
        self.clients = clients

    def get(self, name: str) -> int:
        """The gauge or counter of this name."""
        return int(self.cells[CELL_OF[name]])

    def set(self, name: str, value: int) -> None:
        """Make it this."""
        self.cells[CELL_OF[name]] = value

    def add(self, name: str, amount: int = 1) -> None:
        """Make it more by this; whole, whatever other threads do."""
        cells, cell = self.cells, CELL_OF[name]
        cells[cell] += amount

    def observe(self, name: str, seconds: float) -> None:
        """Count one that took so long."""
        cells, first = self.cells, CELL_OF[name]
        slot, total, micros = first + bisect_left(BOUNDS, seconds), first + _SUM, int(seconds * MICRO)
        cells[slot] += 1
        cells[total] += micros

    def histogram(self, name: str) -> Histogram:
        """What was observed under this name."""
        return _histogram(self.cells, name)

    def beat(self, now: float) -> None:
        """The worker lives, at this monotonic moment."""
        self.cells[_HEARTBEAT] = int(now * _NANO)

    @property
    def heartbeat(self) -> float:
        """The monotonic moment of the last beat, 0.0 before the first."""
        return float(self.cells[_HEARTBEAT] / _NANO)

    def close(self) -> None:
        """Let go of the memory; `Scoreboard.close` calls it."""
        self.cells.release()
        if self.clients is not None:
            self.clients.close()


class Scoreboard:
    """All rows.  `rows` is how many there can be at once, `clients` how many clients each can tell apart (0: none).

    Made before the first fork.  The supervisor alone calls `allot` and `fold`.
    """

    def __init__(self, rows: int = 2 * MOST_WORKERS, clients: int = 0) -> None:
        own = _round(_CELLS * CELL)
        self._stride = own + _round(cells_for(clients) * CELL)
        self._words = -(-rows // 64)  # of 64 rows each: which are in use
        self._first = _round(self._words * CELL) + own  # the first row; before it the totals, before them the words
        self._limit = rows
        self._clients = clients
        self._salt = secrets.randbits(64) | 1
        self._map = _shared_memory(self._first + rows * self._stride)
        self._memory = memoryview(self._map)
        self._used = self._memory[: self._words * CELL].cast("Q")
        self._totals = self._memory[self._first - own : self._first].cast("q")
        self._made: dict[int, Row] = {}  # each row has one object in a process, so one guard of its clients
        self._known: tuple[list[int], list[Row]] = [], []  # the words, and the rows they name

    @property
    def client_room(self) -> int:
        """Of how many clients each row certainly counts the connections; 0 when of none."""
        return room_of(slots_for(self._clients)) if self._clients else 0

    def allot(self) -> Row:
        """A free row, zeroed."""
        for word, bits in enumerate(self._used):
            index = word * 64 + (~bits & (bits + 1)).bit_length() - 1  # its lowest zero
            if index < min(word * 64 + 64, self._limit):
                row = self._row(index)
                self._wipe(index)  # who was killed late may have written after its row was folded
                self._used[word] |= 1 << index % 64
                return row
        raise InternalError(f"all {self._limit} rows of the scoreboard are in use")

    def fold(self, row: Row) -> None:
        """Add what a worker counted to the totals, when it is dead, and free its row.

        Connections that were still open died with their process: they ended as `killed`.
        """
        word, bit = row.index // 64, 1 << row.index % 64
        if not self._used[word] & bit:
            raise InternalError(f"row {row.index} of the scoreboard is not in use")
        self._used[word] &= ~bit  # first: whoever sums just now may miss it, but never counts it twice
        for cell in _FOLDED_CELLS:
            self._totals[cell] += row.cells[cell]
        self._totals[CELL_OF[f"ended:{Cause.KILLED}"]] += max(row.get("open"), 0)
        self._wipe(row.index)

    def rows(self) -> list[Row]:
        """The rows in use, by index; cheap while they stay the same."""
        used = self._used.tolist()
        seen, rows = self._known
        if used != seen:
            rows = [self._row(index) for index in range(self._limit) if used[index // 64] >> index % 64 & 1]
            self._known = used, rows
        return list(rows)

    def total(self, name: str) -> int:
        """This number of all workers, the dead ones included; of a gauge, that of the living."""
        return int(self._totals[CELL_OF[name]]) + sum(row.get(name) for row in self.rows())

    def least(self, name: str) -> int:
        """The least of the workers' numbers of this name, of those that are not 0; 0 when all are."""
        return min((value for row in self.rows() if (value := row.get(name))), default=0)

    def histogram(self, name: str) -> Histogram:
        """What all workers observed under this name, the dead ones included."""
        parts = [_histogram(cells, name) for cells in (self._totals, *(row.cells for row in self.rows()))]
        counts = tuple(map(sum, zip(*(part.counts for part in parts), strict=True)))
        return Histogram(counts, sum(part.seconds for part in parts))

    def close(self) -> None:
        """Give the memory back, in this process; after it no row is of any use."""
        for row in self._made.values():
            row.close()
        for view in (self._totals, self._used, self._memory):
            view.release()
        self._map.close()

    def _row(self, index: int) -> Row:
        if index not in self._made:
            start = self._first + index * self._stride
            clients = None
            if self._clients:
                table = start + _round(_CELLS * CELL)
                cells = self._memory[table : table + cells_for(self._clients) * CELL].cast("Q")
                clients = ClientCounts(cells, self._salt)
            self._made[index] = Row(index, self._memory[start : start + _CELLS * CELL].cast("q"), clients)
        return self._made[index]

    def _wipe(self, index: int) -> None:
        """Make a row zero and give its memory back: what is read from a hole is zero."""
        start = self._first + index * self._stride
        try:
            self._map.madvise(mmap.MADV_REMOVE, start, self._stride)
        except OSError:  # not every kernel that calls itself Linux has it
            self._memory[start : start + self._stride] = bytes(self._stride)


def _histogram(cells: memoryview, name: str) -> Histogram:
    first = CELL_OF[name]
    total = first + _SUM
    return Histogram(tuple(cells[first:total]), cells[total] / MICRO)


def _round(size: int) -> int:
    """As many bytes in whole pages."""
    return -(-size // _PAGE) * _PAGE


def _shared_memory(size: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _NORESERVE)
    except (OSError, OverflowError) as error:
        raise OperatorError(
            f"cannot get {size >> 20} MiB of shared memory to count connections in ({error}): "
            "raise the limit of address space, or lower max_connections, or leave max_per_client out"
        ) from error
