"""Upgrades: a new program on the same sockets, or nothing at all."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from moorage.deadline import Deadline
from moorage.errors import InternalError
from moorage.events import Event, Events, UpgradeFailed, UpgradeFinished, UpgradeStarted
from moorage.processes import upgrade as module
from moorage.processes.system import System
from moorage.processes.upgrade import LOOK_SECONDS, READY, Start, State, Successor, Upgrade, arrange, reset_signals
from moorage.watch import Watch
from support.client import SOON
from support.fake_watch import FakeWatch
from support.sink import Sink
from support.sockets import open_fds

# A fake system: no process at all


class FakeSystem:
    """Processes that are numbers from 1001 on, and end when the test says so."""

    def __init__(self, watch: FakeWatch) -> None:
        self.now = watch.clock
        self.killed: list[tuple[int, int]] = []
        self.statuses: dict[int, int] = {}
        self.fork_error: OSError | None = None
        self.is_first = False
        #: whether a killed process is dead at once
        self.dies_at_once = True
        self._last = 1000

    def fork(self) -> int:
        if self.fork_error is not None:
            raise self.fork_error
        self._last += 1
        return self._last

    def exit(self, status: int) -> NoReturn:
        raise AssertionError("this is no child")

    def kill(self, pid: int, signum: int) -> None:
        self.killed.append((pid, signum))
        if self.dies_at_once:
            self.statuses.setdefault(pid, signum)

    def wait(self, pid: int) -> int | None:
        return self.statuses.get(pid)

    def is_init(self) -> bool:
        return self.is_first


class Fake:
    """An upgrade in memory, and the new program's end of its pipe."""

    def __init__(self) -> None:
        self.watch = FakeWatch()
        self.system = FakeSystem(self.watch)
        self.done: list[int] = []
        self.write = -1
        events = Events()
        self.sink = Sink(events)
        self.upgrade = Upgrade(
            self.watch, events, system=self.system, sockets=dict, boot_timeout=60.0, done=self.done.append
        )

    def begin(self) -> bool:
        real = os.pipe2

        def pipe2(flags: int) -> tuple[int, int]:
            read, write = real(flags)
            self.close()
            self.write = os.dup(write)
            return read, write

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pipe2", pipe2)
            return self.upgrade.begin()

    def say(self, word: bytes) -> None:
        """What the new program says; nothing is the end of its pipe."""
        if word:
            os.write(self.write, word)
        else:
            self.close()
        [call] = self.watch.listening.values()
        call()

    def close(self) -> None:
        if self.write >= 0:
            os.close(self.write)
            self.write = -1

    def last(self) -> Event:
        return self.sink.seen[-1]

    def reason(self) -> str:
        last = self.last()
        assert isinstance(last, UpgradeFailed)
        return last.reason


@pytest.fixture
def fake() -> Iterator[Fake]:
    before = open_fds()
    fake = Fake()
    yield fake
    fake.close()
    fake.upgrade.forget()
    assert open_fds() == before


def test_new_program_that_is_ready_takes_over(fake: Fake) -> None:
    assert fake.begin()
    assert fake.upgrade.is_under_way
    assert fake.last() == UpgradeStarted(1001)
    fake.watch.pass_time(2.0)
    fake.say(READY)
    assert fake.last() == UpgradeFinished(1001, 2.0)
    assert (fake.done, fake.upgrade.pid, fake.upgrade.is_under_way) == ([1001], 1001, False)
    fake.watch.pass_time(100.0)
    fake.upgrade.cancel("too late")
    assert fake.system.killed == []
    assert not fake.begin()
    assert fake.reason() == "the new program (1001) has taken over already"


def test_process_1_is_refused_with_the_reason(fake: Fake) -> None:
    fake.system.is_first = True
    assert not fake.begin()
    assert "process 1" in fake.reason()
    assert fake.sink.of(UpgradeStarted) == []


def test_second_upgrade_during_the_first_is_refused(fake: Fake) -> None:
    fake.begin()
    assert not fake.upgrade.begin()
    assert fake.reason() == "another upgrade is under way, with process 1001"
    fake.say(READY)
    assert fake.done == [1001]


