# Fastcall: the calls of every message, without a tuple for their arguments.
#
# Owns      `recv` and `sendall` of `Stream` as CPython's fast calls, put in the place of those that Cython makes.
# Promises  the same arguments and errors.
# Why       under the stable ABI of 3.11 Cython makes a tuple for each call of a method with an optional argument:
#           two of them are 2 % of an echo.

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        const char *ml_name
        void *ml_meth
        int ml_flags
        const char *ml_doc
    enum:
        METH_FASTCALL
    ctypedef struct PyTypeObject:
        pass
    object PyDescr_NewMethod(PyTypeObject *type, PyMethodDef *definition)
    Py_ssize_t PyNumber_AsSsize_t(object, object) except? -1

cdef PyMethodDef fast_recv, fast_sendall


cdef object recv_fast(Stream self, PyObject **arguments, Py_ssize_t count):
    cdef Py_ssize_t size
    if count == 1:
        size = PyNumber_AsSsize_t(<object> arguments[0], OverflowError)
        if size >= 0 and not self._special and self._buffer is EMPTY:
            return self._receive_bytes(size)
        return self._recv_special(size, 0)
    if count == 2:
        return self._recv_special(PyNumber_AsSsize_t(<object> arguments[0], OverflowError), <object> arguments[1])
    raise TypeError(f"recv() takes 1 or 2 arguments ({count} given)")


cdef object sendall_fast(Stream self, PyObject **arguments, Py_ssize_t count):
    if count == 1:
        self._send_whole(<object> arguments[0])
    elif count == 2:
        self._sendall_special(<object> arguments[0], <object> arguments[1])
    else:
        raise TypeError(f"sendall() takes 1 or 2 arguments ({count} given)")


cdef int install(PyMethodDef *definition, const char *name, void *function, const char *doc) except -1:
    definition.ml_name = name
    definition.ml_meth = function
    definition.ml_flags = METH_FASTCALL
    definition.ml_doc = doc
    setattr(Stream, name.decode(), PyDescr_NewMethod(<PyTypeObject *> Stream, definition))
    return 0


install(&fast_recv, b"recv", <void *> recv_fast, b"Up to `size` bytes, b'' at the end of the stream; as `socket.recv`.")
install(
    &fast_sendall, b"sendall", <void *> sendall_fast,
    b"Send everything.  `TimeoutError` or `write_stalled` only when no byte moves for that long.",
)
