"""Unix path: the name of a Unix socket in the file system, and who may take it.

Owns      one path from `listen` to `remove`; the lock file beside it while either of them runs.
Promises  a live server's socket is never taken, a dead one's is replaced; nobody can connect before the
          mode is set; `remove` unlinks the file that `listen` made and no other, and only in the process
          that made it; what is no socket is left alone.
Refuses   to guess: a path that cannot be probed counts as taken.
Why       servers that unlink first take the address from a running one (asyncio, werkzeug); those that
          never unlink cannot restart after a crash.  Linux finds out by a connect: a dead socket refuses
          it, a live one takes it or has its backlog full.
How       `flock` on PATH.lock orders those who start or stop on one path.  Its holder removes the lock
          file before letting go, and who gets the lock of a removed file tries again: no litter remains.
"""

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .deadline import Deadline
from .errors import BindError
from .occupant import occupant_of_peer

#: another server is between its lock and its listen for microseconds; a stopped one must not stop us for ever
LOCK_SECONDS = 2.0
LOCK_RETRY_SECONDS = 0.01


class UnixPath:
    """A path, or a name in the abstract namespace when it begins with `@`."""

    def __init__(self, path: str, mode: int) -> None:
        self._text = f"unix:{path}"
        self._is_abstract = path.startswith("@")
        self._name = f"\0{path[1:]}" if self._is_abstract else path
        self._path = os.path.abspath(path)  # found again after a chdir; `_name` is as short as it was written
        self._mode = mode
        self._made: tuple[int, int] | None = None  # device and inode of our file
        self._pid = os.getpid()  # a forked child closes its copy of the socket, but the name is not its own

    def listen(self, sock: socket.socket, backlog: int) -> None:
        """Bind the socket to this path and listen; `BindError` when the path is not to be had."""
        if self._is_abstract:
            sock.bind(self._name)
            sock.listen(backlog)
            return
        with _locked(self._path, self._text):
            self._make_room()
            sock.bind(self._name)
            try:
                self._made = _identity(self._path)
                os.chmod(self._path, self._mode)  # before `listen`: until then every connect is refused
                sock.listen(backlog)
            except BaseException:
                self._unlink_own()
                raise

    def remove(self) -> None:
        """Unlink our own file; called while its socket still listens, so that nobody else has replaced it."""
        if self._made is None or os.getpid() != self._pid:
            return
        with suppress(OSError), _locked(self._path, self._text):  # else a stale file stays, for the next to replace
            self._unlink_own()
        self._made = None

    def disown(self) -> None:
        """The path is somebody else's now, a new program's say: `remove` leaves it."""
        self._made = None

    def adopt(self) -> None:
        """The path of a socket that was passed on is ours from now on, since its maker has disowned it."""
        with suppress(OSError):  # somebody has removed it
            if not self._is_abstract and stat.S_ISSOCK(os.lstat(self._path).st_mode):
                self._made, self._pid = _identity(self._path), os.getpid()

    def set_mode(self, mode: int) -> None:
        """Give our own file these permissions."""
        self._mode = mode
        with suppress(OSError):  # another user's by now: it stays as it is
            if self._made is not None and _identity(self._path) == self._made:
                os.chmod(self._path, mode)

    def occupant(self) -> str | None:
        """The process that listens here now, where the kernel tells."""
        return self._probe()[1]

    def _make_room(self) -> None:
        try:
            mode = os.lstat(self._path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise BindError(
                f"cannot listen on {self._text}: there is something that is no socket; "
                "choose another path in `bind`, or move it away"
            )
        is_live, occupant = self._probe()
        if is_live:
            raise in_use(self._text, occupant)
        os.unlink(self._path)

    def _probe(self) -> tuple[bool, str | None]:
        """Whether a socket is bound here, for only a refusal proves that none is, and whose.

        A live server sees one client that leaves at once.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            number = probe.connect_ex(self._name)
            return number not in (errno.ECONNREFUSED, errno.ENOENT), occupant_of_peer(probe)

    def _unlink_own(self) -> None:
        with suppress(OSError):
            if _identity(self._path) == self._made:
                os.unlink(self._path)
        self._made = None


def in_use(where: str, occupant: str | None) -> BindError:
    """The sentence for an address that somebody else has."""
    return cannot_listen(
        where,
        errno.EADDRINUSE,
        f"it is in use by {occupant or 'another process'}; stop that one, or choose another address with `bind`",
    )


def cannot_listen(where: str, number: int | None, reason: str) -> BindError:
    """The sentence for an address that is not to be had; `number` is the system's, None when it has none."""
    error = BindError(f"cannot listen on {where}: {reason}")
    error.errno = number
    return error


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


@contextmanager
def _locked(path: str, text: str) -> Iterator[None]:
    lock = f"{path}.lock"
    fd = _lock(lock, text)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(lock)
        os.close(fd)


def _lock(lock: str, text: str) -> int:
    deadline = Deadline(LOCK_SECONDS)
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if _has_locked(fd, lock):
            return fd
        os.close(fd)
        if deadline.is_due():
            raise BindError(f"cannot listen on {text}: another server has held {lock} for {LOCK_SECONDS:g} s; stop it")
        time.sleep(LOCK_RETRY_SECONDS)


def _has_locked(fd: int, lock: str) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.lstat(lock))
    except (BlockingIOError, FileNotFoundError):  # held, or removed by the one who held it
        return False
