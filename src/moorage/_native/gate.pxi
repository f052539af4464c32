# Gate: the native twin of `moorage/gate.py`, which says what it is for.
#
# Owns      the number of tickets that are out.
# Promises  what the pure twin does; nothing interrupts it between two lines that call nobody.

from moorage.errors import SettingError


@cython.final
cdef class Gate:
    """Counts.  `limit` is the number of tickets that can be out at once."""

    cdef readonly Py_ssize_t limit, free
    cdef readonly list _waiters

    def __init__(self, Py_ssize_t limit):
        if limit < 1:
            raise SettingError(f"max_connections is {limit}; a server needs at least 1")
        self.limit = self.free = limit
        self._waiters = []

    @property
    def taken(self):
        """How many tickets are out."""
        return self.limit - self.free

    def take(self):
        """The right of one connection to be served, or None when all are out."""
        return self._take()

    def when_free(self, callback):
        """Call back once, as soon as a ticket is free, in the thread that gave it back."""
        self._waiters.append(callback)
        if self.free:
            self._call_waiters()

    cdef Ticket _take(self):
        if self.free == 0:
            return None
        cdef Ticket ticket = Ticket.__new__(Ticket)
        self.free -= 1
        ticket._gate = self
        return ticket

    cdef int _call_waiters(self) except -1:
        for _ in range(len(self._waiters)):  # not those that wait again because they found none
            if not self._waiters:  # another thread was faster
                break
            self._waiters.pop(0)()
        return 0


@cython.final
cdef class Ticket:
    """The right of one connection to be served."""

    cdef Gate _gate

    def give_back(self):
        """Give the right back; every call but the first does nothing."""
        self._give_back()

    cdef int _give_back(self) except -1:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.free += 1
            if gate._waiters:
                gate._call_waiters()
        return 0
