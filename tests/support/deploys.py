"""A load that goes on while a server is reloaded, upgraded and wounded; see `deploy_load.py`."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .client import SOON
from .waiting import eventually

__all__ = ["Load", "load"]

PROGRAM = Path(__file__).parent / "deploy_load.py"


class Load:
    """The clients, seen from the test."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        #: what went wrong, with the process that served, where it was known
        self.failures: list[dict[str, Any]] = []
        self._counts: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "failure" in said:
                self.failures.append(said)
            else:
                self._counts.put(said)

    def visits(self) -> int:
        """How many visits were whole so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return int(self._counts.get(timeout=SOON)["visits"])

    def wait_for_more(self, visits: int = 100) -> None:
        """Wait until so many more visits were whole."""
        wanted = self.visits() + visits
        eventually(lambda: self.visits() >= wanted, SOON)

    def stop(self) -> int:
        """Let every client finish; returns the number of whole visits."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(SOON)
        last = {"visits": 0}
        while not self._counts.empty():
            last = self._counts.get()
        assert last.get("is_over"), "the load did not end"
        return int(last["visits"])


@contextmanager
def load(address: tuple[str, int], clients: int = 50) -> Iterator[Load]:
    """So many clients, until the block ends."""
    command = [sys.executable, str(PROGRAM), address[0], str(address[1]), str(clients)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]  # two of its pipes
        running = Load(process)
        try:
            yield running
        finally:
            process.kill()
            running._reader.join(SOON)
