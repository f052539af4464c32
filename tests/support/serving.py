"""`moorage serve` in a process of its own: its log line by line, its signals, its status."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from .client import SOON

__all__ = ["MOORAGE", "Serving", "mistake"]

MOORAGE = [sys.executable, "-m", "moorage"]


class Serving:
    """One `moorage serve` and what follows from it; `pid` is its supervisor, also after an upgrade."""

    def __init__(self, *arguments: str, cwd: Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*MOORAGE, "serve", *arguments],
            cwd=cwd,
            env={**os.environ, "XDG_RUNTIME_DIR": str(cwd), **(env or {})},  # each with a control socket of its own
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.pid = self.process.pid
        self.log: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)  # every process that could write is gone

    def hear(self, pattern: str, seconds: float = SOON) -> re.Match[str]:
        """The next line that holds the pattern."""
        until = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"no line has {pattern!r}:\n{''.join(self.log)}"
            self.log.append(line)
            if match := re.search(pattern, line):
                return match

    def address(self) -> Any:
        """Where it listens."""
        match = self.hear(r"listening on (?:unix:(\S+)|\[?([^\s\]]+?)\]?:(\d+))[ ,]")
        return match[1] or (match[2], int(match[3]))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.pid, number)

    def follow_upgrade(self, seconds: float = SOON) -> None:
        """Wait until the new program has taken over; it is meant from here on."""
        self.pid = int(self.hear(r"the new program \((\d+)\) is ready", seconds)[1])

    def status(self) -> int:
        """The exit status of the first program; everything that was started has to end."""
        status = self.process.wait(SOON)
        self.wait_for_silence()
        return status

    def wait_for_silence(self) -> None:
        """Wait until no process is left that could write a line."""
        self._reader.join(SOON)
        assert not self._reader.is_alive(), f"somebody is left:\n{''.join(self.log)}"
        while not self._lines.empty():
            line = self._lines.get()
            if line is not None:
                self.log.append(line)

    def said(self, text: str) -> bool:
        """Whether a line that was heard holds this text."""
        return any(text in line for line in self.log)

    def end(self) -> None:
        """Whatever state it is in: over."""
        for pid in {self.pid, self.process.pid}:
            if pid != self.process.pid or self.process.poll() is None:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.status()  # its workers notice that it is gone, drain and leave


def mistake(cwd: Path, *arguments: str) -> str:
    """The sentence for a mistake of the operator, which ends the process with status 2 before anything is served."""
    run = subprocess.run([*MOORAGE, *arguments], cwd=cwd, capture_output=True, text=True, timeout=SOON, check=False)
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1, run.stderr
    assert run.stderr.startswith("moorage: ")
    return run.stderr
