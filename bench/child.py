"""A child process of the harness: pinned to a core, spoken with in lines, dead at the end.

Owns      the process, its pipes and the file its complaints go to.
Promises  the process and all that it forked are gone when `child` is left, however it is left; when the harness itself
          is killed, the kernel ends the process.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["Child", "child"]

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1


class Child:
    """A process of ours that talks in lines."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._input = process.stdin
        self._output = process.stdout
        self._errors = errors
        self.pid = process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def line(self, seconds: float) -> str:
        """The next line; what there is of it when the process ends or the time is over."""
        deadline = time.monotonic() + seconds
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self._output], [], [], max(deadline - time.monotonic(), 0))
            if not ready or not (more := os.read(self._output.fileno(), 1)):
                break
            text += more
        return text.decode(errors="replace").strip()

    def go(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._input.write(b"\n")
            self._input.flush()

    def interrupt(self, seconds: float) -> bool:
        """Ctrl-C; whether it ended of it in time."""
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.alive

    def complaint(self) -> str:
        """The last line on stderr, waiting a moment for an end that is under way."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._errors.seek(0)
        said = (self._errors.read().decode(errors="replace").strip().splitlines() or [""])[-1]
        return said or "it ended without a word"

    def kill(self) -> None:
        """The process and all that it forked (it leads a process group of its own)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(10)
        self._output.close()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()


@contextlib.contextmanager
def child(
    command: Sequence[str], core: int, env: Mapping[str, str] | None = None, *, errors_are_lines: bool = False
) -> Iterator[Child]:
    """`errors_are_lines`: what it says on stderr is read by `line`, like the rest."""
    with tempfile.TemporaryFile() as errors:
        process = Child(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if errors_are_lines else errors,
                cwd=ROOT,
                env=env,
                start_new_session=True,
                preexec_fn=_prepare(core),
            ),
            errors,
        )
        try:
            yield process
        finally:
            process.kill()


def _prepare(core: int) -> Callable[[], None]:
    """What the child does before it becomes the program: take its core, and die when we die, even by SIGKILL."""
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return prepare
