"""Programs of ours in processes of their own, for tests that measure or attack a whole process."""

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .client import SOON

__all__ = ["CrowdServer", "crowd", "crowd_server"]

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


class CrowdServer:
    """`crowd_server.py`, seen from outside."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.log: list[str] = []
        self._logged = threading.Condition()  # guards `log`
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        self.idle = self._hear()
        self.address: Any = tuple(self.idle["address"])

    def report(self) -> dict[str, Any]:
        """What it has been through so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("report\n")
        self._process.stdin.flush()
        return self._hear()

    def wait_for_line(self, words: str) -> None:
        """Wait until a line of the log has these words."""
        with self._logged:
            assert self._logged.wait_for(lambda: any(words in line for line in self.log), SOON), self.log

    def cpu_seconds(self) -> float:
        """What it has used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def stop(self) -> None:
        """Let it drain; it must leave on its own, with status 0."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(SOON) == 0
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], SOON)[0], self.log
        line = self._process.stdout.readline()
        assert line, self.log
        said: dict[str, Any] = json.loads(line)
        return said

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._logged:
                self.log.append(line)
                self._logged.notify_all()


@contextmanager
def crowd_server(**settings: Any) -> Iterator[CrowdServer]:
    """A server with these settings."""
    warnings = ["-W", "error", "-W", "ignore:runner 'forks' in a process:RuntimeWarning"]
    command = [sys.executable, *warnings, str(HERE / "crowd_server.py"), json.dumps(settings)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        server = CrowdServer(process)
        try:
            yield server
        finally:
            server.stop()


def crowd(server: CrowdServer, *, good: int, mute: int = 0, seconds: float = 60.0) -> dict[str, Any]:
    """Send a crowd to this server; what became of it."""
    task = {"address": server.address, "good": good, "mute": mute, "seconds": seconds}
    command = [sys.executable, str(HERE / "crowd.py"), json.dumps(task)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + SOON, check=True)
    result: dict[str, Any] = json.loads(ran.stdout)
    return result
