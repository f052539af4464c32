# System: what of the kernel the twins call, and the clock.
#
# Owns      the declarations for epoll, sockets and buffers, the receive that blocks, `now`, and errors of the system as
#           exceptions.
# Promises  the same clock as `moorage.deadline.monotonic`, unless a test gives another one.

from cpython.bytearray cimport PyByteArray_AsString, PyByteArray_CheckExact, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AsString, PyBytes_CheckExact, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLPRI
        EPOLLRDHUP
        EPOLLHUP
        EPOLLERR
        EPOLLET
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef extern from "Python.h":
    ctypedef struct Py_buffer:
        void *buf
        Py_ssize_t len
    enum:
        PyBUF_SIMPLE
        PyBUF_WRITABLE
    int PyObject_GetBuffer(object, Py_buffer *, int) except -1
    void PyBuffer_Release(Py_buffer *)
    Py_ssize_t PyBytes_Size(object) except -1
    Py_ssize_t PyByteArray_Size(object) except -1
    int PySequence_DelSlice(object, Py_ssize_t, Py_ssize_t) except -1
    int PyErr_CheckSignals() except -1

cdef extern from "<sys/ioctl.h>" nogil:
    enum:
        FIONREAD
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_TRUNC
        MSG_NOSIGNAL
        AF_UNIX_ "AF_UNIX"
    ssize_t c_recv "recv" (int fd, void *into, size_t size, int flags)
    ssize_t c_send "send" (int fd, const void *data, size_t size, int flags)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *at)

cdef extern from "<unistd.h>" nogil:
    int close_fd "close" (int fd)

cdef extern from *:
    """
    #include <errno.h>
    #include <sys/socket.h>
    #define SMALL 16384
    /* On a stack of its own, which no switch copies: not inlined into a frame that may wait. */
    __attribute__((noinline)) static Py_ssize_t receive_blocking(int fd, Py_ssize_t size, PyObject **data) {
        char into[SMALL];
        Py_ssize_t count;
        int error;
        Py_BEGIN_ALLOW_THREADS
        count = recv(fd, into, (size_t)size, 0);
        error = errno;
        Py_END_ALLOW_THREADS
        errno = error;
        *data = count < 0 ? NULL : PyBytes_FromStringAndSize(into, count);
        return count >= 0 && !*data ? -2 : count;
    }
    """
    enum:
        SMALL
    Py_ssize_t receive_blocking(int fd, Py_ssize_t size, PyObject **data) except -2

cdef object other_clock = None  # a test's


def use_clock(clock):
    """Read this clock, a callable, in the place of the system's; None for that one again."""
    global other_clock
    other_clock = clock


cdef inline double now() except? -1.0:
    cdef timespec at
    if other_clock is not None:
        return other_clock()
    clock_gettime(CLOCK_MONOTONIC, &at)
    return <double> at.tv_sec + <double> at.tv_nsec * 1e-9


cdef object error_of(int number):
    import os

    return OSError(number, os.strerror(number))


cdef int raise_errno() except -1:
    raise error_of(errno)
