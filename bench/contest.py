"""One run: one fresh server on its core, one load on the other, the server's CPU read around a fixed number of messages.

Owns      the two child processes of a run; both are dead when `measure` returns, however it returns.
Promises  a Sample only if every reply was right; else `RunFailed` with what the server or the load said.
          Bounded in time: the load ends itself, every wait here has a deadline, and the children die with this process.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from bench import machine
from bench.model import Load, Rival, Sample

__all__ = ["RunFailed", "measure"]

HERE = Path(__file__).resolve().parent
START_SECONDS = 20  # a server says its port within this
PR_SET_PDEATHSIG = 1


class RunFailed(Exception):
    """A run without a result: why, in one sentence."""


def measure(rival: Rival, load: Load) -> Sample:
    server_core, load_core = machine.cores()
    source = HERE / "rivals" / rival.program
    program = [str(machine.compiled(source))] if source.suffix == ".c" else [sys.executable, str(source)]
    with _child([*program, *rival.args], server_core) as server:
        port = _port(server)
        empty = machine.resident_kib(server.pid)
        arguments = [load.mode, load.connections, load.idle, load.size, load.warmup, load.messages, load.seconds]
        client_program = str(machine.compiled(HERE / "load.c"))
        with _child([client_program, str(port), *map(str, arguments)], load_core) as client:
            try:
                return _sample(server, client, load, empty)
            except OSError as error:  # the server is gone: its /proc files and its clock too
                raise RunFailed(f"the server ended during the run: {_said(server)}") from error


def _sample(server: "Child", client: "Child", load: Load, empty: int) -> Sample:
    def wait_for(word: str) -> list[str]:
        answer = client.line(load.seconds + 5).split()
        if not answer or answer[0] != word:
            raise RunFailed(_said(client) if server.alive else f"the server ended during the run: {_said(server)}")
        return answer

    wait_for("opened")
    opened = machine.resident_kib(server.pid)
    client.go()
    wait_for("warm")
    before = machine.cpu_seconds(server.pid)
    client.go()
    _, nanoseconds, messages = wait_for("done")
    used = machine.cpu_seconds(server.pid) - before
    client.go()
    return Sample(
        cpu_us=used / int(messages) * 1e6,
        per_second=int(messages) / int(nanoseconds) * 1e9,
        kib_per_connection=(opened - empty) / (load.connections + load.idle),
    )


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

    def complaint(self) -> str:
        """The last line on stderr, waiting a moment for an end that is under way."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._errors.seek(0)
        return (self._errors.read().decode(errors="replace").strip().splitlines() or [""])[-1]

    def kill(self) -> None:
        """The process and all that it forked (it leads a process group of its own)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(10)
        self._output.close()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()


@contextlib.contextmanager
def _child(command: list[str], core: int) -> Iterator[Child]:
    with tempfile.TemporaryFile() as errors:
        child = Child(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=HERE.parent,
                start_new_session=True,
                preexec_fn=_prepare(core),
            ),
            errors,
        )
        try:
            yield child
        finally:
            child.kill()


def _prepare(core: int) -> Callable[[], None]:
    """What the child does before it becomes the program: take its core, and die when we die, even by SIGKILL."""
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return prepare


def _port(server: Child) -> int:
    text = server.line(START_SECONDS)
    if not text.isdigit():
        raise RunFailed(f"the server did not say its port: {text or _said(server)}")
    return int(text)


def _said(child: Child) -> str:
    return child.complaint() or "it ended without a word"
