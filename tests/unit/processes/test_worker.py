"""Worker: real forks on real listeners; the test is their supervisor."""

import atexit
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moorage.admission import client_key
from moorage.config.resolve import combine, from_arguments
from moorage.connection import Connection
from moorage.deadline import monotonic
from moorage.errors import TargetError
from moorage.listener import open_listeners
from moorage.processes.link import Drain, End, Failed, Go, Leave, Message, Ready, Reopen, make_links
from moorage.processes.scoreboard import Scoreboard
from moorage.processes.signals import SIGNALS
from moorage.processes.stacks import StackFile
from moorage.processes.target import load
from moorage.processes.tokens import Tokens
from moorage.processes.worker import Order, work
from moorage.rates import SharedRates
from moorage.server import Server
from support.sockets import PATIENCE, receive
from support.waiting import eventually

ANY = "127.0.0.1:0"
CALM: dict[str, Any] = {"drain_quiet": PATIENCE, "drain_timeout": 2 * PATIENCE, "idle_timeout": None}  # nobody is told
SERVING_RUNNERS = ["threads", "fibers", "forks"]
EVERY_MESSAGE_TO_LEAVE: list[Message] = [End(), Drain(), Leave()]


def echo(conn: Connection) -> None:
    while data := conn.recv(8192):
        conn.sendall(data)


class Told:
    """A pipe by which the child tells the test what happened in it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __call__(self, word: str) -> None:
        os.write(self._write, word.encode() + b"\n")

    def words(self) -> list[str]:
        """What was told since the last time."""
        try:
            return os.read(self._read, 65536).decode().split("\n")[:-1]
        except BlockingIOError:
            return []

    def next(self) -> list[str]:
        """The same, but at least one."""
        return eventually(self.words)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Child:
    """A worker in a process of its own, and what its supervisor has of it."""

    def __init__(self, log: Path, handler: Any = echo, bind: Any = ANY, **settings: Any) -> None:
        self.log = log
        self.hooks: dict[str, Any] = {}
        self.load: Callable[[], Any] = lambda: handler
        self.configuration = combine([from_arguments(bind, {**CALM, **settings})])
        self.listeners = open_listeners(self.configuration.listeners)
        self.scoreboard = Scoreboard(rows=2, clients=16)
        self.row = self.scoreboard.allot()
        self.tokens = Tokens(self.configuration.server.max_connections)
        self.rates = SharedRates()
        self.link, self._theirs = make_links()
        self.stacks = StackFile()
        self.told = Told()
        self.pid = 0
        self._status: int | None = None

    def fork(self) -> "Child":
        """Be the supervisor, whose signals are blocked around the fork."""
        order = self._order()
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                logging.basicConfig(filename=self.log, level=logging.DEBUG, force=True)
                os._exit(work(order))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._theirs.close()
        return self

    def _order(self) -> Order:
        return Order(
            number=3,
            load=self.load,
            configuration=self.configuration,
            listeners=self.listeners,
            hooks=self.hooks,
            scoreboard=self.scoreboard,
            row=self.row,
            tokens=self.tokens,
            link=self._theirs,
            stacks=self.stacks.fd,
            reopen_logs=lambda: self.told("reopened"),
            close=self.link.close,
            rates=self.rates,
        )

    def boot(self) -> "Child":
        """Fork it, and wait until it is ready."""
        self.fork()
        assert self.hear() == Ready()
        return self

    def serve(self) -> "Child":
        """Boot it, and let it accept."""
        self.boot().say(Go())
        eventually(lambda: self.row.get("accepting"))
        return self

    def say(self, message: Message) -> None:
        assert self.link.send(message)

    def hear(self) -> Message | None:
        return self.link.receive_now(PATIENCE)

    def stops_accepting(self) -> None:
        eventually(lambda: not self.row.get("accepting"))

    def connect(self, listener: int = 0) -> socket.socket:
        return socket.create_connection(self.listeners[listener].address, PATIENCE)

    def backlog(self, listener: int = 0) -> int:
        return self.listeners[listener].backlog_length() or 0

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit status, negative when a signal ended it."""
        if self._status is None:
            pidfd = os.pidfd_open(self.pid)
            ended, _, _ = select.select([pidfd], [], [], PATIENCE)
            os.close(pidfd)
            assert ended, "the worker does not end"
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def close(self) -> None:
        if self.pid and self._status is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.kill(signal.SIGKILL)
            self.wait()
        for listener in self.listeners:
            listener.close()
        closes = [each.close for each in (self.link, self._theirs)]
        for close in (
            *closes,
            self.scoreboard.close,
            self.tokens.close,
            self.rates.close,
            self.stacks.close,
            self.told.close,
        ):
            close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def make(handler: Any = echo, bind: Any = ANY, **settings: Any) -> Child:
        children.append(Child(tmp_path / f"log{len(children)}", handler, bind, **settings))
        return children[-1]

    yield make
    for child in children:
        child.close()


