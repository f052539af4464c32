"""The programs that show a behaviour on either twin: which one a process has is chosen once, when it starts.

Owns      `TwinServer`, seen from outside, and how it and its clients are started.
Promises  it runs on the twin that was asked for, or the test is skipped and says why; what it wrote to its log
          is in `log`; every wait has an end.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .client import SOON
from .programs import CrowdServer
from .twins import BOTH, NATIVE, PURE, native

__all__ = ["TwinServer", "on_both_twins", "program", "twin_server"]

TESTS = Path(__file__).parents[1]

#: a test with this mark takes `twin`
on_both_twins = pytest.mark.parametrize("twin", BOTH)


class TwinServer(CrowdServer):
    """`twin_server.py`, seen from outside."""

    def __init__(self, process: "subprocess.Popen[str]", twin: str) -> None:
        super().__init__(process)
        assert self.idle["twin"] == twin
        said = self.idle["address"]
        self.address = said if isinstance(said, str) else tuple(said)

    def count(self) -> dict[str, Any]:
        """What it holds now."""
        return self._ask("count")

    def search(self) -> dict[str, Any]:
        """What it holds now, by a search of its heap."""
        return self._ask("search")

    def settle(self) -> dict[str, Any]:
        """What it holds when nobody is here any more, by a search of its heap."""
        return self._ask("settle")

    def close(self) -> dict[str, Any]:
        """What is left of it, by a search of its heap."""
        return self._ask("close")

    def _ask(self, word: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._hear()


@contextmanager
def twin_server(
    twin: str, handler: str, bind: str = "127.0.0.1:0", *, allocator: str = "default", **settings: Any
) -> Iterator[TwinServer]:
    """A server on this twin; the handler is "module:name", the allocator a word for PYTHONMALLOC."""
    if twin == NATIVE:
        native()
    environment = {"MOORAGE_PURE": "1" if twin == PURE else "", "PYTHONMALLOC": allocator}
    with program("twin_server", {"handler": handler, "bind": bind, **settings}, environment) as process:
        server = TwinServer(process, twin)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def program(
    name: str, task: dict[str, Any], environment: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """A program of `support`, with its task; it has ended, by force if need be, when the block does."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-W", "error", "-m", f"support.{name}", json.dumps(task)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environ = {**os.environ, **(environment or {}), "PYTHONPATH": path}
    with subprocess.Popen(command, text=True, env=environ, **pipes) as process:  # type: ignore[call-overload]  # pipes
        try:
            yield process
            process.wait(SOON)
        finally:
            process.kill()
