"""Deploys under load: reload, upgrade, more and fewer workers, and workers that are killed.

What is asked: no client is refused or reset and no byte is lost by anything that an operator does; a worker that is
killed takes its own connections with it and nobody else's.
"""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.deploys import Load, load
from support.serving import Serving

HANDLERS = Path(__file__).parent.parent / "support" / "deploy_handlers.py"
#: times of each: (reloads, upgrades, TTIN and TTOU, kills)
SHORT, LONG = (2, 1, 1, 1), (10, 3, 5, 5)
PATIENCE = 60.0  # for one step, on a busy machine
WORKERS = 3


class Deployed:
    """A server under load, and what an operator does to it."""

    def __init__(self, runner: str, cwd: Path) -> None:
        self.server = Serving(
            f"{HANDLERS}:echo", "--bind", "127.0.0.1:0", "--workers", str(WORKERS), "--runner", runner,
            "--drain-quiet", "300ms", "--control", str(cwd / "control"), "--pid-file", str(cwd / "pid"),
            "--metrics", "127.0.0.1:0", cwd=cwd,
        )  # fmt: skip
        self.address = self.server.address()
        self.pid_file = cwd / "pid"

    def reload(self) -> None:
        self.server.signal(signal.SIGHUP)
        self.server.hear(r"reloaded after", PATIENCE)

    def upgrade(self) -> None:
        old = self.server.pid
        self.server.signal(signal.SIGUSR2)
        self.server.follow_upgrade(PATIENCE)
        assert self.server.pid != old
        assert int(self.pid_file.read_text()) == self.server.pid

    def more_and_fewer(self) -> None:
        self.server.signal(signal.SIGTTIN)
        self.server.hear(r"is ready after", PATIENCE)
        self.server.signal(signal.SIGTTOU)
        self.server.hear(r"INFO .*worker \d+ \(\d+\) ended: exit status 0", PATIENCE)

    def kill_a_worker(self) -> int:
        pid = self.pids()[0]
        os.kill(pid, signal.SIGKILL)
        self.server.hear(rf"worker \d+ \({pid}\) ended: killed by SIGKILL", PATIENCE)
        self.server.hear(r"is ready after", PATIENCE)
        return pid

    def pids(self) -> list[int]:
        """Its workers: the children of the supervisor that have none of its own."""
        task = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children")
        return [int(pid) for pid in task.read_text().split()]


@pytest.fixture(params=["threads", "fibers"])
def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployed]:
    deployed = Deployed(request.param, tmp_path)
    try:
        yield deployed
    finally:
        deployed.server.end()


def check(deployed: Deployed, times: tuple[int, int, int, int]) -> None:
    reloads, upgrades, changes, kills = times
    with load(deployed.address) as clients:
        clients.wait_for_more()
        for count, step in (
            (reloads, deployed.reload),
            (upgrades, deployed.upgrade),
            (changes, deployed.more_and_fewer),
        ):
            repeat(step, count, clients)
        assert clients.failures == []
        killed = set()
        for _ in range(kills):
            killed.add(deployed.kill_a_worker())
            clients.wait_for_more()
        visits = clients.stop()
        # a client that was accepted and not yet greeted does not know whose it was
        assert [failure for failure in clients.failures if failure["pid"] not in {*killed, None}] == []
        assert len(clients.failures) <= 50 * kills
    assert visits > 100 * (reloads + upgrades + changes + kills)
    deployed.server.signal(signal.SIGTERM)
    deployed.server.wait_for_silence()
    assert re.search(r"stopped\n$", deployed.server.log[-1])


def repeat(step: Callable[[], None], times: int, clients: Load) -> None:
    for _ in range(times):
        step()
        clients.wait_for_more()


@pytest.mark.timeout(150)
def test_deploys_under_load_lose_nobody(deployed: Deployed) -> None:
    check(deployed, SHORT)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_many_deploys_under_load_lose_nobody(deployed: Deployed) -> None:
    check(deployed, LONG)
