# Timers: the native twin of `moorage/timers.py`.
#
# Owns      the timers of one loop, in slots of 1/32 of a second, and of 1/1024 for the few that ask for it.
# Promises  what the pure twin does; and `next_due` and `run_due_at` for a loop in C that knows the time already.
# Refuses   to be set from two threads; `cancel` alone may come from any.
# Why       a loop asks for the next timer before each wait: in C that costs no call into Python.

cimport cython
from cpython.long cimport PyLong_FromDouble

from heapq import heappop, heappush
from time import monotonic

cdef enum:
    SLOTS_PER_SECOND = 1024
    COARSE = 32
    AT_ONCE = 16  # calls made in one go

#: below it a slot's number fits into 64 bits
cdef double LARGE = 1e15

#: what `next_due` answers when there is no timer: later than every clock
cdef double NEVER = 1e300


@cython.final
cdef class Timer:
    """One call at one moment."""

    cdef readonly object call
    cdef set _slot

    def cancel(self):
        """Make the call never happen; after it happened this does nothing."""
        self._slot.discard(self)


@cython.final
cdef class Wheel:
    """The timers of one loop."""

    cdef object _clock
    cdef bint _has_system_clock
    cdef dict _slots
    cdef list _keys  # a heap of the keys of `_slots`
    cdef long long _last_key  # of the slot that was used last: the timers of many clients fall into one
    cdef set _last_slot  # None when it is gone

    def __init__(self, clock):
        self._clock = clock
        self._has_system_clock = clock is monotonic
        self._slots = {}
        self._keys = []

    def call_at(self, double when, call):
        """Call at `when`, in seconds of the clock, or up to 1/32 of a second later."""
        return self.at(when, call)

    cdef Timer at(self, double when, call):
        cdef long long key
        when *= SLOTS_PER_SECOND // COARSE
        if not 0 <= when < LARGE:
            return self._put((PyLong_FromDouble(when) + 1) * COARSE, call)  # raises for nan and inf, as the pure twin
        key = (<long long> when + 1) * COARSE
        if key == self._last_key and self._last_slot is not None:
            return timer_in(self._last_slot, call)
        timer = self._put(key, call)
        self._last_key, self._last_slot = key, timer._slot
        return timer

    def call_sharply_at(self, double when, call):
        """As `call_at`, at most a millisecond late; for pauses shorter than a slot."""
        return self._put(PyLong_FromDouble(when * SLOTS_PER_SECOND) + 1, call)

    cdef Timer _put(self, key, call):
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = set()
            heappush(self._keys, key)
        return timer_in(slot, call)

    def delay(self):
        """Seconds until the next timer is due, 0.0 when one is, None when there is none."""
        cdef double left = self.left()
        return None if left == NEVER else max(left, 0.0)

    cdef double left(self) except? -1.0:
        """Seconds until the next timer is due, zero or less when one is, NEVER when there is none."""
        cdef double due = self.next_due()
        if due == NEVER:
            return NEVER
        return due - (now() if self._has_system_clock else <double> self._clock())

    def run_due(self):
        """Make the calls that are due."""
        if self._keys:
            self.run_due_at(self._clock())

    cdef double next_due(self) except? -1.0:
        """The moment of the first slot with a timer in it, or NEVER."""
        while self._keys:
            key = self._keys[0]
            if <set> self._slots[key]:
                return <double> key / SLOTS_PER_SECOND
            self._drop_first()  # all its timers were cancelled
        return NEVER

    cdef int run_due_at(self, double now) except -1:
        """Make the calls that are due at this moment of the clock, as many as are made in one go."""
        cdef int left
        now *= SLOTS_PER_SECOND
        for left in range(AT_ONCE):
            while self._keys and <double> self._keys[0] <= now and not <set> self._slots[self._keys[0]]:
                self._drop_first()
            if not self._keys or <double> self._keys[0] > now:
                return 0
            (<Timer> (<set> self._slots[self._keys[0]]).pop()).call()
        return 0

    cdef int _drop_first(self) except -1:
        self._last_slot = None
        del self._slots[heappop(self._keys)]
        return 0


cdef Timer timer_in(set slot, call):
    cdef Timer timer = Timer.__new__(Timer)
    timer.call = call
    timer._slot = slot
    slot.add(timer)
    return timer
