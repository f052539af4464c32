"""Changes: tells the supervisor when a file changed, while somebody develops (`reload_on_change`).

Owns      one child process that looks at the files, and the connection between it and the supervisor.
Promises  many changes at once are told once, when it is quiet again; the supervisor reads no folder and
          imports nothing for it; the child keeps nothing of the supervisor's open, listeners least of all, and
          ends with it, also after kill -9: its end of the connection then reads end of stream.
Refuses   to reload, and to look into hidden folders, caches, node_modules and virtual environments.
Why       a look at a large tree takes long, and a library that is told by the kernel starts threads: the
          supervisor never waits, and forks. `watchfiles` is used where it can be imported, else the files are
          looked at once a second.
"""

import importlib
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol

from ..config.sources import FILE, PROJECT_FILE
from ..deadline import Deadline, monotonic
from ..observe.logs import LOGGER
from ..runners.children import flush_standard_streams
from .signals import SIGNALS

SETTINGS_FILES = frozenset({FILE, PROJECT_FILE})
#: besides every hidden folder (.git, .venv, .tox) and every folder with this file in it
SKIPPED = frozenset({"__pycache__", "node_modules"})
VIRTUAL_ENVIRONMENT = "pyvenv.cfg"
#: between two looks; a reader does not notice a second, and a thousand files in fifty folders cost 5 ms a look (measured)
LOOK_SECONDS = 1.0
#: a look that takes long is made less often, so that looking takes this part of a CPU at most
MOST_LOOKING = 0.1
#: nothing has changed for so long: an editor that saves all, or a checkout, is through
QUIET_SECONDS = 0.2
#: what never comes to rest is told after this time all the same
MOST_UNQUIET = 2.0
MOST_BYTES = 1024  # of one telling
#: the first byte of a telling: a reason to reload, or a line for the log
REASON, WARNING = b"R", b"W"

Stamp = tuple[int, int, int]  # when it was changed, its size, its inode: a file put in its place has another
Tell = Callable[[Iterable[str]], None]


class System(Protocol):
    """What it needs of the operating system; see `system.py`."""

    def fork(self) -> int: ...
    def exit(self, status: int) -> NoReturn: ...
    def wait(self, pid: int) -> int | None: ...


class Watch(Protocol):
    """Where the supervisor waits."""

    def listen(self, fd: int, call: Callable[[], None]) -> None: ...
    def unlisten(self, fd: int) -> None: ...


class Changes:
    """The supervisor's side; `changed` gets a reason as the beginning of a sentence: "app.py changed"."""

    def __init__(
        self,
        system: System,
        watch: Watch,
        changed: Callable[[str], object],
        *,
        folder: str = ".",
        settings_file: str | None = None,
    ) -> None:
        self._system, self._watch, self._changed = system, watch, changed
        self._files = Files(folder, settings_file)
        self._end: socket.socket | None = None
        #: the child, until it was reaped
        self.pid: int | None = None

    def start(self) -> None:
        """Fork the child; before the workers, so that no change falls between."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS, signal.SIGCHLD})
            try:
                pid = self._system.fork()
                if pid == 0:  # with the signals blocked: a handler of the supervisor's would run here
                    _be_the_child(self._system, self._files, theirs, before)
            except BaseException:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.pid, self._end = pid, ours
        self._watch.listen(ours.fileno(), self._hear)

    def stop(self) -> None:
        """Have the child end, which then waits to be reaped; a second call does nothing."""
        if self._end is not None:
            self._watch.unlisten(self._end.fileno())
            self.disown()

    def disown(self) -> None:
        """In a forked worker: close the copy, without which the child would outlive the supervisor."""
        if self._end is not None:
            self._end.close()
            self._end = None

    def reap(self) -> bool:
        """At SIGCHLD: whether the child had ended, and was reaped now."""
        if self.pid is None or self._system.wait(self.pid) is None:
            return False
        self.pid = None
        return True

    def _hear(self) -> None:
        reason: str | None = None
        while self._end is not None:  # several may wait while the supervisor is busy: one reload is enough
            try:
                told = self._end.recv(MOST_BYTES)
            except BlockingIOError:
                break
            except OSError:
                told = b""
            if not told:
                _warn("the process that watches the files has ended: reload by SIGHUP, or start anew")
                self.stop()
            elif told[:1] == REASON:
                reason = told[1:].decode(errors="replace")
            else:
                _warn(told[1:].decode(errors="replace"))
        if reason is not None:
            self._changed(reason)


class Files:
    """Which files are looked at: Python and settings files below a folder."""

    def __init__(self, folder: str, settings_file: str | None = None) -> None:
        self.folder = os.path.realpath(folder)
        self._settings_file = None if settings_file is None else os.path.realpath(settings_file)

    def look(self) -> dict[str, Stamp]:
        """Every file there is now, by its path."""
        found: dict[str, Stamp] = {}
        folders = [self.folder]
        while folders:
            folders += self._look_into(folders.pop(), found)
        if self._settings_file is not None:
            _note(self._settings_file, found)
        return found

    def _look_into(self, folder: str, found: dict[str, Stamp]) -> list[str]:
        """Note the files of one folder; its folders that are to be looked into."""
        try:
            with os.scandir(folder) as entries:
                inside = list(entries)
        except OSError:  # gone meanwhile, or not ours to read
            return []
        if folder != self.folder and any(entry.name == VIRTUAL_ENVIRONMENT for entry in inside):
            return []
        for entry in inside:
            if _is_watched(entry.name):
                _note(entry.path, found)
        # Links to folders are not followed: they may go in circles.
        return [entry.path for entry in inside if not _is_skipped(entry.name) and entry.is_dir(follow_symlinks=False)]

    def has(self, path: str) -> bool:
        """Whether this path, which may be gone by now, is of one of these files."""
        if path == self._settings_file:
            return True
        *folders, name = os.path.relpath(path, self.folder).split(os.sep)
        if not _is_watched(name) or any(map(_is_skipped, folders)):
            return False
        above = (os.path.join(self.folder, *folders[:depth]) for depth in range(1, len(folders) + 1))
        return not any(os.path.exists(os.path.join(folder, VIRTUAL_ENVIRONMENT)) for folder in above)

    def reason(self, paths: Iterable[str]) -> str:
        """The beginning of a sentence about these paths, of which there is at least one."""
        first, *more = sorted(os.path.relpath(path, self.folder) for path in paths)
        name = "".join(letter if letter.isprintable() else "?" for letter in first)
        rest = "" if not more else f" and {len(more)} more"
        return f"{name}{rest} changed"


class Parent:
    """The supervisor, as the child sees it."""

    def __init__(self, end: socket.socket, files: Files) -> None:
        self._end, self._files = end, files
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)  # it never says anything: readable means end of stream

    def is_gone(self, seconds: float) -> bool:
        """Whether it is gone, or goes within this time; this is where the child waits."""
        return bool(self._poll.poll(seconds * 1000))

    def is_set(self) -> bool:
        """The same, asked by `watchfiles` of an event that is to stop it."""
        return self.is_gone(0)

    def tell(self, paths: Iterable[str]) -> None:
        """Tell what changed."""
        self._send(REASON + self._files.reason(paths).encode(errors="replace"))

    def warn(self, line: str) -> None:
        """Have a line written into the log, which the child has not open."""
        self._send(WARNING + line.encode(errors="replace"))

    def _send(self, told: bytes) -> None:
        try:
            self._end.send(told[:MOST_BYTES], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:  # busy, with much waiting for it already; or gone, which the next wait notices
            pass


def live(files: Files, parent: Parent) -> None:
    """The child's life, until the supervisor is gone."""
    before = files.look()  # first of all: what changes from here on is told
    try:
        events: Any = importlib.import_module("watchfiles")  # an optional extra: there may be no types to check
    except ImportError:
        events = None
    if events is not None:
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # the reload says what has changed
        try:
            return hear_events(files, parent, events, before)
        except (OSError, RuntimeError) as error:  # the kernel's limit of watches (fs.inotify.max_user_watches)
            parent.warn(f"watchfiles cannot watch the files, which are looked at instead: {error}")
    return look_again_and_again(files, parent, before)


