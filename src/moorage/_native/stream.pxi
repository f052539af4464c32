# Stream: the native twin of `moorage/transport/stream.py`, which says what it is for.
#
# Owns      the fields of a stream, and the calls that every message makes.
# Promises  what the pure twin does; never more than one call into the kernel where one is enough.
# Refuses   large buffers on the C stack of a frame that waits: what is received lands in one buffer of this module,
#           which nobody else can touch before `bytes` are made of it, since the interpreter is held meanwhile.

cdef enum:
    SCRATCH = 65536
    RECV_SIZE = 16384  # one receive for lines and small blocks
    BLOCK_SIZE = 1048576

cdef char scratch[SCRATCH]
cdef bytes EMPTY = b""  # the one: all empty bytes are the same object


cdef object last_limits = None  # those of the last stream, which are mostly those of the next
cdef Py_ssize_t last_line_limit, last_message_limit


cdef int remember_limits(limits) except -1:
    global last_limits, last_line_limit, last_message_limit
    last_line_limit = limits.line_limit
    last_message_limit = limits.message_limit
    last_limits = limits
    return 0


cdef class Stream:
    """Receives and sends on one socket, which it borrows: it never closes it."""

    cdef public object _sock, _limits, _waiter, _buffer
    cdef public object _timeout, _until, _message_begun, _in_vain, _ended, _line
    cdef public object _reader, _writer, _deadline_look, _rfile, _wfile, _text
    cdef public object _outbox
    cdef readonly object _tls
    cdef object _decrypt, _encrypt  # bound methods of that session
    cdef Loop _loop_
    cdef public double _waiting_since, _moved_at, _due_read, _due_write, _record_begun
    cdef public long long _moved, _unsent
    cdef public long long bytes_received, bytes_sent
    cdef Py_ssize_t _line_limit, _message_limit
    cdef int _fd
    cdef readonly int _slot
    cdef public bint _is_shared, _special, _told, _writing, _readable, _writable, _sticky
    cdef readonly bint _has_out

    def __init__(self, sock, limits):
        self._begin(sock, sock.fileno(), limits)

    cdef int _begin(self, sock, int fd, limits) except -1:
        self._sock = sock
        self._fd = fd
        self._limits = limits
        if limits is not last_limits:
            remember_limits(limits)
        self._line_limit = last_line_limit
        self._message_limit = last_message_limit
        self._buffer = self._outbox = EMPTY
        self._slot = -1
        self._special = self._readable = self._writable = True
        self._sticky = False
        return 0

    @property
    def _loop(self):
        return self._loop_

    # Receiving

    def recv(self, Py_ssize_t size, int flags=0, /):
        """Up to `size` bytes, b"" at the end of the stream; as `socket.recv`."""
        if self._special or flags or self._buffer is not EMPTY or size < 0:
            return self._recv_special(size, flags)
        return self._receive_bytes(size)

    def recv_into(self, buffer, Py_ssize_t nbytes=0, int flags=0, /):
        """Receive into a writable buffer and return the number of bytes; as `socket.recv_into`."""
        cdef Py_buffer view
        if nbytes < 0:
            raise ValueError("negative buffersize in recv_into")
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            return self._receive_into(<char *> view.buf, min(nbytes or view.len, view.len), flags)
        finally:
            PyBuffer_Release(&view)

    def readline(self, size=-1, /):
        """One line with its newline; the last one may lack it; b"" at the end of the stream."""
        return self._read_line(size)

    cdef object _read_line(self, size):
        cdef Py_ssize_t count, limit = self._line_limit
        if size is not None and size >= 0:
            limit = size
        if self._buffer is EMPTY and limit:
            data = self._recv_special(RECV_SIZE, 0) if self._special else self._receive_bytes(RECV_SIZE)
            count = PyBytes_Size(data)
            if count == 0 or (count <= limit and newline(PyBytes_AsString(data), count) == count):
                return data  # exactly one line, or the end of the stream: no copy
            self._buffer = PyByteArray_FromStringAndSize(PyBytes_AsString(data), count)
        if PyByteArray_CheckExact(self._buffer):
            count = newline(PyByteArray_AsString(self._buffer), PyByteArray_Size(self._buffer))
            if 0 < count <= limit:
                return self._take_front(count)
        return self._readline_special(size)

    def read_exactly(self, Py_ssize_t size, /):
        """Exactly `size` bytes."""
        cdef Py_ssize_t count
        if 0 < size <= min(RECV_SIZE, self._message_limit) and not self._special and self._buffer is EMPTY:
            data = self._receive_bytes(RECV_SIZE)
            count = PyBytes_Size(data)
            if count == size:
                return data
            if count:
                self._buffer = PyByteArray_FromStringAndSize(PyBytes_AsString(data), count)
        if PyByteArray_CheckExact(self._buffer) and PyByteArray_Size(self._buffer) >= size >= 0:
            return self._take_front(size)
        return self._read_exactly_special(size)

    def read_until(self, delimiter, limit=None, /):
        """Everything up to and with the delimiter."""
        return self._read_until_special(delimiter, limit)

    # Sending

    def send(self, data, int flags=0, /):
        """Send what the kernel takes, at least one byte, and return the number; as `socket.send`."""
        cdef Py_ssize_t count, size
        if not (self._special or self._writing or flags or self._tls is not None):
            count = self._send_now(data, &size)
            if self._writing:
                self._end_turn()
            if count >= 0:
                if self._loop_ is not None:
                    self._loop_._spend()
                return count
        return self._send_special(data, flags)

    def sendall(self, data, int flags=0, /):
        """Send everything.  `TimeoutError` or `write_stalled` only when no byte moves for that long."""
        if flags:
            self._sendall_special(data, flags)
        else:
            self._send_whole(data)

    cdef Py_ssize_t _send_whole(self, data) except -1:
        """Returns the length in bytes."""
        cdef Py_ssize_t count, size
        if self._special or self._writing:
            self._sendall_special(data, 0)
            return memoryview(data).nbytes
        if self._tls is not None:
            return send_encrypted(self, data)
        count = self._send_now(data, &size)
        if count < size:
            self._writing = True
            self._send_rest(memoryview(data).cast("B")[max(count, 0) :])
        if self._writing:
            self._end_turn()
        if self._loop_ is not None:  # not before: who has the turn then would write into the middle of this message
            self._loop_._spend()
        return size

    cdef Py_ssize_t _send_now(self, data, Py_ssize_t *size) except -2:
        """What the kernel takes at once, of so many bytes; -1 when it is full."""
        cdef Py_ssize_t count
        cdef Py_buffer view
        if PyBytes_CheckExact(data):
            size[0] = PyBytes_Size(data)
            count = self._send_some(PyBytes_AsString(data), size[0])
        else:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            size[0] = view.len
            count = self._send_some(<const char *> view.buf, view.len)
            PyBuffer_Release(&view)
        if count < 0:
            if errno != EAGAIN:
                error = error_of(errno)
                if self._writing:
                    self._end_turn()
                self._failed(error)
            self._writable = False
            return -1
        if self._waiting_since:  # somebody else waits in a read; otherwise the next wait is the later moment
            self._moved_at = now()
        self.bytes_sent += count
        return count

    cdef Py_ssize_t _send_some(self, const char *data, Py_ssize_t size) noexcept:
        """As `send`; large data without holding the interpreter, unless this thread has fibers of its own to run."""
        cdef Py_ssize_t count
        cdef int fd = self._fd
        if size <= SCRATCH or self._loop_ is not None:
            return c_send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
        self._writing = True  # nobody may come in between, now that others run
        with nogil:
            count = c_send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
        return count

    # What the loop and the runners do with it

    def _attach(self, waiter):
        """It is waited for in this way from now on."""
        self._take_waiter(waiter)

    cdef int _take_waiter(self, waiter) except -1:
        self._waiter = waiter
        self._loop_ = <Loop> waiter if isinstance(waiter, Loop) else None
        return 0

    def _use(self, session):
        """All bytes go through this session from now on."""
        self._tls, self._decrypt, self._encrypt = session, session.decrypt, session.encrypt

    def _let_go(self, bint is_given_away):
        """The descriptor is about to belong to somebody else, or to be closed."""
        self._forget(is_given_away)

    cdef int _forget(self, bint is_given_away) except -1:
        if self._loop_ is not None:
            self._loop_._forget(self, is_given_away)
        self._fd = -1
        return 0

    # What careful calls are made of

    def _recv(self, Py_ssize_t size, int flags=0, /):
        """One receive that does not wait."""
        # Of MSG_TRUNC the kernel writes nothing, and tells more than there is room for.
        return self._receive_now(size, (flags | MSG_DONTWAIT) & ~MSG_TRUNC, True)

    def _send(self, data, int flags=0, /):
        """One send that does not wait."""
        cdef Py_buffer view
        cdef Py_ssize_t count
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        count = c_send(self._fd, view.buf, view.len, flags | MSG_DONTWAIT | MSG_NOSIGNAL)
        number = errno
        PyBuffer_Release(&view)
        if count < 0:
            raise error_of(number)
        return count

    # The steps

    cdef object _receive_bytes(self, Py_ssize_t size):
        """Wait and receive; by the careful way from the moment on at which something is special."""
        cdef Loop loop = self._loop_
        if self._tls is not None:
            return receive_encrypted(self, size)
        if loop is None:
            data = self._receive_in_thread(size)
        else:
            while True:
                if self._readable:
                    data = self._receive_now(size, MSG_DONTWAIT, False)
                    if data is not None:
                        break
                else:
                    self._waiting_since = now()
                    loop._wait_readable(self)
                    self._waiting_since = 0.0
                if self._special:
                    return self._recv_special(size, 0)
            loop._spend()
        cdef Py_ssize_t count = PyBytes_Size(data)
        if count:
            self.bytes_received += count
            return data
        return self._peer_has_left() if size else data

    cdef object _peer_has_left(self):
        """End of stream, as far as the kernel knows."""
        return self._end_of_stream()

    cdef object _receive_now(self, Py_ssize_t size, int flags, bint is_careful):
        """One receive that does not wait: None when there is nothing."""
        cdef Py_ssize_t count
        cdef int waiting = 0
        if size > SCRATCH:  # as large as what is there, so that it need not be copied
            if ioctl(self._fd, FIONREAD, &waiting) == 0 and waiting > SCRATCH:
                data = PyBytes_FromStringAndSize(NULL, min(size, <Py_ssize_t> waiting))
                count = c_recv(self._fd, PyBytes_AsString(data), PyBytes_Size(data), flags)
                if 0 <= count < PyBytes_Size(data):
                    data = PyBytes_FromStringAndSize(PyBytes_AsString(data), count)
            else:
                count = c_recv(self._fd, scratch, SCRATCH, flags)
                data = PyBytes_FromStringAndSize(scratch, count) if count >= 0 else None
        else:
            count = c_recv(self._fd, scratch, size, flags)
            if count >= 0:
                data = PyBytes_FromStringAndSize(scratch, count)
        if count < 0:
            if is_careful:
                raise_errno()
            if errno != EAGAIN:
                self._fail()
            self._readable = False
            return None
        if count < size and not is_careful:
            self._readable = self._sticky
        return data

    cdef Py_ssize_t _receive_into(self, char *into, Py_ssize_t size, int flags) except -1:
        cdef Py_ssize_t count
        cdef Loop loop = self._loop_
        while loop is not None and not (self._special or flags or self._buffer is not EMPTY or self._tls is not None):
            if not self._readable:
                self._waiting_since = now()
                loop._wait_readable(self)
                self._waiting_since = 0.0
                continue
            count = c_recv(self._fd, into, size, MSG_DONTWAIT)
            if count < size:
                self._readable = self._sticky and count >= 0
            if count > 0:
                self.bytes_received += count
                loop._spend()
                return count
            if count == 0:
                if size:
                    self._peer_has_left()
                return 0
            if errno != EAGAIN:
                self._fail()
        data = self.recv(min(size, BLOCK_SIZE), flags)
        count = PyBytes_Size(data)
        if count > size:  # a subclass may have a `recv` of its own
            raise ValueError("recv() returned more than it was asked for")
        memcpy(into, PyBytes_AsString(data), count)
        return count

    cdef object _receive_in_thread(self, Py_ssize_t size):
        """A receive that blocks its thread."""
        cdef Py_ssize_t count
        cdef int fd = self._fd
        cdef char *into
        cdef PyObject *small = NULL
        while True:
            self._waiting_since = now()
            if size <= SMALL:
                count = receive_blocking(fd, size, &small)
                if count >= 0:
                    data = <object> small
                    Py_DECREF(small)
            else:
                data = PyBytes_FromStringAndSize(NULL, size)
                into = PyBytes_AsString(data)
                with nogil:
                    count = c_recv(fd, into, size, 0)
                if 0 <= count < size:
                    data = PyBytes_FromStringAndSize(into, count)
            self._waiting_since = 0.0
            if count >= 0:
                return data
            if errno != EINTR:
                self._fail()
            PyErr_CheckSignals()

    cdef int _fail(self) except -1:
        """What errno says, as an exception, unless our own end looks like that from here."""
        self._failed(error_of(errno))

    cdef bytes _take_front(self, Py_ssize_t size):
        """The first bytes of the buffer, which a block ends with."""
        self._message_begun = None
        data = PyBytes_FromStringAndSize(PyByteArray_AsString(self._buffer), size)
        if size >= PyByteArray_Size(self._buffer):
            self._buffer = EMPTY
        else:
            PySequence_DelSlice(self._buffer, 0, size)
        if self._loop_ is not None:  # thousands of them may be buffered
            self._loop_._spend()
        return data


cdef inline Py_ssize_t newline(const char *data, Py_ssize_t size) noexcept:
    """The length of the first line with its newline; 0 when there is none."""
    cdef const char *at = <const char *> memchr(data, c'\n', size)
    return at - data + 1 if at is not NULL else 0
