# TLS: the steps of every message of a stream whose bytes go through a session; see `moorage/transport/secure.py`.
#
# Owns      nothing: session and ciphertext are the stream's.
# Promises  what secure does, for what is common; one call into the kernel for a message, and none that is in vain.
# Refuses   whatever is special, and what the kernel does not take at once: secure does that.


cdef object receive_encrypted(Stream self, Py_ssize_t size):
    """As `Stream._receive_bytes`."""
    cdef Py_ssize_t count
    cdef Loop loop = self._loop_
    if self._outbox is not EMPTY or size == 0:
        return self._recv_special(size, 0)
    data = decrypted(self, None, size) if self._tls.more else None
    while data is None:
        if loop is None:
            arrived = receive_burst(self)
        else:
            while True:
                if self._readable:
                    arrived = self._receive_now(SCRATCH, MSG_DONTWAIT, False)
                    if arrived is not None:
                        break
                else:
                    self._waiting_since = now()
                    loop._wait_readable(self)
                    self._waiting_since = 0.0
                if self._special:
                    return self._recv_special(size, 0)
        data = decrypted(self, arrived, size)
        if data is None and self._special:  # a part of a record: the rest of it may be a long wait
            return self._recv_special(size, 0)
    if loop is not None:
        loop._spend()
    count = PyBytes_Size(data)
    self._record_begun = 0.0
    if count:
        self.bytes_received += count
        return data
    return self._peer_has_left()


cdef object receive_burst(Stream self):
    """Wait in a thread, and receive what has come together."""
    cdef Py_ssize_t count
    arrived = self._receive_in_thread(SMALL)
    if PyBytes_Size(arrived) == SMALL:
        count = c_recv(self._fd, scratch, SCRATCH, MSG_DONTWAIT)
        if count > 0:
            arrived += PyBytes_FromStringAndSize(scratch, count)
    return arrived


cdef object decrypted(Stream self, arrived, Py_ssize_t size):
    """Plain text of what has arrived, or of what was fed before; None when there is none yet."""
    try:
        data = self._tls.read(size) if arrived is None else self._decrypt(arrived, size)
    except self._tls.failure as error:
        self._tls_failed(error)
    except ConnectionResetError as error:
        self._failed(error)
    if data is None and arrived is not None:
        self._note_part()
    return data


cdef Py_ssize_t send_encrypted(Stream self, data) except -1:
    """As `Stream._send_whole`."""
    cdef Py_ssize_t count, whole, size
    size = PyBytes_Size(data) if PyBytes_CheckExact(data) else memoryview(data).nbytes
    if size == 0 or size > SCRATCH or self._outbox is not EMPTY:
        self._sendall_special(data, 0)
        return size
    self._writing = True
    sealed = encrypted(self, data)
    whole = PyBytes_Size(sealed)
    count = c_send(self._fd, PyBytes_AsString(sealed), whole, MSG_DONTWAIT | MSG_NOSIGNAL)
    if count < 0:
        if errno != EAGAIN:
            error = error_of(errno)
            self._end_turn()
            self._failed(error)
        self._writable = False
        count = 0
    if self._waiting_since:
        self._moved_at = now()
    self.bytes_sent += size
    if count < whole:
        self._outbox = sealed[count:]
        self._send_rest(memoryview(EMPTY))
    if self._line:
        self._end_turn()
    else:  # not before it is asked: who came meanwhile would have its turn ended by ours
        self._writing = False
    if self._loop_ is not None:
        self._loop_._spend()
    return size


cdef object encrypted(Stream self, data):
    """In our turn, which an error ends."""
    try:
        return self._encrypt(data)
    except self._tls.failure as error:
        self._end_turn()
        self._encrypt_failed(error)
    except BaseException:
        self._end_turn()
        raise
