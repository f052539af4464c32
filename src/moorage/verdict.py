"""Verdict: what an error of `accept` means for the accept loop.

Owns      the table of accept errors.
Promises  every error has one verdict; only its number counts.
Refuses   to do anything about it: the acceptor, and the serve loop of the old door, do.
Why       a loop that knows too few of them dies of ECONNABORTED or spins on EMFILE; the manual names more than
          most loops do.
"""

import errno
from enum import Enum


class Verdict(Enum):
    """What an accept error means for the loop."""

    EMPTY = "no client waits"
    GO_ON = "it concerns that one client"
    PAUSE = "the system has no room at the moment"
    FAIL = "the listener is of no more use"


#: Every accept error that is not the end, by what it means; accept(2), "Error handling", unless said.
VERDICTS: dict[Verdict, frozenset[int]] = {
    Verdict.EMPTY: frozenset({errno.EAGAIN, errno.EWOULDBLOCK}),
    Verdict.GO_ON: frozenset({
        errno.ECONNABORTED,  # the client gave up while it waited
        errno.ECONNRESET,  # the same, on other kernels
        errno.EINTR,  # only where a signal handler raises; Python retries otherwise (PEP 475)
        errno.EPERM,  # a firewall or security module forbids this client
        errno.EPROTO, errno.ENOPROTOOPT, errno.EOPNOTSUPP,  # pending errors of the new socket,
        errno.ENETDOWN, errno.ENETUNREACH, errno.ENONET,  # "treat them like EAGAIN by retrying"
        errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT,
    }),
    Verdict.PAUSE: frozenset({
        errno.EMFILE, errno.ENFILE,  # no descriptor left in this process; in the system
        errno.ENOBUFS, errno.ENOMEM,  # no memory for sockets
    }),
}  # fmt: skip

_BY_ERRNO = {number: verdict for verdict, numbers in VERDICTS.items() for number in numbers}


def judge(error: OSError) -> Verdict:
    """What this error of `accept` means; only its number counts."""
    return _BY_ERRNO.get(error.errno or 0, Verdict.FAIL)
