"""PID file: the number of this process, for a service manager that wants a file.

Owns      the file at `path` from `write` to `remove`, in the process that wrote it.
Promises  it appears, and changes hands, in one step: whoever reads it finds a whole number; one that names a
          live process is not taken, save from the process that hands over; a stale one is replaced; `remove`
          unlinks only a file that still names us.
Refuses   to replace what is no PID file: a slip in the setting must not cost a file that somebody needs.
"""

import os
import stat
from contextlib import suppress

from ..errors import PidFileError
from ..occupant import describe_process

#: readable for all, as service managers and scripts of other users expect
MODE = 0o644
#: far more than a number and an end of line
LONGEST = 64


class PidFile:
    """The PID file at this path; nothing happens before `write`."""

    def __init__(self, path: str) -> None:
        self._shown = path
        self._path = os.path.realpath(path)  # a link stays a link; found again after a chdir
        self._pid: int | None = None  # the process that wrote it; a forked one has no part in it

    def write(self, replaces: int | None = None) -> None:
        """Name this process, in the place of the process `replaces` when it still runs; `PidFileError` if it cannot."""
        pid = os.getpid()
        try:
            named = self._read()
            if named not in (None, pid, replaces) and _is_live(named):
                raise PidFileError(
                    f"the PID file {self._shown} names {describe_process(named or 0)}, which is running: "
                    "stop that one, or choose another file with `pid_file`"
                )
            if named != pid:
                self._replace(pid)
        except OSError as error:
            raise PidFileError(
                f"the PID file {self._shown} cannot be written: {error.strerror or error}; "
                "choose a directory with `pid_file` in which this user may write"
            ) from error
        self._pid = pid

    def remove(self) -> None:
        """Remove the file, if it is ours and still names us; a second call does nothing."""
        if self._pid is not None and self._pid == os.getpid():
            with suppress(OSError, PidFileError):  # a stale file is replaced by the next start
                if self._read() == self._pid:
                    os.unlink(self._path)
        self._pid = None

    def disown(self) -> None:
        """It is somebody else's now: `remove` leaves it."""
        self._pid = None

    def _read(self) -> int | None:
        """The process it names; None when there is no file, or an empty one."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would block
        except FileNotFoundError:
            return None
        try:
            text = os.read(fd, LONGEST + 1).decode("ascii", "replace") if _is_file(fd) else "?"
        finally:
            os.close(fd)
        if not text.strip():
            return None
        if not text.strip().isdecimal() or len(text) > LONGEST or int(text) == 0:
            raise PidFileError(f"{self._shown} holds no process number, so it is left alone: choose another `pid_file`")
        return int(text)

    def _replace(self, pid: int) -> None:
        folder, name = os.path.split(self._path)
        fresh = os.path.join(folder, f".{name}.{pid}")
        with suppress(FileNotFoundError):  # left by a process of the same number that was killed in here
            os.unlink(fresh)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            os.fchmod(fd, MODE)  # whatever the umask
            os.write(fd, f"{pid}\n".encode())
            os.rename(fresh, self._path)
        except BaseException:
            os.unlink(fresh)
            raise
        finally:
            os.close(fd)


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _is_live(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's, and alive
        return True
    return True