def ask(client: socket.socket, words: bytes = b"hello") -> bytes:
    client.sendall(words)
    return receive(client, len(words))


def is_cut(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


# Booting


@pytest.mark.parametrize("runner", ["inline", *SERVING_RUNNERS])
def test_worker_accepts_nobody_before_it_is_told_to(make: Callable[..., Child], runner: str) -> None:
    child = make(runner=runner).fork()
    with child.connect() as client:
        client.sendall(b"early")
        assert child.hear() == Ready()
        before = child.row.heartbeat
        eventually(lambda: child.row.heartbeat > before)  # it lives, and waits
        assert child.backlog() == 1
        assert child.row.get("accepting") == 0
        child.say(Go())
        assert receive(client, 5) == b"early"


def test_worker_tells_who_it_is(make: Callable[..., Child]) -> None:
    child = make().boot()
    assert (child.row.get("pid"), child.row.get("number")) == (child.pid, 3)
    assert os.getpgid(child.pid) == child.pid


def test_hook_has_run_in_the_main_thread_before_the_worker_is_ready(make: Callable[..., Child]) -> None:
    child = make(runner="fibers")

    def start(server: Server) -> None:
        server.state.word = "from the hook"
        child.told(str(signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    child.hooks = {"worker_start": start, "worker_stop": lambda server: child.told(server.state.word)}
    child.boot()
    assert child.told.words() == ["set()"], "and no signal is blocked any more"
    child.say(Go())
    child.say(Drain())
    assert child.wait() == 0
    assert child.told.words() == ["from the hook"]


def test_handler_that_cannot_be_imported_is_the_operators_mistake_in_one_sentence(make: Callable[..., Child]) -> None:
    child = make()
    child.load = partial(load, "no_such_module:handle")
    child.fork()
    with pytest.raises(TargetError) as expected:
        child.load()
    assert child.hear() == Failed(str(expected.value), is_operator=True)
    assert child.hear() is None
    assert child.wait() == 1
    assert child.log.read_text() == "", "the supervisor says it"


def test_handler_that_is_none_is_the_operators_mistake(make: Callable[..., Child]) -> None:
    failed = make(handler=7).fork().hear()
    assert isinstance(failed, Failed)
    assert failed.is_operator


def test_loader_that_breaks_is_a_failure_with_its_traceback(make: Callable[..., Child]) -> None:
    child = make()

    def loader() -> Any:
        raise KeyError("handler")

    child.load = loader
    child.fork()
    assert child.hear() == Failed("KeyError: 'handler'", is_operator=False)
    assert child.wait() == 1
    assert "Traceback" in child.log.read_text()


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("of\nmine"), SystemExit("of\nmine"), TargetError("of\nmine")], ids=repr
)
def test_hook_that_raises_is_a_failure_with_its_traceback(make: Callable[..., Child], error: BaseException) -> None:
    child = make()

    def start(server: Server) -> None:
        raise error

    child.hooks = {"worker_start": start, "worker_stop": lambda server: child.told("stopped what never started")}
    child.fork()
    assert child.hear() == Failed(f"{type(error).__name__}: of mine", is_operator=False)
    assert child.wait() == 1
    assert f"in start\n    raise error\n{type(error).__module__.replace('builtins', '')}" in child.log.read_text()
    assert "worker 3 cannot start" in child.log.read_text()
    assert child.told.words() == []


@pytest.mark.parametrize("message", EVERY_MESSAGE_TO_LEAVE, ids=repr)
def test_worker_that_is_ready_leaves_when_it_is_told_to(make: Callable[..., Child], message: Message) -> None:
    child = make()
    child.hooks = {"worker_stop": lambda server: child.told("stopped")}
    child.boot()
    with child.connect():
        child.say(message)
        assert child.wait() == 0
        assert child.backlog() == 1
    assert child.told.words() == ["stopped"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_worker_that_is_ready_leaves_at_a_signal(make: Callable[..., Child], number: int) -> None:
    child = make().boot()
    child.kill(number)
    assert child.wait() == 0


def test_worker_that_is_told_to_stop_while_it_boots_is_never_ready(make: Callable[..., Child]) -> None:
    child = make()
    child.hooks = {"worker_start": lambda server: os.kill(os.getpid(), signal.SIGTERM)}
    child.fork()
    assert child.hear() is None
    assert child.wait() == 0


def test_worker_that_is_ready_and_loses_its_supervisor_leaves(make: Callable[..., Child]) -> None:
    child = make().boot()
    child.link.close()
    assert child.wait() == 0


# Leaving


@pytest.mark.parametrize("runner", SERVING_RUNNERS)
@pytest.mark.parametrize("message", [Leave(), Drain(), None], ids=["leave", "drain", "supervisor gone"])
def test_worker_that_drains_serves_who_is_there_to_the_end(
    make: Callable[..., Child], runner: str, message: Message | None
) -> None:
    child = make(runner=runner).serve()
    with child.connect() as client:
        assert ask(client) == b"hello"
        if message is None:
            child.link.close()
        else:
            child.say(message)
        child.stops_accepting()
        for _ in range(10):
            assert ask(client) == b"hello"
        with child.connect():
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
            assert child.wait() == 0
            assert child.backlog() == 1, "who came later is another's to serve"


def test_quiet_client_is_told_end_of_stream_when_the_worker_drains(make: Callable[..., Child]) -> None:
    child = make(drain_quiet=0.05).serve()
    with child.connect() as client:
        ask(client)
        child.say(Drain())
        assert client.recv(1) == b""
        assert child.wait() == 0


@pytest.mark.parametrize(
    ("message", "served"),
    [(Leave(), []), (Leave((1,)), [1]), (Leave((0, 1)), [0, 1]), (Drain(), [0, 1])],
    ids=["leave", "leave one", "leave all", "drain"],
)
def test_backlog_is_finished_only_where_nobody_else_accepts(
    make: Callable[..., Child], message: Message, served: list[int]
) -> None:
    child = make(bind=[ANY, ANY], max_connections=1).serve()
    with child.connect() as first, child.connect(0) as one, child.connect(1) as other:
        ask(first)
        for waiting in (one, other):
            waiting.sendall(b"waiting")
        child.say(message)
        child.stops_accepting()
        first.close()
        for index, waiting in enumerate((one, other)):
            if index in served:
                assert receive(waiting, 7) == b"waiting"
                waiting.close()
        assert child.wait() == 0
        assert [child.backlog(index) for index in (0, 1)] == [int(index not in served) for index in (0, 1)]


@pytest.mark.parametrize("runner", SERVING_RUNNERS)
def test_end_cuts_whoever_is_there(make: Callable[..., Child], runner: str) -> None:
    child = make(runner=runner).serve()
    with child.connect() as client:
        ask(client)
        child.say(End())
        assert is_cut(client)
    assert child.wait() == 0


def test_end_during_a_drain_ends_it(make: Callable[..., Child]) -> None:
    child = make().serve()
    with child.connect() as client:
        ask(client)
        child.say(Leave())
        child.stops_accepting()
        child.say(End())
        assert is_cut(client)
    assert child.wait() == 0


def test_listener_that_fails_ends_the_worker_with_a_line_and_status_one(make: Callable[..., Child]) -> None:
    child = make().serve()
    child.listeners[0].socket.shutdown(socket.SHUT_RD)  # of the one socket that all of them share
    assert child.wait() == 1
    assert "worker 3 failed" in child.log.read_text()
    assert child.hear() is None, "it was ready: this is no failed boot"


def test_message_that_is_none_of_ours_ends_the_worker_with_a_line(make: Callable[..., Child]) -> None:
    child = make().serve()
    os.write(child.link.fileno(), b"bogus")
    assert child.wait() == 1
    assert "bogus" in child.log.read_text()


# Signals


@pytest.mark.parametrize("runner", SERVING_RUNNERS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_stop_that_is_sent_by_hand_drains(make: Callable[..., Child], runner: str, number: int) -> None:
    child = make(runner=runner).serve()
    with child.connect() as client:
        ask(client)
        child.kill(number)
        child.stops_accepting()
        assert ask(client) == b"hello"
    assert child.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_second_signal_to_stop_ends_now(make: Callable[..., Child], number: int) -> None:
    child = make().serve()
    with child.connect() as client:
        ask(client)
        child.kill(signal.SIGTERM)
        child.stops_accepting()
        child.kill(number)
        assert is_cut(client)
    assert child.wait() == 0


def test_quit_ends_now(make: Callable[..., Child]) -> None:
    child = make().serve()
    with child.connect() as client:
        ask(client)
        child.kill(signal.SIGQUIT)
        assert is_cut(client)
    assert child.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU])
def test_signal_for_the_supervisor_means_nothing_to_a_worker(make: Callable[..., Child], number: int) -> None:
    child = make().boot()
    child.kill(number)
    child.say(Go())
    with child.connect() as client:
        assert ask(client) == b"hello"
        child.kill(number)
        assert ask(client) == b"hello"
    assert child.row.get("accepting") == 1


@pytest.mark.parametrize("is_serving", [False, True], ids=["waits", "serves"])
def test_logs_are_opened_anew_by_signal_and_by_message(make: Callable[..., Child], is_serving: bool) -> None:
    child = make()
    child.serve() if is_serving else child.boot()
    child.kill(signal.SIGUSR1)
    assert child.told.next() == ["reopened"]
    child.say(Reopen())
    assert child.told.next() == ["reopened"]


def test_abort_leaves_the_stacks(make: Callable[..., Child]) -> None:
    child = make().serve()
    child.kill(signal.SIGABRT)
    assert child.wait() == -signal.SIGABRT
    assert "worker.py" in child.stacks.read()


def test_wake_up_descriptor_of_the_parent_hears_nothing_of_a_worker(make: Callable[..., Child]) -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    before = signal.set_wakeup_fd(write)
    try:
        child = make().serve()
    finally:
        signal.set_wakeup_fd(before)
    child.kill(signal.SIGTERM)
    assert child.wait() == 0
    with pytest.raises(BlockingIOError):
        os.read(read, 100)
    os.close(read)
    os.close(write)


# Its row


@pytest.mark.parametrize("runner", ["threads", "fibers"])
def test_heartbeat_advances_while_the_worker_serves(make: Callable[..., Child], runner: str) -> None:
    child = make(runner=runner).serve()
    first = child.row.heartbeat
    assert first > 0
    assert eventually(lambda: child.row.heartbeat > first and child.row.heartbeat) - first < 5


def test_connections_are_counted_in_the_row(make: Callable[..., Child]) -> None:
    child = make().serve()
    with child.connect() as client:
        ask(client)
        assert [child.row.get(name) for name in ("accepted", "open", "held")] == [1, 1, 1]
        assert child.tokens.free() == child.tokens.limit - 1
    # The place is given back first, the rest is counted after it.
    eventually(lambda: not child.row.get("held"))
    eventually(lambda: child.row.get("open") == 0)
    eventually(lambda: child.row.get("ended:peer_closed") == 1)
    assert child.row.get("bytes_received") == child.row.get("bytes_sent") == 5


@pytest.mark.parametrize("runner", SERVING_RUNNERS)
def test_total_is_that_of_the_tokens(make: Callable[..., Child], runner: str) -> None:
    child = make(runner=runner, max_connections=2).serve()
    with child.connect() as first, child.connect() as second, child.connect() as third:
        ask(first), ask(second)
        third.sendall(b"hello")
        assert child.tokens.free() == 0
        assert child.backlog() == 1
        first.close()
        assert receive(third, 5) == b"hello"


def test_limit_of_each_client_counts_in_the_row(make: Callable[..., Child]) -> None:
    child = make(max_per_client=1).serve()
    with child.connect() as first:
        ask(first)
        with child.connect() as second:
            assert is_cut(second)
        assert child.row.get("refused:refused_client") == 1
        assert ask(first) == b"hello"


def test_rates_are_those_that_were_made_before_the_fork(make: Callable[..., Child]) -> None:
    """What a worker takes is taken from all."""
    child = make(client_rate=0.001, client_burst=2, accept_rate=0.001, accept_burst=1000).serve()
    key = client_key(("127.0.0.1", 1))
    assert key is not None
    assert child.rates.client_rates(0.001, 2).take(key, monotonic()) == 0.0
    with child.connect() as first, child.connect() as second:
        assert ask(first) == b"hello"
        assert is_cut(second)
    assert child.row.get("refused:refused_rate") == 1
    left = child.rates.rate(0.001, 1000)
    assert sum(left.take(monotonic()) == 0.0 for _ in range(1000)) == 999, "who was refused has left his turn"


def test_expiry_of_the_first_certificate_is_in_the_row(make: Callable[..., Child]) -> None:
    child = make(bind=[ANY, "127.0.0.2:0", "127.0.0.3:0"])
    for listener, expires in zip(child.listeners, (2000000000.5, 1900000000.5, None), strict=True):
        listener.certificates = None if expires is None else SimpleNamespace(expires=expires)  # type: ignore[assignment]  # all that is asked
    child.serve()
    eventually(lambda: child.row.get("certificate_expiry") == 1900000000)


# What the parent left, and what the child leaves


def test_parents_exit_handlers_are_not_run_and_those_of_the_worker_are(make: Callable[..., Child]) -> None:
    child = make()

    def loader() -> Any:
        atexit.register(child.told, "the worker's")
        return echo

    def parents() -> None:
        child.told("the parent's")

    child.load = loader
    atexit.register(parents)
    try:
        child.serve()
    finally:
        atexit.unregister(parents)
    child.say(Drain())
    assert child.wait() == 0
    assert child.told.words() == ["the worker's"]


def test_what_the_program_printed_is_flushed(make: Callable[..., Child], tmp_path: Path) -> None:
    child = make()

    def loader() -> Any:
        sys.stdout = open(tmp_path / "out", "w")  # noqa: SIM115  # the worker's end is its end
        print("a word", end="")
        return echo

    child.load = loader
    child.boot().say(End())
    assert child.wait() == 0
    assert (tmp_path / "out").read_text() == "a word"


def test_start_and_stop_of_a_worker_are_logged_only_at_debug(make: Callable[..., Child]) -> None:
    child = make().serve()
    child.say(Drain())
    assert child.wait() == 0
    lines = [line for line in child.log.read_text().splitlines() if not line.startswith("DEBUG")]
    assert [line for line in lines if "listening on" in line or "stopped" in line] == []
    assert "DEBUG:moorage:listening on" in child.log.read_text()
    assert "DEBUG:moorage:stopped" in child.log.read_text()


def test_process_is_named_where_setproctitle_is_installed(
    make: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = make(name="harbour")
    monkeypatch.setitem(sys.modules, "setproctitle", SimpleNamespace(setproctitle=child.told))
    child.boot()
    assert child.told.words() == ["moorage: worker 3 of harbour"]


def test_process_goes_without_a_name_where_setproctitle_is_not_installed(
    make: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "setproctitle", None)
    make().boot()


def test_fork_of_a_connection_keeps_no_descriptor_of_its_worker(make: Callable[..., Child]) -> None:
    """Else the supervisor would not see the end of a worker, nor a new client the end of a listener."""
    child = make(links_of_this_process, runner="forks").serve()
    with child.connect() as client:
        inodes = client.makefile().readline().split()
    assert inode_of(child.listeners[0].fileno()) not in inodes
    assert len([inode for inode in inodes if inode.startswith("socket:")]) == 2, "its client, and the way to its parent"


def links_of_this_process(conn: Connection) -> None:
    names = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    conn.sendall(" ".join(names).encode() + b"\n")


def inode_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")
