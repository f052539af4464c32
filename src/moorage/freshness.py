"""Freshness: whether files have changed since they were last looked at.

Owns      what was last seen of each file.
Promises  at most one `stat` of each file every so often, however often it is asked, and no wake-up of its own;
          a file that is put in another's place, behind a symbolic link too, is a change, and so is one that
          vanishes, comes back, or gets other permissions; with `quiet`, one that is being written is not told of
          before it is left alone.
Refuses   to read the files, and to wait for a change: whoever uses them asks when they are used.
Why       who asks at use needs no thread and no timer, and an idle server is not woken.
"""

import os
import time
from collections.abc import Callable, Sequence

from .deadline import Clock, monotonic

#: which file it is, who may read it, its size, and when it changed; None: it cannot be looked at
Stamp = tuple[int, ...] | None
#: where in it the moment of the last write is
_WRITTEN = -2


class Freshness:
    """What was last seen of these files; the first look is taken at once, so make it before you read them."""

    def __init__(
        self,
        paths: Sequence[str],
        every: float = 1.0,
        clock: Clock = monotonic,
        *,
        quiet: float = 0.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._paths = tuple(paths)
        self._every = every
        self._clock = clock
        self._quiet = quiet
        self._wall = wall
        self._is_untold = False
        self._seen = self._look()
        self._next_look = clock() + every

    def changed(self) -> bool:
        """Whether any of them differs from what was seen before; each change is told once.

        One that was written less than `quiet` seconds ago is told at the next look, if it is still the same then: the
        dates of files may come from another host's clock.
        """
        now = self._clock()
        if now < self._next_look:
            return False
        self._next_look = now + self._every
        before, self._seen = self._seen, self._look()
        is_new = self._seen != before
        if is_new and self._is_young():
            self._is_untold = True
            return False
        was_untold, self._is_untold = self._is_untold, False
        return is_new or was_untold

    def holds(self) -> bool:
        """Whether the files are those that were told of last: ask when they have been read."""
        return not self._is_untold and self._look() == self._seen

    def _is_young(self) -> bool:
        if not self._quiet:
            return False
        since = (self._wall() - self._quiet) * 1e9
        return any(stamp is not None and stamp[_WRITTEN] > since for stamp in self._seen)

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
