# System: what of the kernel the twins call, and the clock.
#
# Owns      the declarations for epoll, the receive that blocks, `now`, and errors of the system as exceptions.
# Promises  the same clock as `moorage.deadline.monotonic`, unless a test gives another one.

from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc

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
