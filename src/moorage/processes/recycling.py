"""Recycling: when a worker is old enough to be replaced.

Owns      the limits of one worker (connections, age, resident memory), and its count of looks at the memory.
Promises  no two workers of a generation have the same limits: each has its own jitter, fixed at its birth; a
          short peak of memory replaces nobody.
Refuses   to replace: it gives a reason, and its owner does with it what is right.
Why       without jitter all workers of a generation, which share the load, are due in the same minute.
"""

from random import Random

from ..config import ServerSettings
from ..config.settings import MIB

#: the part of a limit by which a worker's own may differ, either way: the help of the settings says "a tenth"
JITTER = 0.1
#: looks in a row at too much memory until it counts; at one look a second longer than one large request
LOOKS = 5


class Recycling:
    """The limits of one worker; made when the worker is born."""

    def __init__(self, settings: ServerSettings, random: Random) -> None:
        part = random.uniform(1 - JITTER, 1 + JITTER)
        connections, age = settings.recycle_connections, settings.recycle_age
        self._connections = None if connections is None else max(1, round(connections * part))
        self._age = None if age is None else age * part
        self._memory = settings.recycle_memory
        self._looks = 0

    def due(self, born: float, accepted: int, memory: int | None, now: float) -> str | None:
        """Why this worker is to be replaced, as a part of a sentence; None: it is not.

        Each call is one look.  `memory` is None when it could not be read: then that look says nothing about it.
        """
        if self._memory is not None and memory is not None:
            self._looks = self._looks + 1 if memory > self._memory else 0
        if self._connections is not None and accepted >= self._connections:
            return f"{accepted:,} connections, at most {self._connections:,}"
        if self._age is not None and now - born >= self._age:
            return f"{now - born:,.0f} s old, at most {self._age:,.0f} s"
        if self._memory is not None and memory is not None and self._looks >= LOOKS:
            most = f"{self._memory / MIB:,.1f} MiB"
            return f"{memory / MIB:,.1f} MiB of memory in {self._looks} looks in a row, at most {most}"
        return None
