# AcceptedSocket: the socket of a client, as long as nobody asks for more than it takes to serve and close it.
#
# Owns      the descriptor; the `_socket.socket` that it becomes when more is asked, which owns it from then on.
# Promises  everything that a `_socket.socket` has.
# Why       that one asks the kernel for its name when it is made of a descriptor: 1.3 us of a connection's 40, for
#           something that most connections never need.

from _socket import socket as plain_socket

cdef extern from "<sys/socket.h>" nogil:
    """
    extern int accept4(int, struct sockaddr *, socklen_t *, int);  /* a GNU extension, declared whatever is defined */
    """
    enum:
        SOCK_CLOEXEC
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    int accept4(int fd, sockaddr *address, socklen_t *size, int flags)
    int shutdown_fd "shutdown" (int fd, int how)

cdef extern from "<arpa/inet.h>" nogil:
    enum:
        INET_ADDRSTRLEN
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    const char *inet_ntop(int family, const void *address, char *name, socklen_t size)
    unsigned short ntohs(unsigned short number)


cdef class AcceptedSocket:
    """Made of (family, type, proto, fileno), as a `_socket.socket` is."""

    cdef int _fd
    cdef readonly int family, type, proto
    cdef object _plain

    def __cinit__(self, *_):
        self._fd = -1

    def __init__(self, int family, int type, int proto, int fileno):
        self.family = family
        self.type = type
        self.proto = proto
        self._fd = fileno

    def __dealloc__(self):
        if self._fd >= 0:
            close_fd(self._fd)

    def __getattr__(self, name):
        if self._plain is None:
            self._plain = plain_socket(self.family, self.type, self.proto, self._fd)
            self._fd = -1
        return getattr(self._plain, name)

    def fileno(self):
        """The descriptor; -1 once it is closed or detached."""
        return self._fd if self._plain is None else self._plain.fileno()

    def close(self):
        """Close it; a second call does nothing."""
        self._close()

    cdef int _close(self) except -1:
        if self._plain is not None:
            self._plain.close()
        elif self._fd >= 0:
            fd, self._fd = self._fd, -1
            close_fd(fd)
        return 0

    def detach(self):
        """Give the descriptor away."""
        if self._plain is not None:
            return self._plain.detach()
        fd, self._fd = self._fd, -1
        return fd

    def shutdown(self, int how, /):
        """Shut one or both directions; as `socket.shutdown`."""
        if self._plain is not None:
            self._plain.shutdown(how)
        elif shutdown_fd(self._fd, how) < 0:
            raise_errno()


cdef uint32_t last_host = 0  # of the last client, and what it is called: many come from one load balancer
cdef object last_name = "0.0.0.0"


cdef int accept_fd(int listener, sockaddr_in *address) noexcept:
    cdef socklen_t size = sizeof(sockaddr_in)
    return accept4(listener, <sockaddr *> address, &size, SOCK_CLOEXEC)


cdef AcceptedSocket socket_of(int fd, int family, int type, int proto):
    cdef AcceptedSocket sock = AcceptedSocket.__new__(AcceptedSocket)
    sock.family, sock.type, sock.proto, sock._fd = family, type, proto, fd
    return sock


cdef object name_of(int family, sockaddr_in *address):
    global last_host, last_name
    cdef char name[INET_ADDRSTRLEN]
    if address.sin_addr.s_addr != last_host:
        inet_ntop(family, &address.sin_addr, name, INET_ADDRSTRLEN)
        last_name = name.decode("ascii")
        last_host = address.sin_addr.s_addr
    return last_name


def accept_tcp4(int listener, int family, int type, int proto):
    """The next client of an IPv4 listener, blocking, and its address; `BlockingIOError` when there is none."""
    cdef sockaddr_in address
    cdef int fd = accept_fd(listener, &address)
    if fd < 0:
        raise_errno()
    return socket_of(fd, family, type, proto), (name_of(family, &address), ntohs(address.sin_port))
