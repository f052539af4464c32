"""Borrow: a look at the socket that a forked child serves, for the time of a drain.

Owns      the copy that `pidfd_getfd(2)` makes, until the caller closes it.
Promises  None where the kernel does not give it (before Linux 5.6, another user's process, a strict
          security module), or where the descriptor is not that client's socket any more.
Refuses   to keep a copy in the parent from the fork on: the client would not see the child close.
"""

import ctypes
import os
import socket
from typing import Any

__all__ = ["borrow"]

_SYS_PIDFD_GETFD = 438  # the same on every architecture of Linux


def borrow(pidfd: int | None, fd: int, peer: Any) -> socket.socket | None:
    """A copy of this descriptor of this process, if it is a socket connected to this peer."""
    if pidfd is None or not hasattr(os, "pidfd_open"):
        return None
    copied = ctypes.CDLL(None).syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0)
    if copied < 0:
        return None
    os.set_inheritable(copied, False)
    try:
        sock = socket.socket(fileno=copied)
    except OSError:  # no socket
        os.close(copied)
        return None
    try:
        if sock.getpeername() == peer:
            return sock
    except OSError:
        pass
    sock.close()
    return None
