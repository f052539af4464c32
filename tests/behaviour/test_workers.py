"""What a supervisor and its workers promise, with real processes, signals and sockets."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.client import SOON, Client
from support.serving import Serving
from support.waiting import eventually

HANDLERS = Path(__file__).parent.parent / "support" / "deploy_handlers.py"
RUNNERS = ["threads", "fibers"]

Start = Callable[..., "Workers"]


class Workers(Serving):
    """A `moorage serve` with workers, and its control socket."""

    def __init__(self, cwd: Path, *arguments: str, target: str = f"{HANDLERS}:echo", env: Any = None) -> None:
        self.control = cwd / "control"
        super().__init__(target, "--bind", "127.0.0.1:0", "--control", str(self.control), *arguments, cwd=cwd, env=env)

    def ask(self, command: str) -> Any:
        """What the control socket answers."""
        with Client(str(self.control)) as client:
            client.sendall(json.dumps({"command": command}).encode() + b"\n")
            answer = json.loads(client.rest())
        assert answer["ok"], answer
        return answer["result"]

    def workers(self) -> list[dict[str, Any]]:
        """What the supervisor says of its workers."""
        found: list[dict[str, Any]] = self.ask("status")["workers"]
        return found

    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self.workers()]

    def open(self) -> int:
        """Connections now, over all workers."""
        return sum(worker["open"] for worker in self.workers())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Workers] = []

    def start(*arguments: str, **more: Any) -> Workers:
        servers.append(Workers(tmp_path, *arguments, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def greeted(client: Client) -> int:
    """The number of the process that serves this client."""
    return int(client.line())


def served(address: Any) -> int:
    """The number of the process that serves a client who comes now."""
    with Client(address) as client:
        return greeted(client)


class Crowd:
    """Clients that come, say nothing and stay; who of them is inside, and who was cut."""

    def __init__(self, stack: ExitStack, address: Any, number: int) -> None:
        self._left = [stack.enter_context(Client(address)) for _ in range(number)]
        self._inside: dict[Client, int] = {}

    def look(self) -> int:
        """How many are inside now."""
        for client in tuple(self._left):
            client.setblocking(False)
            try:
                hello = client.recv(64)
            except BlockingIOError:
                continue
            if hello:
                self._inside[client] = int(hello)
            else:
                self._inside.pop(client)
                self._left.remove(client)
        return len(self._inside)

    def served_by(self, pid: int) -> int:
        """How many of those inside this process serves."""
        return sum(served == pid for served in self._inside.values())

    def leave(self, number: int) -> None:
        """So many of those inside leave."""
        for client in tuple(self._inside)[:number]:
            del self._inside[client]
            self._left.remove(client)
            client.close()

    @property
    def waiting(self) -> int:
        """How many are outside still."""
        return len(self._left) - len(self._inside)


# --- spreading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", RUNNERS)
def test_arrivals_that_stay_are_spread_over_the_workers(start: Start, runner: str) -> None:
    server = start("--workers", "4", "--runner", runner)
    address = server.address()
    with ExitStack() as stack:
        served = Counter(greeted(stack.enter_context(Client(address))) for _ in range(200))
        assert len(served) == 4
        assert max(served.values()) <= 1.5 * min(served.values()), served


# --- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", RUNNERS)
def test_total_is_never_exceeded_through_reload_and_kill(start: Start, runner: str) -> None:
    server = start("--workers", "4", "--runner", runner, "--max-connections", "100", "--drain-quiet", "1d")
    address = server.address()
    with ExitStack() as stack:
        crowd = Crowd(stack, address, 200)
        eventually(lambda: crowd.look() == 100, SOON)
        server.signal(signal.SIGHUP)
        server.hear("reloaded after")
        assert (crowd.look(), server.open()) == (100, 100)
        crowd.leave(10)  # of the old generation, which holds them all: the new one takes up what is free
        eventually(lambda: crowd.look() == 100, SOON)
        assert server.open() == 100
        victim = max(server.pids(), key=crowd.served_by)
        assert crowd.served_by(victim) > 10
        os.kill(victim, signal.SIGKILL)
        server.hear(f"{victim}.* ended: killed by SIGKILL")
        eventually(lambda: crowd.look() == 100 or not crowd.waiting, SOON)
        assert server.open() == crowd.look() == 100


def test_client_above_its_limit_is_refused_and_counted(start: Start) -> None:
    server = start("--workers", "4", "--max-per-client", "10")
    host, port = server.address()
    with ExitStack() as stack:
        clients = [stack.enter_context(Client((host, port))) for _ in range(60)]
        served = sum(client.line() != b"" for client in clients)
        assert 10 <= served <= 13
        server.hear("WARNING .*refused 127.0.0.1:.*max_per_client")
        with socket.create_connection((host, port), SOON, source_address=("127.0.0.2", 0)) as other:
            assert int(other.recv(64)) in server.pids()


def test_place_of_a_client_that_left_is_free_again(start: Start) -> None:
    server = start("--workers", "2", "--max-per-client", "2")
    address = server.address()
    for _ in range(20):
        with Client(address) as one, Client(address) as two:
            greeted(one)
            greeted(two)
        eventually(lambda: server.open() == 0, SOON)


# --- reload ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", RUNNERS)
def test_clients_in_the_backlog_at_a_reload_are_all_served(start: Start, runner: str) -> None:
    server = start("--workers", "2", "--runner", runner)
    address = server.address()
    old = server.pids()
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(address)) for _ in range(100)]
        server.signal(signal.SIGHUP)
        for pid in old:
            os.kill(pid, signal.SIGCONT)
        for client in clients:
            greeted(client)
            assert client.ask(b"here") == b"here"


def test_reload_brings_new_code_and_settings(start: Start, tmp_path: Path) -> None:
    handler, settings = tmp_path / "app.py", tmp_path / "moorage.toml"
    handler.write_text("def handle(conn): conn.sendall(b'one')\n")
    settings.write_text("line_limit = 1000\n")
    server = start(target="app:handle", env={"PYTHONDONTWRITEBYTECODE": "1"})
    address = server.address()
    with Client(address) as client:
        assert client.rest() == b"one"
    handler.write_text("def handle(conn): conn.sendall(b'%d' % conn.settings.line_limit)\n")
    settings.write_text("line_limit = 2000\n")
    server.signal(signal.SIGHUP)
    server.hear("worker 1 .* ended")  # for a moment old and new accept
    with Client(address) as client:
        assert client.rest() == b"2000"


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("moorage.toml", "line_limt = 5\n", "line_limt"),
        ("moorage.toml", "line_limit = ", "moorage.toml"),
        ("app.py", "import no_such_module\n", "no_such_module"),
        ("app.py", "handle = 5\n", "no handler"),
    ],
)
def test_reload_of_something_broken_changes_nothing_and_says_so(
    start: Start, tmp_path: Path, file: str, text: str, words: str
) -> None:
    (tmp_path / "app.py").write_text("def handle(conn): conn.sendall(b'one')\n")
    (tmp_path / "moorage.toml").write_text("line_limit = 1000\n")
    server = start("--workers", "2", target="app:handle", env={"PYTHONDONTWRITEBYTECODE": "1"})
    address = server.address()
    pids = server.pids()
    (tmp_path / file).write_text(text)
    server.signal(signal.SIGHUP)
    server.hear(f"ERROR .*reload failed.*{words}")
    eventually(lambda: server.pids() == pids, SOON)
    with Client(address) as client:
        assert client.rest() == b"one"


def test_reload_adds_and_removes_listeners(start: Start, tmp_path: Path) -> None:
    settings = tmp_path / "moorage.toml"
    one, two = tmp_path / "one", tmp_path / "two"
    settings.write_text(f"bind = 'unix:{one}'\n")
    server = Serving("echo", cwd=tmp_path)
    try:
        assert server.address() == str(one)
        with Client(str(one)) as stays:
            assert stays.ask(b"a") == b"a"
            settings.write_text(f"bind = 'unix:{two}'\n")
            server.signal(signal.SIGHUP)
            server.hear("reloaded after")
            with Client(str(two)) as client:
                assert client.ask(b"b") == b"b"
            eventually(lambda: not one.exists(), SOON)
        server.signal(signal.SIGTERM)
        assert server.status() == 0
        assert not two.exists()
    finally:
        server.end()


def test_reload_on_change_brings_new_code(start: Start, tmp_path: Path) -> None:
    handler = tmp_path / "app.py"
    handler.write_text("def handle(conn): conn.sendall(b'one')\n")
    server = start("--reload-on-change", target="app:handle", env={"PYTHONDONTWRITEBYTECODE": "1"})
    address = server.address()
    handler.write_text("def handle(conn): conn.sendall(b'second')\n")
    server.hear("worker 1 .* ended")  # for a moment old and new accept
    with Client(address) as client:
        assert client.rest() == b"second"


# --- the death of processes --------------------------------------------------------------------------


@pytest.mark.parametrize("runner", RUNNERS)
def test_orphaned_worker_drains_and_leaves(start: Start, runner: str) -> None:
    server = start("--workers", "2", "--runner", runner, "--drain-quiet", "100ms")
    with Client(server.address()) as client:
        greeted(client)
        assert client.ask(b"before") == b"before"
        server.signal(signal.SIGKILL)
        assert client.rest() == b""
    server.process.wait(SOON)
    server.wait_for_silence()


def test_stuck_worker_is_killed_with_its_stacks_in_the_log_and_replaced(start: Start, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "def stand_still():\n    while True: pass\n\ndef handle(conn):\n    conn.recv(1)\n    stand_still()\n"
    )
    server = start("--runner", "fibers", "--stuck-timeout", "1s", target="app:handle")
    address = server.address()
    with Client(address) as client:
        client.sendall(b"x")
        server.hear("CRITICAL .*stood still for")
        server.hear("stand_still")
        server.hear("ended: killed by SIG")
        server.hear("is ready after")
        assert client.is_cut()


def test_worker_is_recycled_after_its_connections_and_nobody_notices(start: Start) -> None:
    server = start("--recycle-connections", "10")
    address = server.address()
    (first,) = server.pids()
    for _ in range(30):
        with Client(address) as client:
            greeted(client)
            assert client.ask(b"x") == b"x"
    server.hear(r"is to be replaced: .*connections")
    eventually(lambda: first not in server.pids(), SOON)


# --- stopping ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", RUNNERS)
def test_term_lets_the_busy_finish_and_tells_the_quiet_and_serves_the_backlog(start: Start, runner: str) -> None:
    server = start("--workers", "2", "--runner", runner, "--drain-quiet", "500ms")
    address = server.address()
    with ExitStack() as stack:
        busy, quiet = stack.enter_context(Client(address)), stack.enter_context(Client(address))
        greeted(busy)
        greeted(quiet)
        pids = server.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        waiting = [stack.enter_context(Client(address)) for _ in range(20)]
        server.signal(signal.SIGTERM)
        server.hear("stopping")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for client in waiting:
            greeted(client)
            assert client.ask(b"late") == b"late"
        for _ in range(50):
            assert busy.ask(b"still here") == b"still here"
        assert quiet.rest() == b""
        assert busy.rest() == b""
    assert server.status() == 0
    with pytest.raises(ConnectionRefusedError):
        Client(address)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=lambda number: number.name)
def test_second_term_or_quit_ends_now(start: Start, number: signal.Signals) -> None:
    server = start("--workers", "2", "--drain-quiet", "1d", "--drain-timeout", "off")
    with Client(server.address()) as client:
        greeted(client)
        server.signal(signal.SIGTERM)
        server.hear("draining")
        server.signal(number)
        assert client.is_cut()
        assert server.status() == 0


# --- upgrade -----------------------------------------------------------------------------------------


def test_upgrade_moves_metrics_and_control_too(start: Start, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = start("--metrics", f"127.0.0.1:{port}", "--pid-file", str(pid_file))
    address = server.address()
    with Client(address) as old:
        greeted(old)
        for _ in range(2):
            server.signal(signal.SIGUSR2)
            server.follow_upgrade()
            assert server.ask("status")["pid"] == server.pid == int(pid_file.read_text())
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SOON) as answer:
                assert b"moorage_" in answer.read()
            eventually(lambda: served(address) in server.pids(), SOON)  # for a moment both accept
    server.signal(signal.SIGTERM)
    server.wait_for_silence()
    assert not pid_file.exists()
    assert not server.control.exists()


def test_program_that_still_boots_leaves_metrics_and_control_to_the_old_one(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "app.py").write_text(
        "import os\n"
        "if os.path.exists('gate'): open('gate').read()  # until somebody has opened and closed it\n"
        "def handle(conn): conn.sendall(b'here')\n"
    )
    metrics = tmp_path / "metrics"
    server = start("--metrics", f"unix:{metrics}", target="app:handle")
    server.address()
    os.mkfifo(gate)
    server.signal(signal.SIGUSR2)
    server.hear("the new program is process")
    for _ in range(50):
        assert server.ask("status")["pid"] == server.pid
        with Client(str(metrics)) as client:
            client.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
            assert client.rest().startswith(b"HTTP/1.0 200")
    gate.open("w").close()
    server.follow_upgrade()
    eventually(lambda: server.ask("status")["pid"] == server.pid, SOON)


@pytest.mark.parametrize("runner", RUNNERS)
def test_upgrade_that_drops_an_address_serves_its_backlog_and_removes_its_path(
    start: Start, tmp_path: Path, runner: str
) -> None:
    settings, one, two = tmp_path / "moorage.toml", tmp_path / "one", tmp_path / "two"
    settings.write_text(f"bind = 'unix:{one}'\nmax_connections = 1\n")
    server = Serving(f"{HANDLERS}:echo", "--runner", runner, "--control", "off", "--drain-quiet", "0", cwd=tmp_path)
    try:
        assert server.address() == str(one)
        with Client(str(one)) as inside, Client(str(one)) as waiting:
            greeted(inside)
            settings.write_text(f"bind = 'unix:{two}'\n")
            server.signal(signal.SIGUSR2)
            server.follow_upgrade()
            inside.close()
            greeted(waiting)
        with Client(str(two)) as client:
            greeted(client)
        eventually(lambda: not one.exists(), SOON)
        assert not server.said("WARNING")
        server.signal(signal.SIGTERM)
        server.wait_for_silence()
        assert not two.exists()
    finally:
        server.end()


def test_upgrade_whose_program_does_not_start_changes_nothing(start: Start, tmp_path: Path) -> None:
    settings = tmp_path / "moorage.toml"
    settings.write_text("line_limit = 1000\n")
    pid_file = tmp_path / "pid"
    server = start("--workers", "2", "--pid-file", str(pid_file))
    address = server.address()
    pids = server.pids()
    settings.write_text("line_limt = 5\n")
    server.signal(signal.SIGUSR2)
    server.hear("ERROR .*upgrade failed")
    assert server.pids() == pids
    assert int(pid_file.read_text()) == server.pid
    with Client(address) as client:
        assert greeted(client) in pids


def test_upgrade_as_pid_1_is_refused_and_a_reload_is_not(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("a process 1 of our own needs root and unshare(1)")
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        sys.executable,
        "-m",
        "moorage",
        "serve",
        "echo",
    ]
    arguments = ["--bind", f"unix:{tmp_path}/s", "--drain-quiet", "0", "--control", "off"]
    with subprocess.Popen([*command, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        try:
            next(line for line in lines if "try:" in line)
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(child), signal.SIGUSR2)
            assert re.search("ERROR .*upgrade failed.*process 1", next(line for line in lines if "upgrade" in line))
            os.kill(int(child), signal.SIGHUP)
            next(line for line in lines if "reloaded after" in line)
            with Client(f"{tmp_path}/s") as client:
                assert client.ask(b"x") == b"x"
            os.kill(int(child), signal.SIGTERM)
            assert process.wait(SOON) == 0
        finally:
            process.kill()
