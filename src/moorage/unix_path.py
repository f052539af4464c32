"""Unix path: the name of a Unix socket in the file system, and who may take it.

Owns      one path from `listen` to `remove`; the lock file beside it while either of them runs.
Promises  a live server's socket is never taken, a dead one's is replaced; nobody can connect before mode and
          owner are set; `remove` unlinks the file that `listen` made and no other, and only in the process
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
import grp
import os
import pwd
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .config import Address, ListenerSettings
from .deadline import Deadline
from .errors import BindError, SettingError
from .occupant import occupant_of_peer

#: another server is between its lock and its listen for microseconds; a stopped one must not stop us for ever
LOCK_SECONDS = 2.0
LOCK_RETRY_SECONDS = 0.01
#: chown(2): leave it as it is
AS_IT_IS = -1
#: the highest number means AS_IT_IS to the kernel
MOST_IDS = (1 << 32) - 1
_OWNERS = ("unix_user", "unix_group")


class UnixPath:
    """A path, or a name in the abstract namespace when it begins with `@`."""

    def __init__(self, path: str, settings: ListenerSettings) -> None:
        self._text = f"unix:{path}"
        self._is_abstract = path.startswith("@")
        self._name = f"\0{path[1:]}" if self._is_abstract else path
        self._path = os.path.abspath(path)  # found again after a chdir; `_name` is as short as it was written
        self._settings = settings
        self._owner = owner_of(settings)
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
                self._set_mode()  # before `listen`: until then every connect is refused
                self._set_owner()
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

    def permit(self, settings: ListenerSettings) -> None:
        """Give our own file the mode and the owner of these settings; `BindError` when it cannot have that owner."""
        before, owner = self._settings, self._owner
        self._owner, self._settings = owner_of(settings), settings
        if not self._is_ours():
            return
        try:
            if self._owner != owner:
                self._set_owner()
        except BindError:
            self._settings, self._owner = before, owner
            raise
        if settings.unix_mode != before.unix_mode:
            with suppress(OSError):  # another user's by now: it stays as it is
                self._set_mode()

    def unchangeable(self, settings: ListenerSettings) -> list[str]:
        """Which of these settings a path that is there does not take on; `SettingError` for an unknown owner."""
        owner_of(settings)
        return [name for name in _OWNERS if getattr(self._settings, name) and not getattr(settings, name)]

    def occupant(self) -> str | None:
        """The process that listens here now, where the kernel tells."""
        return self._probe()[1]

    def _is_ours(self) -> bool:
        with suppress(OSError):
            return self._made is not None and _identity(self._path) == self._made
        return False

    def _set_mode(self) -> None:
        os.chmod(self._path, self._settings.unix_mode)

    def _set_owner(self) -> None:
        if self._owner == (AS_IT_IS, AS_IT_IS):
            return
        try:
            os.chown(self._path, *self._owner, follow_symlinks=False)
        except OSError as error:
            named = " and ".join(f"{name} = {value}" for name in _OWNERS if (value := getattr(self._settings, name)))
            raise cannot_listen(
                self._text,
                error.errno,
                f"the path cannot be given to {named} ({error.strerror}); start as root, or name a group that "
                "the user who starts the server belongs to",
            ) from error

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
            if self._is_ours():
                os.unlink(self._path)
        self._made = None


def owner_of(settings: ListenerSettings) -> tuple[int, int]:
    """The numbers of `unix_user` and `unix_group`; `SettingError` for a name that this host does not know."""
    user, group = settings.unix_user, settings.unix_group
    return (
        AS_IT_IS if user is None else _number(settings, "user", user, lambda: pwd.getpwnam(user).pw_uid),
        AS_IT_IS if group is None else _number(settings, "group", group, lambda: grp.getgrnam(group).gr_gid),
    )


def _number(settings: ListenerSettings, kind: str, name: str, look_up: Callable[[], int]) -> int:
    try:
        return look_up()
    except (KeyError, ValueError):  # unknown, or not to be written in the system's encoding
        if name.isascii() and name.isdecimal() and int(name) < MOST_IDS:
            return int(name)
    raise SettingError(
        f"unix_{kind} = {name!r} of {settings.bind}: there is no {kind} of that name on this host: "
        f"make it, or choose another with `unix_{kind}`"
    )


def unix_error(address: Address, path: UnixPath, error: OSError) -> BindError:
    """What went wrong, in a sentence."""
    if error.errno == errno.EADDRINUSE:
        return in_use(str(address), path.occupant())
    folder = os.path.dirname(os.path.abspath(address.path))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = f"this user may not write in {folder}; choose a directory of its own"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        reason = f"there is no directory {folder}; make it, or choose another path with `bind`"
    else:
        reason = f"{error.strerror or error}; choose another path with `bind`"
    return cannot_listen(str(address), error.errno, reason)


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