def test_new_program_that_is_late_is_killed_and_the_next_may_try(fake: Fake) -> None:
    fake.begin()
    fake.watch.pass_time(60.0)
    assert fake.system.killed == [(1001, signal.SIGKILL)]
    assert fake.reason() == "it was not ready within 60 s (boot_timeout)"
    assert (fake.done, fake.upgrade.pid, fake.watch.listening) == ([], None, {})
    assert fake.begin()
    fake.say(READY)
    assert fake.done == [1002]


def test_new_program_has_all_the_time_without_a_limit(fake: Fake) -> None:
    fake.upgrade.boot_timeout = None
    fake.begin()
    fake.watch.pass_time(1e6)
    assert fake.upgrade.is_under_way


def test_killed_program_is_looked_for_until_it_is_gone(fake: Fake) -> None:
    fake.system.dies_at_once = False
    fake.begin()
    fake.upgrade.cancel("this program was asked to stop")
    fake.watch.pass_time(10 * LOOK_SECONDS)
    assert fake.upgrade.pid == 1001
    assert fake.sink.of(UpgradeFailed) == []
    assert not fake.upgrade.begin()
    fake.system.statuses[1001] = signal.SIGKILL
    fake.watch.pass_time(LOOK_SECONDS)
    assert fake.reason() == "this program was asked to stop"
    assert not fake.upgrade.is_under_way
    assert [timer for timer in fake.watch.timers if not timer.is_cancelled] == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (2 << 8, "it ended before it was ready: exit status 2"),
        (signal.SIGSEGV, "it ended before it was ready: killed by SIGSEGV"),
        (50, "it ended before it was ready: killed by signal 50"),
        (signal.SIGKILL, "it was killed by SIGKILL before it was ready"),
    ],
)
def test_new_program_that_ends_is_a_failure_that_says_how(fake: Fake, status: int, words: str) -> None:
    fake.begin()
    fake.upgrade.reap()
    assert fake.upgrade.is_under_way
    fake.system.statuses[1001] = status
    fake.upgrade.reap()
    assert fake.reason() == words
    assert fake.watch.listening == {}
    fake.upgrade.reap()


def test_new_program_whose_pipe_ends_is_dead_or_killed(fake: Fake) -> None:
    fake.begin()
    fake.system.statuses[1001] = 1 << 8
    fake.say(b"")
    assert fake.reason() == "it ended before it was ready: exit status 1"
    fake.begin()
    fake.say(b"")
    assert fake.reason() == "it left without saying that it is ready"


def test_process_that_cannot_be_forked_is_a_failure(fake: Fake) -> None:
    fake.system.fork_error = BlockingIOError(11, "Resource temporarily unavailable")
    assert not fake.begin()
    assert fake.reason() == "the new program cannot be started: Resource temporarily unavailable"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_wake_up_without_a_word_is_nothing(fake: Fake) -> None:
    fake.begin()
    [call] = fake.watch.listening.values()
    call()
    assert fake.upgrade.is_under_way


def test_move_that_is_not_in_the_table_is_a_bug(fake: Fake) -> None:
    with pytest.raises(InternalError, match="from none to done"):
        fake.upgrade._move(State.DONE)


# A real system

#: what the new program finds, for the test; then it says ready, if it is to
NEW = """
import json, os, signal, socket, sys
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))
from moorage.processes.handover import Inherited
from moorage.processes.upgrade import Successor
report = {
    "fds": fds, "cwd": os.getcwd(), "pid": os.getpid(), "environ": dict(os.environ),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "usr1": signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
}
inherited = Inherited.take(os.environ)
successor = Successor.from_environ(os.environ)
report |= {"old": successor.old_pid, "left": [name for name in os.environ if "LISTEN" in name or "UPGRADE" in name]}
for bind in ("127.0.0.1:0", "unix:/x"):
    with socket.socket(fileno=inherited.claim(bind)[0]) as listener:
        sock, _ = listener.accept()
        sock.sendall(b"welcome to " + bind.encode())
with open("report.part", "w") as file:
    json.dump(report, file)
os.rename("report.part", "report")
successor.say_ready()
"""


