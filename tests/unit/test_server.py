"""Server: its verbs, whenever and from wherever they are called, and that nothing is left open."""

import gc
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorage.admission import Gate, LocalCounts
from moorage.config import resolve
from moorage.connection import Connection
from moorage.errors import BindError, ConnectionEnded, MoorageError, SettingError, TargetError
from moorage.events import (
    AcceptFailed,
    Cause,
    ConnectionClosed,
    ConnectionRefused,
    DrainFinished,
    DrainStarted,
    HandlersCut,
    ServerResumed,
    ServerStarted,
    ServerStopped,
    ServerSuspended,
)
from moorage.listener import open_listeners
from moorage.server import Server
from moorage.sharing import Shared
from support.certificates import HOSTS, issue, write
from support.house import is_ours
from support.sink import Sink
from support.sockets import PATIENCE, open_fds, read_all, receive
from support.waiting import Running, eventually, in_thread

ANY = "127.0.0.1:0"
QUICK: dict[str, Any] = {"drain_quiet": 0.05, "drain_timeout": PATIENCE}
VERBS = ["drain", "leave", "shutdown", "close"]


def echo(conn: Connection) -> None:
    while data := conn.recv(8192):
        conn.sendall(data)


@pytest.fixture
def make() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(handler: Any = echo, bind: Any = ANY, **settings: Any) -> Server:
        servers.append(Server(handler, bind, **{**QUICK, **settings}))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """The test leaves no descriptor and no thread."""
    gc.collect()
    fds = open_fds()
    yield
    gc.collect()
    eventually(lambda: not [one for one in threading.enumerate() if is_ours(one.name)])
    assert open_fds() == fds


def connect(server: Server) -> socket.socket:
    return socket.create_connection(server.address, PATIENCE)


def ask(client: socket.socket, words: bytes = b"hello") -> bytes:
    client.sendall(words)
    return client.recv(100)


