"""Backoff: how long to wait before a worker is tried again.

Owns      the count of failures in a row at one place.
Promises  the first try comes soon, each further one after twice the time, up to half a minute; a worker that
          lived for a while is replaced at once, and its failures are forgotten.
"""

FIRST = 0.5  # seconds: a crash at every start then costs two forks a second at most
MOST = 30.0  # a database that comes back is noticed within half a minute
#: seconds of life after which a death is no longer put down to the start
GOOD_LIFE = 10.0
_DOUBLINGS = 6  # the first delay that is above MOST


class Backoff:
    """The delays of one place."""

    def __init__(self) -> None:
        self.failures = 0

    def failed(self) -> float:
        """A try failed: seconds until the next."""
        delay = min(FIRST * (1 << min(self.failures, _DOUBLINGS)), MOST)
        self.failures += 1
        return delay

    def died(self, lived: float) -> float:
        """A worker died after so many seconds: seconds until the next try."""
        if lived < GOOD_LIFE:
            return self.failed()
        self.failures = 0
        return 0.0
