"""Upgrade: a new program in the place of this one, on the same listening sockets.

Owns      the process of the new program, from its fork until it says that it is ready, or is dead and reaped.
Promises  one at a time; the new program is started as this one was (command, directory, environment) and inherits
          the sockets from 3 on, the pipe behind them on which it says ready, 0, 1 and 2, and nothing else; one
          that ends, or is not ready in time, is killed, and nothing has changed.
Refuses   to be begun by process 1, whose end is that of its container; to end this program: `done` does.
Why       code that was imported cannot be exchanged, and an interpreter less so; a program that execs itself cannot
          go back when the new one does not start.
"""

import enum
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import NoReturn, Protocol

from ..errors import InternalError
from ..events import Events, UpgradeFailed, UpgradeFinished, UpgradeStarted
from . import handover
from .notify import WATCHDOG_PID

#: "PIPE,PID,OLD": the descriptor on which to say ready, who may say it, and to whom
VARIABLE = "MOORAGE_UPGRADE"
READY, WRONG = b"ready", b"!"
#: how often a killed program is looked for; it is gone after one look, save where the disk has it
LOOK_SECONDS = 0.05
#: what a shell answers when a command cannot be started
NOT_STARTED = 127
_WORD_LIMIT = 4096

AS_PROCESS_1 = (
    "this program is process 1, with whose end everything in its container ends: start a new container instead"
)
IS_TOO_LATE = "it was not ready within {:g} s (boot_timeout)"
IS_SILENT = "it left without saying that it is ready"


class State(enum.Enum):
    """Where an upgrade is; `NEXT` says what may follow."""

    NONE = "none"
    STARTING = "starting"
    ENDING = "ending"  # killed, and not reaped yet
    DONE = "done"  # the new program serves, this one leaves


NEXT: dict[State, frozenset[State]] = {
    State.NONE: frozenset({State.STARTING}),
    State.STARTING: frozenset({State.ENDING, State.DONE}),
    State.ENDING: frozenset({State.NONE}),
    State.DONE: frozenset(),
}


class System(Protocol):
    """What it asks of the operating system; see system."""

    def fork(self) -> int: ...
    def exit(self, status: int) -> NoReturn: ...
    def kill(self, pid: int, signum: int) -> None: ...
    def wait(self, pid: int) -> int | None: ...
    def now(self) -> float: ...
    def is_init(self) -> bool: ...


class Timer(Protocol):
    """A call to come; see watch."""

    def cancel(self) -> None: ...


class Watch(Protocol):
    """Who waits for the new program; see watch."""

    def listen(self, fd: int, call: Callable[[], None]) -> None: ...
    def unlisten(self, fd: int) -> None: ...
    def call_at(self, when: float, call: Callable[[], None]) -> Timer: ...


@dataclass(frozen=True)
class Start:
    """How this program was started; made before anything of it changes."""

    command: list[str]
    directory: str
    environ: Mapping[str, str] = field(repr=False)  # may hold secrets

    @classmethod
    def here(cls) -> "Start":
        """As it is now; the script of a console command is an argument of the interpreter."""
        arguments = sys.orig_argv[1:]
        return cls([sys.executable or sys.orig_argv[0], *arguments], _directory(), dict(os.environ))


def _directory() -> str:
    """Where the program runs, as its starter wrote it.

    `PWD` keeps the links: behind /srv/app/current there may be another release by the time of the upgrade.
    """
    written = os.environ.get("PWD", "")
    with suppress(OSError):
        if os.path.isabs(written) and os.path.samefile(written, "."):
            return written
    with suppress(OSError):
        return os.getcwd()
    return written or "/"  # removed under our feet: the new program will say what it lacks


#: noted when this file is loaded: soon a program may go elsewhere, and the variables of the service manager are taken
STARTED = Start.here()


