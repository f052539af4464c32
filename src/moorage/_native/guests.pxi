# Guests: the native twin of `moorage/guests.py`, which says what it is for.
#
# Owns      the table of open connections.
# Promises  what the pure twin does; a connection that ends leaves it without a call into Python.

from threading import Condition


cdef class Guests:
    """What a connection's home has: settings, watch, events, and the table that it is in."""

    cdef public object settings, watch, events, draining, on_empty
    cdef public dict _guests
    cdef public object _fewer
    cdef public int _watchers

    def __init__(self, settings, watch, events):
        self.settings = settings
        self.watch = watch
        self.events = events
        self.draining = False
        self.on_empty = do_nothing
        self._guests = {}
        self._fewer = Condition()

    def __len__(self):
        return len(self._guests)

    def __iter__(self):
        return iter(tuple(self._guests.values()))

    def forget(self, guest):
        """This connection is over; from any thread."""
        self._forget(guest.id)

    cdef int _forget(self, id) except -1:
        self._guests.pop(id, None)
        if self._watchers or self.draining is not False:
            self._tell()
        return 0

    cdef int _tell(self) except -1:
        if self._watchers:
            with self._fewer:
                self._fewer.notify_all()
        if self.draining and not self._guests:
            self.on_empty()
        return 0


def do_nothing():
    """When the last connection is over, and nobody waits for it."""