class Real:
    """An upgrade with real processes."""

    def __init__(self, watch: Watch, folder: Path) -> None:
        self.folder = folder
        self._watch = watch
        self._events = Events()
        self.sink = Sink(self._events)
        self.done: list[int] = []
        self.sockets: dict[str, list[int]] = {}
        self.boot_timeout = SOON
        self.environ: Mapping[str, str] = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "NOTIFY_SOCKET": "/run/notify",
            "LISTEN_PID": "1",
            "LISTEN_FDS": "9",
            "WATCHDOG_PID": str(os.getpid()),
        }

    def upgrade(self, *command: str, folder: str | None = None) -> Event:
        """How it ends."""
        start = Start(list(command), folder or str(self.folder), self.environ)
        self.running = Upgrade(
            self._watch, self._events, system=System(), sockets=lambda: self.sockets, boot_timeout=self.boot_timeout,
            done=self.done.append, start=start,
        )  # fmt: skip
        deadline = Deadline(SOON)
        self.running.begin()
        while self.running.is_under_way:
            assert not deadline.is_due(), "the upgrade does not end"
            self._watch.turn(deadline.remaining())
        if self.done:
            os.waitpid(self.done[0], 0)
        return self.sink.seen[-1]

    def reason(self, *command: str, folder: str | None = None) -> str:
        """Why it fails."""
        event = self.upgrade(*command, folder=folder)
        assert isinstance(event, UpgradeFailed)
        assert self.done == []
        return event.reason

    def report(self) -> Any:
        return json.loads((self.folder / "report").read_text())


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    watch = Watch()
    before = open_fds()
    yield Real(watch, tmp_path)
    assert open_fds() == before
    watch.close()


