"""One run: one fresh server on its core, one load on the other, the server's CPU read around a fixed number of messages.

Owns      the server and the load of a run; both are dead when `started` is left.
Promises  a Sample only if every reply was right; else `RunFailed` with what the server or the load said.
          Bounded in time: the load ends itself, every wait here has a deadline.
          A server sees none of our MOORAGE_ variables, only those its rival asks for: defaults are defaults.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import certificates, machine
from bench.child import Child, child
from bench.model import Load, Rival, Sample

__all__ = ["Run", "RunFailed", "certified", "command_of", "environment", "measure", "started"]

HERE = Path(__file__).resolve().parent
START_SECONDS = 20  # a server says its port within this


class RunFailed(Exception):
    """A run without a result: why, in one sentence."""


@dataclass(frozen=True)
class Run:
    """A server and its load. The load stands still after each word, until it is told to go on."""

    server: Child
    client: Child
    load: Load
    empty: int  # KiB resident, listening, before the first connection

    def wait_for(self, word: str) -> list[str]:
        answer = self.client.line(self.load.seconds + 5).split()
        if not answer or answer[0] != word:
            raise RunFailed(self.client.complaint() if self.server.alive else self.ended())
        return answer

    def ended(self) -> str:
        return f"the server ended during the run: {self.server.complaint()}"


@contextlib.contextmanager
def started(rival: Rival, load: Load) -> Iterator[Run]:
    """Server and load; the load opens its connections."""
    server_core, load_core = machine.cores()
    with (
        certified(rival.tls) as made,
        child(command_of(rival), server_core, environment(rival) | certificates.for_server(made)) as server,
    ):
        port = _port(server)
        empty = machine.resident_kib(server.pid)
        with child([*_load_program(rival), str(port), *_words(load, made)], load_core) as client:
            run = Run(server, client, load, empty)
            try:
                yield run
            except OSError as error:  # the server is gone: its /proc files and its clock too
                raise RunFailed(run.ended()) from error


@contextlib.contextmanager
def certified(wanted: bool) -> Iterator[certificates.Certificates | None]:
    """A certificate for as long as the run, if one is wanted."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield certificates.make(Path(folder)) if wanted else None


def command_of(rival: Rival) -> list[str]:
    source = HERE / "rivals" / rival.program
    program = [str(machine.compiled(source))] if source.suffix == ".c" else [sys.executable, str(source)]
    return [*program, *rival.args]


def measure(rival: Rival, load: Load) -> Sample:
    with started(rival, load) as run:
        run.wait_for("opened")
        opened = machine.resident_kib(run.server.pid)
        run.client.go()
        run.wait_for("warm")
        before = machine.cpu_seconds(run.server.pid)
        run.client.go()
        _, nanoseconds, messages = run.wait_for("done")
        used = machine.cpu_seconds(run.server.pid) - before
        run.client.go()
        return Sample(
            cpu_us=used / int(messages) * 1e6,
            per_second=int(messages) / int(nanoseconds) * 1e9,
            kib_per_connection=(opened - run.empty) / (load.connections + load.idle),
        )


def environment(rival: Rival) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")} | dict(rival.env)


def _load_program(rival: Rival) -> list[str]:
    return [sys.executable, str(HERE / "tls_load.py")] if rival.tls else [str(machine.compiled(HERE / "load.c"))]


def _words(load: Load, made: certificates.Certificates | None) -> list[str]:
    """The arguments of a load after the port."""
    numbers = [load.connections, load.idle, load.size, load.warmup, load.messages, load.seconds]
    return [load.mode, *map(str, numbers), *([str(made.authority)] if made else [])]


def _port(server: Child) -> int:
    text = server.line(START_SECONDS)
    if not text.isdigit():
        raise RunFailed(f"the server did not say its port: {text or server.complaint()}")
    return int(text)
