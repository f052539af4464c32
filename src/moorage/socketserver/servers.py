"""Servers: the server classes of the standard library, cured.

Owns      the class settings that differ from the standard library's, with the reason.
Promises  each class is a subclass of the standard library's of the same name.
Refuses   to do anything: the cures are in `Serving` and the mix-ins.
"""

import socket
import socketserver as stdlib
import sys

from .forking_mixin import ForkingMixIn
from .listening import BACKLOG
from .serving import Serving
from .threading_mixin import ThreadingMixIn

__all__ = [
    "BaseServer", "ForkingTCPServer", "ForkingUDPServer", "ForkingUnixDatagramServer", "ForkingUnixStreamServer",
    "TCPServer", "ThreadingTCPServer", "ThreadingUDPServer", "ThreadingUnixDatagramServer",
    "ThreadingUnixStreamServer", "UDPServer", "UnixDatagramServer", "UnixStreamServer",
]  # fmt: skip

if sys.version_info >= (3, 12):
    from socketserver import ForkingUnixDatagramServer as _UnixDatagram
    from socketserver import ForkingUnixStreamServer as _UnixStream
else:
    from socketserver import UnixDatagramServer as _UnixDatagram
    from socketserver import UnixStreamServer as _UnixStream


class BaseServer(Serving, stdlib.BaseServer):
    """Base class of the servers; see the standard library for the methods that may be overridden."""


class TCPServer(BaseServer, stdlib.TCPServer):
    """A TCP server that handles one request at a time."""

    #: against the standard library's 5, with which 150 of 200 simultaneous clients fail
    request_queue_size = BACKLOG
    #: a restart finds its port in TIME_WAIT; a second live server is refused all the same
    allow_reuse_address = True


class UDPServer(TCPServer, stdlib.UDPServer):
    """A UDP server that handles one datagram at a time."""

    #: for datagrams it would let a second live server take the port
    allow_reuse_address = False
    socket_type = socket.SOCK_DGRAM


class UnixStreamServer(TCPServer, stdlib.UnixStreamServer):
    """A Unix stream server that handles one request at a time."""

    address_family = socket.AF_UNIX


class UnixDatagramServer(UDPServer, stdlib.UnixDatagramServer):
    """A Unix datagram server that handles one datagram at a time."""

    address_family = socket.AF_UNIX


class ThreadingTCPServer(ThreadingMixIn, TCPServer, stdlib.ThreadingTCPServer):
    """A TCP server with a thread for each request."""


class ThreadingUDPServer(ThreadingMixIn, UDPServer, stdlib.ThreadingUDPServer):
    """A UDP server with a thread for each datagram."""


class ThreadingUnixStreamServer(ThreadingMixIn, UnixStreamServer, stdlib.ThreadingUnixStreamServer):
    """A Unix stream server with a thread for each request."""


class ThreadingUnixDatagramServer(ThreadingMixIn, UnixDatagramServer, stdlib.ThreadingUnixDatagramServer):
    """A Unix datagram server with a thread for each datagram."""


class ForkingTCPServer(ForkingMixIn, TCPServer, stdlib.ForkingTCPServer):
    """A TCP server with a process for each request."""


class ForkingUDPServer(ForkingMixIn, UDPServer, stdlib.ForkingUDPServer):
    """A UDP server with a process for each datagram."""


class ForkingUnixStreamServer(ForkingMixIn, UnixStreamServer, _UnixStream):
    """A Unix stream server with a process for each request; in the standard library since 3.12."""


class ForkingUnixDatagramServer(ForkingMixIn, UnixDatagramServer, _UnixDatagram):
    """A Unix datagram server with a process for each datagram; in the standard library since 3.12."""