class Upgrade:
    """The upgrades of one supervisor; `done(pid)` is called when the new program is ready.

    `sockets` tells what to pass on, by name (see `handover.pass_on`); `reap` is to be called at SIGCHLD.
    """

    def __init__(
        self,
        watch: Watch,
        events: Events,
        *,
        system: System,
        sockets: Callable[[], Mapping[str, Sequence[int]]],
        boot_timeout: float | None,
        done: Callable[[int], object],
        start: Start = STARTED,
    ) -> None:
        #: how long the new program may take; a reload changes it
        self.boot_timeout = boot_timeout
        #: the process of the new program; None when there is none
        self.pid: int | None = None
        self._start, self._watch, self._events, self._system = start, watch, events, system
        self._sockets, self._done = sockets, done
        self._state = State.NONE
        self._pipe = -1
        self._timer: Timer | None = None
        self._began = 0.0
        self._reason = ""  # why it failed

    @property
    def is_under_way(self) -> bool:
        """Whether a new program is starting, or one that failed is not gone yet."""
        return self._state in {State.STARTING, State.ENDING}

    def begin(self) -> bool:
        """Start the new program; False, after `UpgradeFailed`, when that cannot be."""
        refusal = self._refusal()
        if refusal is not None:
            self._events.emit(UpgradeFailed(refusal))
            return False
        try:
            pid = self._fork()
        except OSError as error:
            self._events.emit(UpgradeFailed(f"the new program cannot be started: {error.strerror}"))
            return False
        self._move(State.STARTING)
        self.pid, self._began = pid, self._system.now()
        self._watch.listen(self._pipe, self._hear)
        if self.boot_timeout is not None:
            late = IS_TOO_LATE.format(self.boot_timeout)
            self._timer = self._watch.call_at(self._began + self.boot_timeout, lambda: self._fail(late))
        self._events.emit(UpgradeStarted(pid))
        return True

    def cancel(self, reason: str) -> None:
        """End the new program, unless it is ready: this one was asked to stop, and both were meant."""
        if self._state is State.STARTING:
            self._fail(reason)

    def reap(self) -> None:
        """Look whether the new program has ended."""
        if self.pid is None or not self.is_under_way:
            return
        status = self._system.wait(self.pid)
        if status is not None:
            self._ended(status)
        elif self._state is State.ENDING:
            self._stop_waiting()
            self._timer = self._watch.call_at(self._system.now() + LOOK_SECONDS, self.reap)

    def forget(self) -> None:
        """In a forked worker: close what is the supervisor's."""
        self._close_pipe()

    def _refusal(self) -> str | None:
        if self._system.is_init():
            return AS_PROCESS_1
        if self._state is State.DONE:
            return f"the new program ({self.pid}) has taken over already"
        return f"another upgrade is under way, with process {self.pid}" if self.is_under_way else None

    def _fork(self) -> int:
        """The pid of the new program; in it, this does not return."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        parent = os.getpid()
        # whatever signal comes meanwhile: the child must not run the handlers of this process
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = self._system.fork()
            if pid == 0:
                self._become(write, parent, before)
        except BaseException:
            os.close(read)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(write)
        self._pipe = read
        return pid

    def _become(self, pipe: int, parent: int, mask: Iterable[int]) -> NoReturn:
        """The child's life, until it is the new program or has said why not."""
        try:
            environ, fds = handover.pass_on(self._sockets(), self._start.environ)
            reset_signals(mask)
            os.chdir(self._start.directory)
            [*_, pipe] = arrange([*fds, pipe])
            environ |= {handover.PID: str(os.getpid()), VARIABLE: f"{pipe},{os.getpid()},{parent}"}
            if environ.get(WATCHDOG_PID) == str(parent):  # whoever answers the watchdog: from now on this process
                environ[WATCHDOG_PID] = str(os.getpid())
            os.execve(self._start.command[0], self._start.command, environ)
        except BaseException as error:
            with suppress(OSError):
                os.write(pipe, WRONG + str(error).encode("utf-8", "replace")[:_WORD_LIMIT])
        self._system.exit(NOT_STARTED)

    def _hear(self) -> None:
        try:
            word = os.read(self._pipe, _WORD_LIMIT)
        except BlockingIOError:
            return
        if word.startswith(READY):
            self._finish()
        elif word.startswith(WRONG):
            self._fail(f"the new program cannot be started: {word[len(WRONG) :].decode('utf-8', 'replace')}")
        else:
            self._fail(IS_SILENT)

    def _finish(self) -> None:
        self._move(State.DONE)
        assert self.pid is not None
        self._stop_waiting()
        self._events.emit(UpgradeFinished(self.pid, self._system.now() - self._began))
        self._done(self.pid)

    def _fail(self, reason: str) -> None:
        """Kill it; the rest follows when it is dead."""
        assert self.pid is not None
        self._move(State.ENDING)
        self._reason = reason
        self._stop_waiting()
        self._system.kill(self.pid, signal.SIGKILL)
        self.reap()

    def _ended(self, status: int) -> None:
        reason = self._reason
        if self._state is State.STARTING:
            self._move(State.ENDING)
        if reason in {"", IS_SILENT} and os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            reason = f"it ended before it was ready: {_manner(status)}"
        elif not reason:
            reason = f"it was {_manner(status)} before it was ready"
        self._stop_waiting()
        self._move(State.NONE)
        self.pid, self._reason = None, ""
        self._events.emit(UpgradeFailed(reason))

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pipe >= 0:
            self._watch.unlisten(self._pipe)
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _move(self, state: State) -> None:
        if state not in NEXT[self._state]:
            raise InternalError(f"an upgrade cannot go from {self._state.value} to {state.value}")
        self._state = state


