# Intake: the way of a client from a listener to its fiber, in one step.
#
# Owns      nothing: ticket, socket and connection are the gate's, the connection's and the table's as everywhere.
# Promises  what `Acceptor._accept_one`, `Reception.admit` and `FibersRunner.submit` do for a client that nobody asks
#           anything about: TCP over IPv4, no pace, no door, no setup, no wait for its first byte.
# Refuses   to judge an error, or to wait for a ticket: it stops, and accepting one, in Python, finds why.
# Why       those are 250 steps of the interpreter; a client that says one thing and goes costs twice that in all.

from moorage.events import ConnectionOpened

cdef extern from "Python.h":
    enum:
        Py_tp_new
    void *PyType_GetSlot(PyTypeObject *type, int slot) except NULL

ctypedef PyObject *(*new_t)(PyTypeObject *type, PyObject *arguments, PyObject *names) except NULL

cdef object connection_opened = ConnectionOpened
cdef tuple nothing = ()


@cython.final
cdef class Intake:
    """Of the listener with this descriptor and kind; a client's fiber makes `call` with its connection."""

    cdef int _fd, _family, _type, _proto
    cdef object _gate, _kind, _ids, _call
    cdef new_t _new
    cdef Guests _guests
    cdef Crew _crew
    cdef double _due_after

    def __init__(self, int fd, kind, gate, Guests reception not None, Crew crew not None, call):
        self._fd = fd
        self._family, self._type, self._proto = kind
        self._gate = gate
        self._guests = reception
        self._crew = crew
        self._call = call
        self._ids = reception.ids
        self._kind = reception.make
        if self._kind.__init__ is not Lifecycle.__init__:
            raise TypeError(f"{self._kind!r} has an __init__ of its own, which this would pass by")
        self._new = <new_t> PyType_GetSlot(<PyTypeObject *> self._kind, Py_tp_new)
        settings = reception.settings
        due = [after for after in (settings.idle_timeout, settings.lifetime) if after is not None]
        self._due_after = min(due) if due else NEVER

    def take(self, int most):
        """Take up to so many clients; returns how many.  Stops after one of whom somebody is told."""
        cdef int taken
        cdef Lifecycle guest
        for taken in range(most):
            ticket = (<Gate> self._gate)._take() if isinstance(self._gate, Gate) else self._gate.take()
            if ticket is None:
                return taken
            try:
                guest = self._take_one(ticket)
            except:
                ticket.give_back()
                raise
            if guest is None:
                ticket.give_back()
                return taken
            events = self._guests.events
            if connection_opened in events.wanted:
                events.emit(connection_opened(guest.id, guest.peer, guest.local))
                return taken + 1
        return most

    cdef Lifecycle _take_one(self, ticket):
        """None when there is nobody, or something is wrong."""
        cdef sockaddr_in address
        cdef Lifecycle guest
        cdef PyObject *made
        cdef int fd = accept_fd(self._fd, &address)
        if fd < 0:
            return None
        sock = socket_of(fd, self._family, self._type, self._proto)
        peer = (name_of(self._family, &address), ntohs(address.sin_port))
        made = self._new(<PyTypeObject *> self._kind, <PyObject *> nothing, NULL)
        guest = <Lifecycle> made
        Py_DECREF(made)
        guest._come(sock, fd, peer, ticket, self._guests, next(self._ids))
        guest.state = queued
        self._crew._spawn(self._call, guest)  # which may fail; until then nobody knows of this client
        if self._due_after != NEVER:
            guest._timer = self._crew._wheel.at(guest._opened_at + self._due_after, guest._look)
        self._guests._guests[guest.id] = guest
        return guest