def hear_events(files: Files, parent: Parent, events: Any, before: dict[str, Stamp]) -> None:
    """Have the kernel tell what changes, through `watchfiles`; once also look, for what came before it listened."""
    has_looked = False
    for changes in events.watch(
        files.folder,
        watch_filter=lambda _kind, path: files.has(path),
        step=int(QUIET_SECONDS * 1000),
        debounce=int(MOST_UNQUIET * 1000),
        stop_event=parent,
        raise_interrupt=False,
        rust_timeout=int(LOOK_SECONDS * 1000),
        yield_on_timeout=True,
    ):
        changed = {path for _kind, path in changes}
        if not has_looked:
            changed |= _difference(before, files.look())
            has_looked = True
        if changed:
            parent.tell(changed)


def look_again_and_again(files: Files, parent: Parent, before: dict[str, Stamp]) -> None:
    """Compare what is there with what was there."""
    pause = LOOK_SECONDS
    while not parent.is_gone(pause):
        began = monotonic()
        now = files.look()
        pause = max(LOOK_SECONDS, (monotonic() - began) / MOST_LOOKING)
        if now != before:
            now = _wait_until_quiet(files, parent, now)
            if changed := _difference(before, now):
                parent.tell(changed)
        before = now


def _difference(before: dict[str, Stamp], now: dict[str, Stamp]) -> set[str]:
    return {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}


def _wait_until_quiet(files: Files, parent: Parent, now: dict[str, Stamp]) -> dict[str, Stamp]:
    deadline = Deadline(MOST_UNQUIET)
    while not deadline.is_due() and not parent.is_gone(QUIET_SECONDS):
        before, now = now, files.look()
        if now == before:
            break
    return now


def _be_the_child(system: System, files: Files, end: socket.socket, mask: Iterable[int]) -> NoReturn:
    status = 1
    try:
        os.setpgid(0, 0)  # a Ctrl-C of the terminal is the supervisor's to answer
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            is_end = number in {signal.SIGTERM, signal.SIGQUIT}
            signal.signal(number, signal.SIG_DFL if is_end else signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _let_go(end.fileno())
        live(files, Parent(end, files))
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        flush_standard_streams()
        system.exit(status)


def _let_go(kept: int) -> None:
    """Keep nothing of the supervisor's open but this and standard input, output and error.

    The numbers stay taken, by the null device: an object of the supervisor's that is collected here closes its own
    number, which must not be one that is in use again.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in {kept, null}:
            os.dup2(null, fd, inheritable=False)


def _is_watched(name: str) -> bool:
    """By the name of a file; a hidden one is an editor's."""
    return name in SETTINGS_FILES or (name.endswith(".py") and not name.startswith("."))


def _is_skipped(name: str) -> bool:
    """By the name of a folder; `..` too: what is above is not looked at."""
    return name.startswith(".") or name in SKIPPED


def _note(path: str, found: dict[str, Stamp]) -> None:
    try:
        seen = os.stat(path)
    except OSError:  # gone meanwhile, or a link to nowhere
        return
    found[path] = (seen.st_mtime_ns, seen.st_size, seen.st_ino)


def _warn(line: str) -> None:
    logging.getLogger(LOGGER).warning("%s", line)
