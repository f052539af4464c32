"""Waiter: how a runner waits on behalf of a handler.

Owns      the contract between `Stream`, which knows what to wait for and how long, and the runners, which
          know how.
Promises  nothing else differs for a connection from one runner to the next.
"""

from typing import Any, Protocol


class Waiter(Protocol):
    """How a runner waits on behalf of a handler."""

    #: plain calls may be used when there is no timeout: whoever ends the connection shuts the socket, which wakes
    plain: bool
    #: it is the loop of a hub: plain calls are non-blocking ones, and wait in it
    is_loop: bool

    def wait(self, stream: Any, mask: int, timeout: float | None) -> bool:
        """True when the socket of this stream is ready, False when the time is over or somebody called `wake`."""
        ...

    def wake(self, stream: Any) -> None:
        """End the waits of this stream that are under way; from any thread."""
        ...
