"""Waiter: how a runner waits on behalf of a handler.

Owns      the contract between `Stream`, which knows what to wait for and how long, and the runners, which
          know how.
Promises  nothing else differs for a connection from one runner to the next.
"""

from typing import Protocol


class Waiter(Protocol):
    """How a runner waits on behalf of a handler."""

    #: a plain blocking call may be used when there is no timeout: the Watch ends it by shutting the socket
    plain: bool

    def wait(self, fd: int, mask: int, timeout: float | None) -> bool:
        """True when the socket is ready, False when the time is over or somebody called `wake`."""
        ...

    def wake(self) -> None:
        """End the wait that is under way; from any thread."""
        ...