def listening(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen()
    return sock


def test_new_program_finds_the_sockets_and_whoever_waits_in_their_backlog(real: Real) -> None:
    tcp = listening(socket.AF_INET, ("127.0.0.1", 0))
    unix = listening(socket.AF_UNIX, f"{real.folder}/s")
    stray = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(stray, True)
    real.sockets = {"unix:/x": [unix.fileno()], "127.0.0.1:0": [tcp.fileno()]}
    with tcp, unix, socket.create_connection(tcp.getsockname(), SOON) as one, socket.socket(socket.AF_UNIX) as other:
        other.settimeout(SOON)
        other.connect(unix.getsockname())
        event = real.upgrade(sys.executable, "-c", NEW)
        assert one.recv(100) == b"welcome to 127.0.0.1:0"
        assert other.recv(100) == b"welcome to unix:/x"
    os.close(stray)
    report = real.report()
    assert isinstance(event, UpgradeFinished)
    assert real.done == [event.pid] == [report["pid"]]
    pipe = 5  # behind the sockets
    assert report["fds"] == [0, 1, 2, 3, 4, pipe]
    assert report["old"] == os.getpid()
    assert report["left"] == []
    assert report["cwd"] == os.path.realpath(real.folder)


def test_new_program_has_the_environment_of_the_old_one_s_start(real: Real) -> None:
    tcp, unix = listening(socket.AF_INET, ("127.0.0.1", 0)), listening(socket.AF_UNIX, f"{real.folder}/s")
    real.sockets = {"unix:/x": [unix.fileno()], "127.0.0.1:0": [tcp.fileno()]}
    with tcp, unix, socket.create_connection(tcp.getsockname()), socket.socket(socket.AF_UNIX) as other:
        other.connect(unix.getsockname())
        real.upgrade(sys.executable, "-c", NEW)
    environ, pid = real.report()["environ"], real.report()["pid"]
    assert environ["NOTIFY_SOCKET"] == "/run/notify"
    assert environ["LISTEN_FDNAMES"] == "unix%3A%2Fx:127.0.0.1%3A0"
    assert (environ["LISTEN_FDS"], environ["LISTEN_PID"], environ["WATCHDOG_PID"]) == ("2", str(pid), str(pid))
    assert environ["MOORAGE_UPGRADE"] == f"5,{pid},{os.getpid()}"


def test_new_program_has_no_signal_blocked_or_caught(real: Real) -> None:
    tcp, unix = listening(socket.AF_INET, ("127.0.0.1", 0)), listening(socket.AF_UNIX, f"{real.folder}/s")
    real.sockets = {"unix:/x": [unix.fileno()], "127.0.0.1:0": [tcp.fileno()]}
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    with tcp, unix, socket.create_connection(tcp.getsockname()), socket.socket(socket.AF_UNIX) as other:
        other.connect(unix.getsockname())
        real.upgrade(sys.executable, "-c", NEW)
    assert signal.signal(signal.SIGUSR1, before) is not signal.SIG_DFL
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    report = real.report()
    assert (report["blocked"], report["usr1"]) == ([], True)


def test_new_program_that_exits_at_once_changes_nothing(real: Real) -> None:
    tcp = listening(socket.AF_INET, ("127.0.0.1", 0))
    real.sockets = {"127.0.0.1:0": [tcp.fileno()]}
    with tcp, socket.create_connection(tcp.getsockname()) as client:
        assert real.reason(sys.executable, "-c", "raise SystemExit(3)") == "it ended before it was ready: exit status 3"
        sock, addr = tcp.accept()
        assert addr == client.getsockname()
        sock.close()


def test_new_program_that_never_says_ready_is_killed(real: Real) -> None:
    real.boot_timeout = 0.2
    reason = real.reason(sys.executable, "-S", "-c", "import signal; signal.pause()")
    assert reason == "it was not ready within 0.2 s (boot_timeout)"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_new_program_that_lets_go_of_its_pipe_is_killed(real: Real) -> None:
    reason = real.reason(sys.executable, "-S", "-c", "import os, signal; os.closerange(3, 99); signal.pause()")
    assert reason == "it left without saying that it is ready"


def test_command_that_cannot_be_started_is_a_failure_that_says_why(real: Real) -> None:
    reason = real.reason(str(real.folder / "absent"))
    assert reason.startswith("the new program cannot be started: [Errno 2] No such file or directory: ")
    reason = real.reason(sys.executable, folder=str(real.folder / "gone"))
    assert reason.startswith("the new program cannot be started: [Errno 2] No such file or directory: ")
    real.sockets = {"127.0.0.1:0": [9999]}
    assert real.reason(sys.executable) == "the new program cannot be started: [Errno 9] Bad file descriptor"


# How this program was started

#: a program that upgrades itself once, from elsewhere
PROGRAM = """#!{python}
import json, os, socket, sys
from moorage.events import Events
from moorage.processes.handover import Inherited
from moorage.processes.system import System
from moorage.processes.upgrade import Successor, Upgrade
from moorage.watch import Watch

report = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "value": os.environ["VALUE"]}}
os.chdir("/")
os.environ["VALUE"] = "changed"
inherited, successor = Inherited.take(os.environ), Successor.from_environ(os.environ)
if successor is None:
    watch, done = Watch(), []
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        sockets = {{"web": [listener.fileno()]}}
        upgrade = Upgrade(
            watch, Events(), system=System(), sockets=lambda: sockets, boot_timeout=20.0, done=done.append
        )
        upgrade.begin()
        while upgrade.is_under_way:
            watch.turn()
        client.settimeout(20.0)
        theirs = json.loads(client.recv(65536)) if done else None
    print(json.dumps([report, theirs]))
    if done:
        os.waitpid(done[0], 0)
    watch.close()
else:
    with socket.socket(fileno=inherited.named("web")[0]) as listener:
        with listener.accept()[0] as sock:
            sock.sendall(json.dumps(report).encode())
    successor.say_ready()
"""


@pytest.mark.parametrize("how", ["file", "module", "script", "code"])
def test_program_is_started_again_as_it_was(tmp_path: Path, how: str) -> None:
    text = PROGRAM.format(python=sys.executable)
    (tmp_path / "program.py").write_text(text)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "console").write_text(text)
    (tmp_path / "bin" / "console").chmod(0o755)
    command = {
        "file": [sys.executable, "-W", "error", "program.py"],
        "module": [sys.executable, "-m", "program"],
        "script": ["bin/console"],
        "code": [sys.executable, "-c", text],
    }[how]
    ran = subprocess.run(
        [*command, "a", "b c"], cwd=tmp_path, env={**os.environ, "VALUE": "given"}, capture_output=True, text=True,
        timeout=2 * SOON, check=False,
    )  # fmt: skip
    assert ran.stderr == ""
    old, new = json.loads(ran.stdout)
    assert old == new == {"argv": ["a", "b c"], "cwd": os.path.realpath(tmp_path), "value": "given"}


