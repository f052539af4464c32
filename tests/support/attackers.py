"""A crowd of attackers in a process of its own, and what became of it.

The program is `bench/attackers.py`, which the benchmark `attack` sends, too: it says what each kind of them does.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from bench import attackers as program

from .client import SOON

__all__ = ["Crowd", "attackers"]

PATIENCE = 2 * SOON  # until all of them are gone


class Crowd:
    """The process, and what it says."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self._process = process
        self._output = process.stdout.fileno()
        self._text = b""

    def wait_until_here(self) -> int:
        """Wait until all of them are connected, or refused; how many that were."""
        came: int = self._hear()["here"]
        return came

    def is_over(self, seconds: float = 0.0) -> bool:
        """Whether they are gone, or are gone within this time."""
        return bool(select.select([self._output], [], [], seconds)[0])

    def wait_until_gone(self) -> dict[str, dict[str, Any]]:
        """What became of each kind; see `Fate`."""
        fates: dict[str, dict[str, Any]] = self._hear()["fates"]
        return fates

    def _hear(self) -> dict[str, Any]:
        while b"\n" not in self._text:
            assert self.is_over(PATIENCE + SOON), "the attackers say nothing"
            more = os.read(self._output, 65536)
            assert more, "the attackers fell over, see standard error"
            self._text += more
        line, _, self._text = self._text.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said


@contextmanager
def attackers(address: Any, *, drip_every: float = 0.3, **crowd: int) -> Iterator[Crowd]:
    """So many of each kind attack this address; those who are left are gone at the end."""
    task = program.Task(address, crowd, PATIENCE, drip_every=drip_every)
    command = [sys.executable, program.__file__, json.dumps(asdict(task))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield Crowd(process)
        finally:
            process.kill()
