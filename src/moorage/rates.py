"""Rates: how many come in each second, of all together and of each client.

Owns      for each of them one moment: when it would have come if all had kept their distance (GCRA, ITU-T I.371);
          the table of clients; the memory of both, of one process or of all forked after it was made.
Promises  `burst` at once after a quiet time, then one each `1 / per_second`; a `take` that is refused costs nothing;
          exact in one process and between several that run; a worker that is stopped in the middle of a `take`
          keeps nobody waiting: others then decide without the lock, and one too many may come in.
Refuses   to grow: a table has `CLIENTS` places, eight that a client may be at; when all eight are taken the one
          that was quiet for longest is forgotten, and begins anew.
Why       a record lock (fcntl(2)) goes with the process that holds it, even one that is killed, and can be tried
          without waiting.  A client's moment that has passed says nothing: its place is free, nothing is removed.
"""

import fcntl
import mmap
import os
import secrets

from .errors import OperatorError, SettingError

#: clients that are told apart at once: 1 MiB, of which only what is touched is ever taken
CLIENTS = 1 << 16
#: places at which one client may be: two lines of the cache
_WAYS = 8
_BUCKETS = CLIENTS // _WAYS
_CELL = 8
_PAGE = mmap.PAGESIZE
#: the total has a page of its own; after it key and moment of each client
_SIZE = _PAGE + 2 * CLIENTS * _CELL
#: tries to get the lock, with the processor offered to others between two: the holder needs some three microseconds
TRIES = 100
_NANO = 1_000_000_000
#: a process may have looked at the clock so long before it decides: it was not given the processor
_SKEW = _NANO
_MASK = (1 << 64) - 1
_SHIFT = 65 - _BUCKETS.bit_length()


class Rhythm:
    """So many a second and so many at once, as moments in nanoseconds."""

    def __init__(self, per_second: float, burst: int) -> None:
        if per_second <= 0 or burst < 1:
            raise SettingError(
                f"{per_second:g} a second and {burst} at once let nobody in: give more than 0, and at least 1"
            )
        self.interval = max(1, int(_NANO / per_second))
        self._ahead = (burst - 1) * self.interval

    def step(self, moment: int, now: int) -> tuple[int, int]:
        """The moment after one more has come now, and 0; or, for one too many, nanoseconds to wait as the second."""
        if moment <= now:
            return now + self.interval, 0
        if moment - now > self._ahead + self.interval + _SKEW:  # a reload has made the rhythm faster
            moment = now + self._ahead + self.interval
        if moment - now > self._ahead:
            return moment, moment - now - self._ahead
        return moment + self.interval, 0


class Memory:
    """Where moments are kept; with a descriptor that is locked where several processes keep them."""

    def __init__(self, fd: int = -1) -> None:
        #: what is locked; -1 where one process decides alone
        self.fd = fd
        self._map = mmap.mmap(-1, _SIZE)  # of no file: of a file's it would keep a descriptor more
        self._view = memoryview(self._map)
        self.cells = self._view.cast("Q")
        #: an odd number that no client knows: who may choose addresses cannot choose such that meet at one place
        self.salt = secrets.randbits(64) | 1

    def hold(self, place: int) -> bool:
        """Lock one place against other processes, or find that it cannot be had."""
        if self.fd < 0:
            return False
        for _ in range(TRIES):
            try:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError:
                os.sched_yield()
            else:
                return True
        return False

    def let_go(self, place: int) -> None:
        """Let others have this place, after a `hold` that was true."""
        fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, place)

    def rate(self, per_second: float, burst: int) -> "Rate":
        """The rate of all together."""
        return Rate(Rhythm(per_second, burst), self)

    def client_rates(self, per_second: float, burst: int) -> "ClientRates":
        """The rate of each client."""
        return ClientRates(Rhythm(per_second, burst), self)


class SharedRates(Memory):
    """The moments of all processes forked after it was made, whatever the rates are; an upgrade begins anew."""

    def __init__(self) -> None:
        try:
            fd = os.memfd_create("moorage-rates", os.MFD_CLOEXEC)
            try:
                super().__init__(fd)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise OperatorError(
                f"cannot get {_SIZE >> 10} KiB of shared memory to count arrivals in ({error}): "
                "raise the limit of address space or of open files"
            ) from error

    def close(self) -> None:
        """Give the memory back, in this process; a second call does nothing."""
        if self.fd >= 0:
            self.cells.release()
            self._view.release()
            self._map.close()
            os.close(self.fd)
            self.fd = -1


class Rate:
    """All together.  For one thread of each process, that which turns the Watch."""

    def __init__(self, rhythm: Rhythm, memory: Memory) -> None:
        self._rhythm = rhythm
        self._memory = memory

    def take(self, now: float) -> float:
        """Let one in: 0.0.  Else the seconds until one may come in, and nothing is taken."""
        memory, moment = self._memory, round(now * _NANO)
        is_held = memory.hold(0)
        try:
            memory.cells[0], wait = self._rhythm.step(memory.cells[0], moment)
        finally:
            if is_held:
                memory.let_go(0)
        return wait / _NANO

    def put_back(self) -> None:
        """Who was let in has not come in after all."""
        memory = self._memory
        is_held = memory.hold(0)
        try:
            memory.cells[0] = max(0, memory.cells[0] - self._rhythm.interval)
        finally:
            if is_held:
                memory.let_go(0)


class ClientRates:
    """Each client by itself; as `Rate`, with a key of 64 bits, not 0."""

    def __init__(self, rhythm: Rhythm, memory: Memory) -> None:
        self._rhythm = rhythm
        self._memory = memory

    def take(self, key: int, now: float) -> float:
        """Let one of this client in: 0.0.  Else the seconds until one may come in, and nothing is taken."""
        memory, moment = self._memory, round(now * _NANO)
        bucket = ((key * memory.salt) & _MASK) >> _SHIFT
        is_held = memory.hold(1 + bucket)
        try:
            return self._take(_PAGE // _CELL + bucket * 2 * _WAYS, key, moment) / _NANO
        finally:
            if is_held:
                memory.let_go(1 + bucket)

    def _take(self, first: int, key: int, now: int) -> int:
        """The keys of a bucket stand before their moments."""
        cells = self._memory.cells
        keys, moments = cells[first : first + _WAYS].tolist(), cells[first + _WAYS : first + 2 * _WAYS].tolist()
        if key in keys:
            at = keys.index(key)
            cells[first + _WAYS + at], wait = self._rhythm.step(moments[at], now)
            return wait
        at = moments.index(min(moments))  # free, or that of the one who was quiet for longest
        cells[first + _WAYS + at], wait = self._rhythm.step(0, now)
        cells[first + at] = key
        return wait
