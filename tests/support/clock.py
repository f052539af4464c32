"""A fake clock: time stands still until the test moves it.

Promises  a `FakeClock` is a `Clock`: called, it says the time, in seconds.
"""


class FakeClock:
    """Starts at 1000.0, which no real deadline of a test comes near."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now += seconds
