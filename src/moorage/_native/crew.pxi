# Crew: the native twin of `moorage/hub/crew.py`, which says what it is for.
#
# Owns      which fibers are in a call, which wait for one, and what was raised in those that are to stop.
# Promises  what the pure twin does.
# Refuses   to make the calls: a frame of C below a handler would be copied whenever that waits.

cdef enum:
    KEPT = 64  # as in the pure twin


cdef class Crew(Loop):
    """A loop, and the fibers that it was given."""

    cdef readonly set _busy
    cdef readonly dict _stopped
    cdef readonly list _idle

    def __init__(self, wheel, calls):
        Loop.__init__(self, wheel, calls)
        self._busy, self._stopped, self._idle = set(), {}, []

    def spawn(self, call, argument=None):
        """Call in a fiber, soon, with this argument unless it is None; returns the fiber."""
        return self._spawn(call, argument)

    cdef object _spawn(self, call, argument):
        fiber = self._idle.pop() if self._idle else self._hire()
        fiber.call = call
        fiber.argument = argument
        self._busy.add(fiber)
        self._queue.append(fiber)
        return fiber

    def _settle(self, me):
        """The call of this fiber, the caller, is over: wait for its next one; False when it is not kept."""
        self._busy.discard(me)
        me.call = me.argument = me.stored = None
        if self._stopped:
            self._thrown.pop(me, None)
            self._stopped.pop(me, None)
        if len(self._idle) >= KEPT:
            return False
        self._idle.append(me)
        while me.call is None:
            self._rest(<PyObject *> me)
        return True