def test_start_keeps_the_links_of_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    monkeypatch.chdir(tmp_path / "current")
    for written, directory in (
        (str(tmp_path / "current"), str(tmp_path / "current")),
        (str(tmp_path), os.path.realpath(tmp_path / "release")),  # somebody's else
        ("current", os.path.realpath(tmp_path / "release")),
        ("/absent", os.path.realpath(tmp_path / "release")),
    ):
        monkeypatch.setenv("PWD", written)
        assert Start.here().directory == directory


def test_start_in_a_directory_that_is_gone_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("PWD", str(tmp_path / "gone"))
    assert Start.here().directory == str(tmp_path / "gone")


def test_start_tells_nothing_of_the_environment() -> None:
    assert "SECRET" not in repr(Start(["x"], "/", {"SECRET": "1"}))


# The child's part


def in_child(call: Callable[[], object]) -> Any:
    """What this call returns in a process of its own, told without a descriptor: `arrange` closes all."""
    answer = os.memfd_create("answer")
    pid = os.fork()
    if pid == 0:
        text = json.dumps(call())
        Path(f"/proc/{os.getppid()}/fd/{answer}").write_text(text)
        os._exit(0)
    os.waitpid(pid, 0)
    with open(answer) as file:
        return json.load(file)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 0]])
def test_descriptors_that_lie_where_others_go_are_not_overwritten(order: Sequence[int]) -> None:
    def call() -> object:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        ports = [sock.getsockname()[1] for sock in sockets]
        high = [os.dup2(sock.detach(), 100 + at) for at, sock in enumerate(sockets)]
        for at, fd in enumerate(high):  # 3, 4 and 5 are they, now
            os.dup2(fd, 3 + at)
        found = arrange([3 + at for at in order])
        inheritable = [os.get_inheritable(fd) for fd in found]
        there = [socket.socket(fileno=os.dup(fd)).getsockname()[1] for fd in found]
        fds = [fd for fd in range(3, 4096) if Path(f"/proc/self/fd/{fd}").exists()]
        return [found, inheritable, there == [ports[at] for at in order], fds]

    assert in_child(call) == [[3, 4, 5], [True] * 3, True, [3, 4, 5][: len(order)]]


def test_signals_are_as_before_the_program_and_ignored_ones_stay_so() -> None:
    def call() -> object:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _, write = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(write)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        reset_signals([signal.SIGTERM])
        return [
            signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
            signal.getsignal(signal.SIGHUP) == signal.SIG_IGN,
            signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL,
            signal.set_wakeup_fd(-1),
            sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        ]

    assert in_child(call) == [True, True, True, -1, [signal.SIGTERM]]


# The new program's part


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    before = open_fds()
    read, write = os.pipe()
    yield read, write
    os.close(read)
    assert open_fds() == before, "the successor has closed its end"


def test_successor_says_ready_once_and_knows_the_old_one(pipe: tuple[int, int]) -> None:
    environ = {module.VARIABLE: f"{pipe[1]},{os.getpid()},812", "PATH": "/bin"}
    os.set_inheritable(pipe[1], True)
    successor = Successor.from_environ(environ)
    assert successor is not None
    assert environ == {"PATH": "/bin"}
    assert successor.old_pid == 812
    assert not os.get_inheritable(pipe[1])
    successor.say_ready()
    successor.say_ready()
    assert os.read(pipe[0], 100) == READY
    assert os.read(pipe[0], 100) == b""


def test_successor_in_a_worker_is_forgotten(pipe: tuple[int, int]) -> None:
    successor = Successor(pipe[1], 812)
    successor.close()
    successor.say_ready()
    assert os.read(pipe[0], 100) == b""


def test_successor_of_a_program_that_is_gone_serves_alone() -> None:
    read, write = os.pipe()
    os.close(read)
    Successor(write, 812).say_ready()


@pytest.mark.parametrize(
    "value", ["", "x", "{fd},1,812", "{fd},{pid}", "{fd},{pid},x", "99999,{pid},1", "{file},{pid},1"]
)
def test_variable_that_is_not_meant_for_us_is_ignored_and_removed(value: str, tmp_path: Path) -> None:
    with open(tmp_path / "file", "w") as file:
        environ = {module.VARIABLE: value.format(fd=file.fileno(), pid=os.getpid(), file=file.fileno())}
        assert Successor.from_environ(environ) is None
        assert environ == {}
        os.fstat(file.fileno())
    assert Successor.from_environ({}) is None