def is_refused(address: Any) -> bool:
    try:
        socket.create_connection(address, PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


# Starting


def test_context_manager_serves_and_leaves_nothing(no_leaks: None) -> None:
    with Server(echo, ANY, **QUICK) as server:
        assert server.address[1] > 0
        with connect(server) as client:
            assert ask(client) == b"hello"
        address = server.address
    assert is_refused(address)
    assert server.fileno() == -1


def test_server_looks_to_handlers_like_that_of_the_standard_library(make: Callable[..., Server]) -> None:
    server = make()
    server.start()
    assert server.server_address == server.address == server.socket.getsockname()
    assert server.fileno() == server.socket.fileno()
    assert server.RequestHandlerClass is echo
    server.state.pool = "the application's own"


def test_address_is_not_known_before_it_is_bound(make: Callable[..., Server]) -> None:
    server = make()
    for look in (lambda: server.address, lambda: server.addresses, lambda: server.socket):
        with pytest.raises(MoorageError, match="no address yet"):
            look()
    assert server.fileno() == -1


def test_bound_server_lets_clients_wait(make: Callable[..., Server]) -> None:
    server = make()
    server.bind()
    server.bind()
    with connect(server) as client:
        client.sendall(b"early")
        server.start()
        assert client.recv(100) == b"early"


def test_several_addresses_are_served(make: Callable[..., Server], tmp_path: Path) -> None:
    server = make(bind=[ANY, f"unix:{tmp_path}/s"]).start()
    assert len(server.addresses) == 2
    with connect(server) as client, socket.socket(socket.AF_UNIX) as other:
        other.connect(server.addresses[1])
        assert ask(client) == ask(other) == b"hello"


def test_start_again_while_it_serves_changes_nothing(make: Callable[..., Server]) -> None:
    server = make().start()
    thread = server._thread
    assert server.start() is server
    assert server._thread is thread


def test_closed_server_is_not_started_again(make: Callable[..., Server]) -> None:
    served, never = make().start(), make()
    for server in (served, never):
        server.close()
        with pytest.raises(MoorageError, match="make a new one"):
            server.start()
        with pytest.raises(MoorageError, match="make a new one"), server:
            pass


def test_serve_forever_returns_at_once_when_it_was_stopped_before(make: Callable[..., Server]) -> None:
    server = make()
    server.shutdown()
    server.serve_forever()
    assert server.fileno() == -1


def test_serve_forever_of_a_started_server_waits_for_its_end(make: Callable[..., Server]) -> None:
    server = make().start()
    with in_thread(server.serve_forever) as serving:
        serving.wait_asleep()
        server.shutdown()
        serving.result()


def test_serve_forever_takes_the_poll_interval_of_the_standard_library(make: Callable[..., Server]) -> None:
    server = make()
    server.bind()
    with in_thread(lambda: server.serve_forever(poll_interval=0.1)):
        with connect(server) as client:
            assert ask(client) == b"hello"
        server.shutdown()


@pytest.mark.parametrize(
    ("arguments", "settings", "error"),
    [
        ((42, ANY), {}, TargetError),
        ((echo, ANY), {"max_connection": 5}, SettingError),
        ((echo, ANY), {"max_connections": 0}, SettingError),
        ((echo, "nonsense"), {}, SettingError),
        ((("127.0.0.1", 0), echo), {}, SettingError),
    ],
)
def test_mistake_is_said_at_once_and_leaves_nothing_open(
    no_leaks: None, arguments: Any, settings: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Server(*arguments, **settings)


@pytest.mark.parametrize("begin", ["bind", "start", "serve_forever"])
def test_address_in_use_is_said_and_leaves_nothing_open(no_leaks: None, begin: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        before = open_fds()
        server = Server(echo, [ANY, other.getsockname()])
        with pytest.raises(BindError):
            getattr(server, begin)()
        assert open_fds() == before
        with pytest.raises(BindError):  # not as if it had served
            server.serve_forever()
        server.close()


# Hooks


def test_hooks_run_in_the_serving_thread_around_all_connections(make: Callable[..., Server]) -> None:
    steps: list[tuple[str, threading.Thread]] = []

    def handle(conn: Connection) -> None:
        steps.append(("handle", threading.current_thread()))

    server = make(
        handle,
        worker_start=lambda server: steps.append(("start", threading.current_thread())),
        worker_stop=lambda server: steps.append(("stop", threading.current_thread())),
    )
    with in_thread(server.serve_forever) as serving:
        eventually(lambda: server._listeners)
        with connect(server) as client:
            client.recv(1)
        server.drain()
    assert [name for name, _ in steps] == ["start", "handle", "stop"]
    assert steps[0][1] is steps[2][1] is serving.thread


@pytest.mark.parametrize("begin", ["start", "serve_forever"])
@pytest.mark.parametrize("runner", ["inline", "threads"])
def test_failing_worker_start_is_raised_and_leaves_nothing(no_leaks: None, begin: str, runner: str) -> None:
    stopped: list[int] = []

    def fail(_: Server) -> None:
        raise ZeroDivisionError("no database")

    server = Server(echo, ANY, runner=runner, worker_start=fail, worker_stop=lambda _: stopped.append(1))
    server.bind()
    address = server.address
    with pytest.raises(ZeroDivisionError, match="no database"):
        getattr(server, begin)()
    assert is_refused(address)
    assert stopped == []
    server.close()
    server.drain()


def test_failing_worker_stop_holds_nobody_up(no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    monkeypatch.setattr("threading.excepthook", lambda args: reported.append(args.exc_type))

    def fail(_: Server) -> None:
        raise ZeroDivisionError

    server = Server(echo, ANY, worker_stop=fail, **QUICK).start()
    with in_thread(server.drain) as draining:
        assert draining.result() is True
    server._thread.join(PATIENCE)  # type: ignore[union-attr]
    assert reported == [ZeroDivisionError]
    with pytest.raises(ZeroDivisionError):
        Server(echo, ANY, worker_stop=fail, worker_start=lambda server: server.shutdown(), **QUICK).serve_forever()


def test_worker_start_may_stop_the_server(make: Callable[..., Server]) -> None:
    server = make(worker_start=lambda server: server.shutdown())
    server.serve_forever()
    assert server.fileno() == -1


# Stopping


@pytest.mark.parametrize("verb", VERBS)
def test_verb_before_serving_closes_and_may_be_repeated(no_leaks: None, verb: str) -> None:
    server = Server(echo, ANY, **QUICK)
    server.bind()
    for _ in range(3):
        getattr(server, verb)()
    assert server.fileno() == -1


@pytest.mark.parametrize("verb", VERBS)
def test_verb_of_a_server_that_was_never_bound_does_no_harm(no_leaks: None, verb: str) -> None:
    server = Server(echo, ANY, **QUICK)
    for _ in range(2):
        getattr(server, verb)()


@pytest.mark.parametrize("second", VERBS)
@pytest.mark.parametrize("first", VERBS)
def test_verb_during_serving_and_another_after(no_leaks: None, first: str, second: str) -> None:
    server = Server(echo, ANY, **QUICK).start()
    getattr(server, first)()
    assert server.fileno() == -1
    getattr(server, second)()


@pytest.mark.parametrize("verb", VERBS)
def test_verb_from_many_threads_at_once_returns_in_each(no_leaks: None, verb: str) -> None:
    server = Server(echo, ANY, **QUICK).start()
    with connect(server) as client:
        assert ask(client) == b"hello"
        calls = [Running(getattr(server, verb)) for _ in range(4)]
        for call in calls:
            call.result()


@pytest.mark.parametrize("runner", ["inline", "threads"])
@pytest.mark.parametrize("verb", VERBS)
def test_verb_from_a_handler_does_not_wait_for_itself(make: Callable[..., Server], verb: str, runner: str) -> None:
    returned = threading.Event()

    def handle(conn: Connection) -> None:
        conn.recv(10)
        getattr(servers[0], verb)()
        returned.set()

    servers = [make(handle, runner=runner)]
    servers[0].start()
    with connect(servers[0]) as client:
        client.send(b"stop")
        assert returned.wait(PATIENCE)
        servers[0].serve_forever()
    assert servers[0].fileno() == -1


@pytest.mark.parametrize("runner", ["inline", "threads"])
@pytest.mark.parametrize("verb", VERBS)
def test_verb_from_a_signal_handler_in_the_serving_thread(make: Callable[..., Server], verb: str, runner: str) -> None:
    server = make(runner=runner)
    before = signal.signal(signal.SIGALRM, lambda *_: getattr(server, verb)())
    signal.setitimer(signal.ITIMER_REAL, 0.03, 0.01)  # it interrupts whatever goes on, and again
    try:
        server.serve_forever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert server.fileno() == -1


def test_ctrl_c_in_serve_forever_closes_everything_and_is_raised() -> None:
    program = f"""
import os, signal, sys, threading
sys.path.insert(0, {str(Path(__file__).parents[2] / "src")!r})
from moorage.server import Server
from moorage.events import HandlersCut, ServerStopped
import socket
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
begun = threading.Event()
def say(*words):  # in one piece, from whatever thread
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def handle(conn):
    begun.set()
    conn.recv(10)
server = Server(handle, "127.0.0.1:0", worker_start=lambda server: threading.Thread(target=client).start())
def client():
    with socket.create_connection(server.address, 20) as sock:
        begun.wait(20)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        say("end:", sock.recv(10))
server.events.subscribe(lambda event: say(type(event).__name__), HandlersCut, ServerStopped)
try:
    server.serve_forever()
except KeyboardInterrupt:
    say("interrupted", [one.name for one in threading.enumerate() if one.name.startswith("moorage")], server.fileno())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert sorted(done.stdout.splitlines()) == ["ServerStopped", "end: b''", "interrupted [] -1"], done.stderr
    assert done.stderr == ""


def test_drain_serves_who_is_in_the_backlog(make: Callable[..., Server]) -> None:
    server = make()
    server.bind()
    with connect(server) as client:
        client.send(b"early")
        started = server.start()
        with in_thread(started.drain) as draining:
            assert client.recv(100) == b"early"
            client.shutdown(socket.SHUT_WR)
            assert draining.result() is True


def test_drain_says_whether_somebody_was_cut(make: Callable[..., Server]) -> None:
    def handle(conn: Connection) -> None:
        while not conn.is_over:  # busy: it is never told
            pause.wait(0.001)

    pause = threading.Event()
    server = make(handle)
    sink = Sink(server.events)
    server.start()
    with connect(server) as client:
        eventually(lambda: server.connections)
        with in_thread(lambda: read_all(client)):
            assert server.drain(0.05) is False
    assert sink.wait_for(DrainFinished).cut == 1
    assert sink.wait_for(ConnectionClosed).cause is Cause.DRAIN_DEADLINE


def test_drain_that_cuts_nobody_is_true_although_replies_linger(make: Callable[..., Server]) -> None:
    """Who has left the handler is not cut, however long its peer takes to close."""

    def handle(conn: Connection) -> None:
        conn.sendall(b"reply")

    server = make(handle)
    server.start()
    with connect(server) as client:
        assert client.recv(10) == b"reply"
        assert client.recv(10) == b""
        assert server.drain(0.05) is True


def test_close_cuts_at_once_with_its_cause(make: Callable[..., Server]) -> None:
    server = make()
    sink = Sink(server.events)
    server.start()
    with connect(server) as client:
        assert ask(client) == b"hello"
        server.close()
        assert client.recv(10) == b""
    assert sink.wait_for(ConnectionClosed).cause is Cause.CLOSED_BY_OPERATOR


def test_handler_that_will_not_leave_is_reported_with_its_stack(make: Callable[..., Server]) -> None:
    has_begun, may_leave = threading.Event(), threading.Event()

    def stubborn(conn: Connection) -> None:
        has_begun.set()
        may_leave.wait(PATIENCE)

    server = make(stubborn)
    sink = Sink(server.events)
    server.start()
    with connect(server):
        assert has_begun.wait(PATIENCE)
        server.close()
        assert "in stubborn" in sink.wait_for(HandlersCut).stacks[0]
        may_leave.set()
    assert server.wait_for_connections(0, PATIENCE)


def test_exception_in_the_with_block_closes_without_a_drain(make: Callable[..., Server]) -> None:
    server = make(drain_quiet=100.0, drain_timeout=1000.0)

    def fail() -> None:
        with server, connect(server) as client:
            assert ask(client) == b"hello"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert server.fileno() == -1


def test_events_tell_the_life_of_a_server(make: Callable[..., Server]) -> None:
    server = make()
    sink = Sink(server.events)
    server.start()
    server.suspend()
    server.resume()
    sink.wait_for(ServerResumed)
    server.drain(5)
    kinds = [type(event) for event in sink.seen]
    assert kinds == [ServerStarted, ServerSuspended, ServerResumed, DrainStarted, DrainFinished, ServerStopped]
    assert sink.of(ServerStarted) == [ServerStarted((server.addresses), "threads")]


def test_accept_that_fails_for_good_ends_the_server_with_its_error(make: Callable[..., Server]) -> None:
    server = make()
    sink = Sink(server.events)
    with in_thread(server.serve_forever) as serving:
        eventually(server._started.is_set)
        server.socket.shutdown(socket.SHUT_RDWR)
        error = serving.error()
    assert isinstance(error, OSError)
    assert sink.of(AcceptFailed)[0].error is error


# Suspend, resume, wait


def test_suspended_server_leaves_clients_in_the_backlog(make: Callable[..., Server]) -> None:
    server = make()
    sink = Sink(server.events)
    server.start()
    with connect(server) as here:
        assert ask(here) == b"hello"
        server.suspend()
        server.suspend()
        sink.wait_for(ServerSuspended, count=2)
        with connect(server) as waiting:
            waiting.send(b"later")
            assert ask(here) == b"hello"
            assert len(server.connections) == 1
            server.resume()
            assert waiting.recv(100) == b"later"


def test_suspended_server_can_be_drained(make: Callable[..., Server]) -> None:
    server = make().start()
    server.suspend()
    assert server.drain() is True


def test_suspend_before_start_and_after_the_end_does_no_harm(make: Callable[..., Server]) -> None:
    server = make()
    server.resume()
    server.suspend()
    server.start()
    with connect(server) as client:
        client.send(b"x")
        assert server.connections == ()
        server.resume()
        assert client.recv(10) == b"x"
    server.close()
    server.suspend()
    server.resume()


def test_wait_for_connections_counts_until_the_socket_is_closed(make: Callable[..., Server]) -> None:
    server = make().start()
    assert server.wait_for_connections(0, 0)
    with connect(server) as one, connect(server) as other:
        assert ask(one) == ask(other) == b"hello"
        assert not server.wait_for_connections(timeout=0.001)
        assert server.wait_for_connections(2, 0)
        one.close()
        assert server.wait_for_connections(at_most=1, timeout=PATIENCE)
    assert server.wait_for_connections()


def test_limit_of_connections_is_kept_and_a_freed_place_is_used(make: Callable[..., Server]) -> None:
    server = make(max_connections=1).start()
    with connect(server) as one, connect(server) as other:
        assert ask(one) == b"hello"
        other.send(b"me")
        assert len(server.connections) == 1
        one.close()
        assert other.recv(10) == b"me"


# Waiting for data


def test_mute_client_has_no_thread_until_its_first_byte(make: Callable[..., Server]) -> None:
    server = make(wait_for_data=True, threads=1).start()
    with connect(server), connect(server), connect(server) as speaking:
        eventually(lambda: len(server.connections) == 3)
        assert server._runner._pool.threads == ()  # type: ignore[attr-defined]
        assert ask(speaking) == b"hello"


def test_mute_client_is_ended_after_its_time(make: Callable[..., Server]) -> None:
    server = make(wait_for_data=True, first_data_timeout=0.05)
    sink = Sink(server.events)
    server.start()
    with connect(server) as client:
        assert client.recv(10) == b""
    assert sink.wait_for(ConnectionClosed).cause is Cause.FIRST_DATA


def test_parked_clients_are_told_by_a_drain(make: Callable[..., Server]) -> None:
    server = make(wait_for_data=True)
    sink = Sink(server.events)
    server.start()
    with connect(server) as client:
        eventually(lambda: server.connections)
        with in_thread(server.drain) as draining:
            assert client.recv(10) == b""
            client.close()
            assert draining.result() is True
    assert sink.wait_for(ConnectionClosed).cause is Cause.DRAINED


# With others that serve on


@pytest.fixture
def shared() -> Iterator[Shared]:
    """Two listeners that the test keeps a copy of, and one place for all clients."""
    listeners = open_listeners(resolve([ANY, ANY], {})[1])
    copies = [listener.socket.dup() for listener in listeners]
    yield Shared(listeners, make_gate=lambda watch: Gate(1))
    for close in [each.close for each in copies] + [each.close for each in listeners]:
        close()


@pytest.mark.parametrize("served", [[], [1], [0, 1]], ids=repr)
def test_server_that_leaves_finishes_only_the_backlog_that_nobody_else_will(shared: Shared, served: list[int]) -> None:
    listeners = shared.listeners
    server = Server(echo, shared=shared, **{**QUICK, "drain_quiet": PATIENCE}).start()
    with connect(server) as first, ExitStack() as clients:
        ask(first)
        waiting = [clients.enter_context(socket.create_connection(each.address, PATIENCE)) for each in listeners]
        for client in waiting:
            client.sendall(b"waiting")
        with in_thread(lambda: server.leave([listeners[index] for index in served])) as leaving:
            eventually(lambda: server.draining)
            assert ask(first) == b"hello"
            first.close()
            for index in served:
                assert receive(waiting[index], 7) == b"waiting"
                waiting[index].close()
            leaving.result()
        assert [each.fileno() for each in listeners] == [-1, -1]
        for index in {0, 1} - set(served):
            assert not select.select([waiting[index]], [], [], 0)[0], "it waits for the others"


def test_server_that_leaves_cuts_the_rest_at_its_deadline(make: Callable[..., Server]) -> None:
    server = make(drain_timeout=0.1, drain_quiet=PATIENCE)
    sink = Sink(server.events)
    server.start()
    with connect(server) as client:
        ask(client)
        server.leave()
    assert sink.wait_for(DrainFinished).seconds < PATIENCE


def test_server_that_shares_opens_nothing_and_closes_its_copies(shared: Shared) -> None:
    server = Server(echo, bind="192.0.2.1:1", shared=shared, **QUICK)
    with server:
        assert server.addresses == tuple(listener.address for listener in shared.listeners)
    assert [listener.fileno() for listener in shared.listeners] == [-1, -1]


def test_server_that_shares_takes_tickets_and_counts_of_the_others(shared: Shared) -> None:
    counts, gate = LocalCounts(), Gate(5)
    asked: list[int | None] = []

    def share(waiting: int | None) -> int:
        asked.append(waiting)
        return 1

    common = replace(shared, make_gate=lambda watch: gate, share=share, counts=counts)
    with Server(echo, shared=common, max_per_client=1, **QUICK) as server, connect(server) as client:
        ask(client)
        assert (gate.taken, counts.distinct, bool(asked)) == (1, 1, True)
        with connect(server) as second:
            assert is_refused_after_accept(second)
    assert gate.taken == 0


def test_forked_child_is_to_close_what_is_shared_too(shared: Shared, make: Callable[..., Server]) -> None:
    server = make(shared=replace(shared, fds=[12345]))
    server.bind()
    assert {12345, *(listener.fileno() for listener in shared.listeners)} <= set(server._own_fds())


def test_start_and_stop_of_a_server_that_shares_are_logged_at_debug(
    shared: Shared, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"), Server(echo, shared=shared, **QUICK):
        pass
    said = {record.getMessage().split()[0]: record.levelname for record in caplog.records}
    assert (said["listening"], said["stopped"], said["draining"]) == ("DEBUG", "DEBUG", "INFO")


def test_server_of_its_own_warns_of_its_certificates_and_one_that_shares_does_not(
    tmp_path: Path, make: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    files = write(issue(*HOSTS), tmp_path)
    Path(files.key).chmod(0o644)
    with make(tls_cert=files.cert, tls_key=files.key):
        assert caplog.text.count(f"chmod 600 {files.key}") == 1
    settings = replace(resolve(ANY, {})[1][0], tls_cert=(files.cert,), tls_key=(files.key,))
    caplog.clear()
    with make(shared=Shared(open_listeners([settings]), lambda watch: Gate(1))):
        assert "chmod" not in caplog.text


def test_client_above_its_limit_is_refused_by_a_server_alone(make: Callable[..., Server]) -> None:
    server = make(max_per_client=1)
    sink = Sink(server.events)
    server.start()
    with connect(server) as first:
        ask(first)
        with connect(server) as second:
            assert is_refused_after_accept(second)
        assert sink.wait_for(ConnectionRefused).cause is Cause.REFUSED_CLIENT
        assert ask(first) == b"hello"
    eventually(lambda: not server.connections)
    with connect(server) as third:
        assert ask(third) == b"hello"


def is_refused_after_accept(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


# Deadlines through a real Watch


@pytest.mark.parametrize("timeout", [None, 0.01])
@pytest.mark.parametrize("runner", ["inline", "threads"])
def test_idle_client_is_ended_whatever_the_handler_swallows(
    make: Callable[..., Server], runner: str, timeout: float | None
) -> None:
    def handle(conn: Connection) -> None:
        conn.settimeout(timeout)
        while True:
            try:
                conn.recv(10)
            except ConnectionEnded:
                conn.sendall(b"farewell")
                raise
            except TimeoutError:
                continue

    server = make(handle, runner=runner, idle_timeout=0.1)
    sink = Sink(server.events)
    server.start()
    with connect(server) as client:
        assert client.recv(10) == b"farewell"
        assert client.recv(10) == b""
    assert sink.wait_for(ConnectionClosed).cause is Cause.IDLE


def test_lifetime_ends_a_busy_client(make: Callable[..., Server]) -> None:
    server = make(lifetime=0.1)
    sink = Sink(server.events)
    server.start()
    with connect(server) as client:
        try:
            while ask(client):
                pass
        except ConnectionError:
            pass
    assert sink.wait_for(ConnectionClosed).cause is Cause.LIFETIME