class Successor:
    """What the new program knows of the one before it; made by `from_environ`."""

    def __init__(self, pipe: int, old_pid: int) -> None:
        #: the process that serves until we are ready
        self.old_pid = old_pid
        self._pipe = pipe

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> "Successor | None":
        """None when this program was not started by an upgrade; the variable is removed."""
        match environ.pop(VARIABLE, "").split(","):
            case [pipe, pid, old] if pid == str(os.getpid()) and pipe.isdecimal() and old.isdecimal():
                with suppress(OSError):
                    if stat.S_ISFIFO(os.fstat(int(pipe)).st_mode):
                        os.set_inheritable(int(pipe), False)
                        return cls(int(pipe), int(old))
        return None

    def say_ready(self) -> None:
        """This program serves: the old one may leave.  It may have left already."""
        if self._pipe >= 0:
            with suppress(OSError):
                os.write(self._pipe, READY)
        self.close()

    def close(self) -> None:
        """Close the pipe, which says that nothing more will come; in a worker: forget it.  Twice is once."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def arrange(fds: Sequence[int]) -> list[int]:
    """These descriptors as 3, 4, 5 and so on, for the next program; all others above 2 are closed.  For a child only."""
    wanted = list(range(handover.FIRST, handover.FIRST + len(fds)))
    above = handover.FIRST + len(fds)
    copies = [fcntl(fd, F_DUPFD_CLOEXEC, above) for fd in fds]  # out of the way: they may lie where others go
    for copy, fd in zip(copies, wanted, strict=True):
        os.dup2(copy, fd)  # inheritable
    os.closerange(above, _most_files())
    return wanted


def reset_signals(mask: Iterable[int]) -> None:
    """As they were before this program caught any; ignored ones stay ignored, save those Python itself ignores."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) or number in _IGNORED_BY_PYTHON:
            with suppress(OSError, ValueError):  # those of the C library
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


#: as `subprocess` does with `restore_signals`
_IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


def _most_files() -> int:
    """One above the highest descriptor there is."""
    return max(map(int, os.listdir("/proc/self/fd"))) + 1


def _manner(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
