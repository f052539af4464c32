"""What a server asks of the kernel for each message, counted by `strace -c` in a run of its own.

Owns      the strace process, attached while the messages are under way: connections are open before it comes and after
          it has gone, so that nothing but the work for messages is counted. Nothing here is timed: strace stops
          the server at each call.
Promises  counts, or `NotTraced` with the reason in one sentence (no strace, not allowed, a run that failed).
"""

import shutil
import tempfile
from pathlib import Path

from bench import contest, machine
from bench.child import child
from bench.model import Calls, Load, Rival

__all__ = ["NotTraced", "counts", "trace"]

ATTACH_SECONDS = 10
REPORT_SECONDS = 10


class NotTraced(Exception):
    """No counts; the text says why."""


def trace(rival: Rival, load: Load) -> Calls:
    strace = shutil.which("strace")
    if strace is None:
        raise NotTraced("strace is not installed")
    try:
        with contest.started(rival, load.traced()) as run:
            return _trace(strace, run)
    except contest.RunFailed as error:
        raise NotTraced(str(error)) from error


def _trace(strace: str, run: contest.Run) -> Calls:
    run.wait_for("opened")
    run.client.go()
    run.wait_for("warm")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "calls")
        # the core of the load: it stands still while the server is stopped
        command = [strace, "-f", "-c", "-o", str(report), "-p", str(run.server.pid)]
        with child(command, machine.cores()[1], errors_are_lines=True) as tracer:
            if "attached" not in (said := tracer.line(ATTACH_SECONDS)):
                raise NotTraced(f"strace cannot attach: {said or 'it said nothing'}")
            run.client.go()
            messages = int(run.wait_for("done")[2])
            if not tracer.interrupt(REPORT_SECONDS):
                raise NotTraced("strace did not end at an interrupt")
        if not report.exists():
            raise NotTraced("strace ended without a report")
        return Calls(messages, counts(report.read_text()))


def counts(report: str) -> dict[str, int]:
    """System call to number, out of the table of `strace -c`; its column of errors is empty for most."""
    rows = [line.split() for line in report.splitlines()]
    return {row[-1]: int(row[3]) for row in rows if len(row) in (5, 6) and row[3].isdigit() and row[-1] != "total"}
