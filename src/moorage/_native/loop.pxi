# Loop: the native twin of `moorage/hub/loop.py`, which says what it is for.
#
# Owns      one epoll, the events that were fetched from it, and the table of streams that are registered.
# Promises  what the pure twin does.
# Refuses   pointers in epoll's data: there is a slot and a generation, so that an event for a stream that is gone
#           finds nobody; and arrays on the C stack of a fiber, of which every switch would make a copy.

cdef extern from "Python.h":
    Py_ssize_t PyObject_Size(object) except -1
    int PyList_Append(object, object) except -1

cdef enum:
    READ_EVENTS = EPOLLIN | EPOLLRDHUP
    #: after these a short read does not mean that there is no more
    UNUSUAL_EVENTS = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI
    EVENT_MASK = READ_EVENTS | EPOLLPRI
    BATCH = 256  # events asked for at once
    BUDGET = 32  # receives and sends in a row without a wait; then others have their turn
    LONGEST = 2147483647  # milliseconds, in an int

cdef uint64_t OF_MAIN = (<uint64_t> 1) << 63  # a descriptor of `main`, and no slot

ctypedef struct Slot:
    PyObject *stream  # owned; NULL when it is free
    uint32_t generation
    int next_free


cdef class Loop:
    """Made anywhere; lives in the thread that calls `enter` and then `run`."""

    plain = True
    is_loop = True

    cdef int _epfd
    cdef epoll_event *_events
    cdef int _count, _at  # of these events
    cdef Slot *_slots
    cdef int _size, _free  # of the slots; the first free one
    cdef Wheel _wheel
    cdef object _calls
    cdef list _queue  # fibers to be resumed in the next round
    cdef list _turn  # and in this one
    cdef Py_ssize_t _next  # of those, the first that was not
    cdef list _newborn, _ready
    cdef bint _has_polled, _is_interrupted
    cdef int _budget
    cdef readonly object _thrown
    cdef readonly object main
    cdef object _main_too  # see `enter`; directly after `main`, so that nothing runs between the loss of the two
    cdef readonly unsigned long thread_id
    cdef public object error
    cdef public object bell
    cdef readonly bint asleep
    cdef readonly unsigned long switches

    def __cinit__(self, *_):
        self._epfd = -1
        self._free = -1

    def __init__(self, Wheel wheel not None, calls):
        load_greenlet()
        self._wheel = wheel
        self._calls = calls
        self._queue, self._turn, self._newborn, self._ready = [], [], [], []
        self._thrown = {}
        self._budget = BUDGET
        self._events = <epoll_event *> malloc(BATCH * sizeof(epoll_event))
        if self._events is NULL:
            raise MemoryError
        self._epfd = epoll_create1(EPOLL_CLOEXEC)
        if self._epfd < 0:
            raise_errno()

    def __dealloc__(self):
        cdef int index
        if self._epfd >= 0:
            close_fd(self._epfd)
        for index in range(self._size):
            if self._slots[index].stream is not NULL:
                Py_DECREF(self._slots[index].stream)
        free(self._slots)
        free(self._events)

    # For main

    def _current(self):
        cdef PyObject *me = greenlet_current()
        answer = <object> me
        Py_DECREF(me)
        return answer

    def enter(self):
        """This thread turns it."""
        # Twice: when a thread ends whose main greenlet has one referrer that the collector does not find, greenlet takes
        # that reference for lost and drops it (~ThreadState); a loop that is being collected is not found.
        self.main = self._main_too = self._current()
        self.thread_id = PyThread_get_thread_ident()

    def run(self):
        """Run fibers until `main` is wanted: returns its descriptors that are ready."""
        cdef PyObject *target
        self._has_polled = False
        while True:
            while self._newborn:  # one by one: each may wait, and whoever waits must see the others
                fiber = self._newborn.pop(0)
                self._switch(<PyObject *> fiber)
            target = self._pick()
            if target is <PyObject *> self.main:
                Py_DECREF(target)
                if not self._newborn:
                    break
            else:
                try:
                    self._switch(target)
                finally:
                    Py_DECREF(target)
        self._is_interrupted = False
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        ready, self._ready = self._ready, []
        return ready

    def listen(self, int fd):
        """Wake `main` whenever this descriptor is readable."""
        self._control(EPOLL_CTL_ADD, fd, EPOLLIN, OF_MAIN | <uint64_t> fd)

    def unlisten(self, int fd):
        """Forget a descriptor given to `listen`."""
        self._control(EPOLL_CTL_DEL, fd, 0, 0)

    def fileno(self):
        """Of its epoll; -1 when it is closed."""
        return self._epfd

    def close(self):
        """Close the epoll; no fiber may be left."""
        if self._epfd >= 0:
            close_fd(self._epfd)
            self._epfd = -1

    # For fibers

    def ready(self, fiber):
        """Resume this fiber soon; a fiber must expect to be resumed without a reason."""
        self._queue.append(fiber)

    def rest(self):
        """The calling fiber gives control away until somebody gives it back."""
        cdef PyObject *me = greenlet_current()
        try:
            self._rest(me)
        finally:
            Py_DECREF(me)

    def spend(self):
        """Something was done without a wait; after many such the others have their turn."""
        self._spend()

    def give_way(self):
        """Let every other ready fiber go first."""
        self._queue.append(self._current())
        self.rest()

    # Waits of streams

    def wait_readable(self, Stream stream not None):
        """Rest until this stream is readable, or without a reason."""
        self._wait_readable(stream)

    def wait_writable(self, Stream stream not None, bint or_readable=False):
        """Rest until this stream is writable, or readable if that is wanted too, or without a reason."""
        cdef PyObject *me
        if stream._writer is not None:
            if stream._writer is not stream._reader:
                raise RuntimeError("another fiber is writing to this connection")
            self.ready(stream._writer)  # who waits for both, until a writer comes: then for reading alone
        if stream._slot < 0:
            self._register(stream)
        if not stream._has_out:  # and an event, if it is writable by now
            self._control(EPOLL_CTL_MOD, stream._fd, EVENT_MASK | EPOLLOUT | EPOLLET, self._data(stream._slot))
            stream._has_out = True
        me = greenlet_current()
        stream._writer = <object> me
        if or_readable:
            stream._reader = <object> me
        try:
            self._rest(me)
        finally:
            if stream._writer is <object> me:
                stream._writer = None
            if or_readable:
                stream._reader = None
            Py_DECREF(me)

    def forget(self, Stream stream not None, bint is_given_away=True):
        """The descriptor is about to belong to somebody else, or to be closed, which takes it out of the epoll."""
        self._forget(stream, is_given_away)

    cdef int _forget(self, Stream stream, bint is_given_away) except -1:
        cdef int index = stream._slot
        if stream._deadline_look is not None:
            stream._deadline_look.cancel()
            stream._deadline_look = None
        if 0 <= index < self._size and self._slots[index].stream is <PyObject *> stream:  # else it is registered elsewhere
            stream._slot = -1
            self._slots[index].stream = NULL
            self._slots[index].generation += 1
            self._slots[index].next_free = self._free
            self._free = index
            Py_DECREF(<PyObject *> stream)
            if is_given_away:  # of no consequence when the epoll is closed
                epoll_ctl(self._epfd, EPOLL_CTL_DEL, stream._fd, NULL)
        return 0

    cdef int _wait_readable(self, Stream stream) except -1:
        cdef PyObject *me
        if PyThread_get_thread_ident() != self.thread_id:
            self.wait_outside(stream, READ_EVENTS, None)
            return 0
        if stream._reader is not None:
            raise RuntimeError("another fiber is reading from this connection")
        if stream._slot < 0:
            self._register(stream)
        me = greenlet_current()
        if me is <PyObject *> self.main:
            Py_DECREF(me)
            self.wait_outside(stream, READ_EVENTS, None)
            return 0
        stream._reader = <object> me
        try:
            self._rest(me)
        finally:
            stream._reader = None
            Py_DECREF(me)
        return 0

    cdef int _register(self, Stream stream) except -1:
        cdef int index = self._free
        if index < 0:
            index = self._grow()
        self._control(EPOLL_CTL_ADD, stream._fd, EVENT_MASK | EPOLLET, self._data(index))
        self._free = self._slots[index].next_free
        self._slots[index].stream = <PyObject *> stream
        Py_INCREF(<PyObject *> stream)
        stream._slot = index
        return 0

    cdef int _grow(self) except -1:
        """More slots; returns the first free one."""
        cdef int index, size = self._size * 2 or 64
        cdef Slot *slots = <Slot *> realloc(self._slots, size * sizeof(Slot))
        if slots is NULL:
            raise MemoryError
        for index in range(self._size, size):
            slots[index].stream = NULL
            slots[index].generation = 0
            slots[index].next_free = index + 1 if index + 1 < size else -1
        index = self._size
        self._slots, self._size, self._free = slots, size, index
        return index

    cdef uint64_t _data(self, int index) noexcept:
        return <uint64_t> (self._slots[index].generation & 0x7fffffff) << 32 | <uint32_t> index

    cdef int _control(self, int how, int fd, uint32_t events, uint64_t data) except -1:
        cdef epoll_event event
        event.events = events
        event.data.u64 = data
        if epoll_ctl(self._epfd, how, fd, &event) < 0:
            raise_errno()
        return 0

    # The heart

    cdef inline int _spend(self) except -1:
        self._budget -= 1
        if self._budget < 0 and PyThread_get_thread_ident() == self.thread_id:
            self.give_way()
        return 0

    cdef int _switch(self, PyObject *target) except -1:
        self.switches += 1
        cdef PyObject *result = greenlet_switch(target, NULL, NULL)
        if result is NULL:
            return -1
        Py_DECREF(result)
        return 0

    cdef int _rest(self, PyObject *me) except -1:
        """Give control away until somebody gives it back."""
        cdef PyObject *target = self._pick()
        try:
            if target is not me:
                self._switch(target)
        finally:
            Py_DECREF(target)
        self._budget = BUDGET
        if self._thrown:
            error = self._thrown.pop(<object> me, None)
            if error is not None:
                raise error
        return 0

    cdef PyObject *_pick(self) except NULL:
        """A new reference to the fiber to go on with, or to `main`."""
        cdef PyObject *target
        cdef double due
        cdef bint is_wanted
        while True:
            while self._next < len(self._turn):
                fiber = self._turn[self._next]
                self._turn[self._next] = None
                self._next += 1
                target = <PyObject *> fiber
                if greenlet_is_active(target):
                    Py_INCREF(target)
                    return target
                if not greenlet_is_started(target):
                    self._newborn.append(fiber)
            while self._at < self._count:
                target = self._owner(&self._events[self._at])
                self._at += 1
                if target is not NULL:
                    Py_INCREF(target)
                    return target
            if self._newborn:
                break
            due = self._wheel.left()
            is_wanted = self._is_interrupted or self.error is not None or due <= 0 or len(self._ready) > 0 \
                or PyObject_Size(self._calls) > 0
            if is_wanted and self._has_polled:
                break
            if self._epfd < 0:  # a fiber that would not leave, and is thrown away now: here it ends
                fiber = self._current().parent or self.main
                Py_INCREF(<PyObject *> fiber)
                return <PyObject *> fiber
            self._has_polled = True
            self._poll(0 if is_wanted or len(self._queue) > 0 else due)
            if self._queue:
                self._turn.clear()
                self._turn, self._queue = self._queue, self._turn
                self._next = 0
        target = <PyObject *> self.main
        Py_INCREF(target)
        return target

    cdef int _poll(self, double delay) except -1:
        cdef int count, timeout
        cdef int epfd = self._epfd
        cdef epoll_event *events = self._events
        self._at = self._count = 0
        self.switches += 1  # a fiber that is alone goes on without a switch; see watchdog
        self.asleep = True  # from here on `call_soon` wakes; a call made before is seen by the next line
        if delay <= 0 or PyObject_Size(self._calls) > 0:
            count = epoll_wait(epfd, events, BATCH, 0)
        else:
            timeout = -1 if delay >= NEVER else <int> min(delay * 1000 + 1, <double> LONGEST)
            with nogil:
                count = epoll_wait(epfd, events, BATCH, timeout)
        self.asleep = False
        if count < 0:
            if errno != EINTR:
                raise_errno()
            self._is_interrupted = True  # `main` is to run the signal's handler
            count = 0
        self._count = count
        if self.bell is not None:
            bell, self.bell = self.bell, None
            bell.release()
        return 0

    cdef PyObject *_owner(self, epoll_event *event) except? NULL:
        """Whom this event makes ready: a borrowed reference, or NULL for nobody."""
        cdef uint64_t data = event.data.u64
        cdef uint32_t mask = event.events
        cdef int index = <int> <uint32_t> data  # a wider mask would be a Python integer
        cdef Stream stream
        if data & OF_MAIN:
            self._ready.append(index)
            return NULL
        if self._slots[index].stream is NULL or data != self._data(index):
            return NULL
        stream = <Stream> self._slots[index].stream
        if mask & UNUSUAL_EVENTS:
            stream._sticky = True
        if mask & ~(<uint32_t> EPOLLOUT):
            stream._readable = True
        if mask & ~(<uint32_t> READ_EVENTS):
            stream._writable = True
        if stream._writer is not None and stream._writable:
            if stream._reader is not None and stream._readable:
                self._queue.append(stream._reader)
            return <PyObject *> stream._writer
        if stream._reader is not None and stream._readable:
            return <PyObject *> stream._reader
        return NULL
