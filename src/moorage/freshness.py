"""Freshness: whether files have changed since they were last looked at.

Owns      what was last seen of each file.
Promises  at most one `stat` of each file every so often, however often it is asked, and no wake-up of its own;
          a file that is put in another's place, behind a symbolic link too, is a change, and so is one that
          vanishes, comes back, or gets other permissions.
Refuses   to read the files, and to wait for a change: whoever uses them asks when they are used.
Why       who asks at use needs no thread and no timer, and an idle server is not woken.
"""

import os
from collections.abc import Sequence

from .deadline import Clock, monotonic

#: which file it is, who may read it, its size, and when it changed; None: it cannot be looked at
Stamp = tuple[int, ...] | None


class Freshness:
    """What was last seen of these files; the first look is taken at once, so make it before you read them."""

    def __init__(self, paths: Sequence[str], every: float = 1.0, clock: Clock = monotonic) -> None:
        self._paths = tuple(paths)
        self._every = every
        self._clock = clock
        self._seen = self._look()
        self._next_look = clock() + every

    def changed(self) -> bool:
        """Whether any of them differs from what was seen before; each change is told once."""
        now = self._clock()
        if now < self._next_look:
            return False
        self._next_look = now + self._every
        before, self._seen = self._seen, self._look()
        return self._seen != before

    def _look(self) -> list[Stamp]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: str) -> Stamp:
    """What tells this file from an earlier one; with ctime, since `cp -p` and `rsync` set mtime back."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    whose = found.st_mode, found.st_uid, found.st_gid
    return found.st_dev, found.st_ino, *whose, found.st_size, found.st_mtime_ns, found.st_ctime_ns
