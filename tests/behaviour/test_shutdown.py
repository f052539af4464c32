"""Shutdown: from anywhere, at any time, as often as one likes; and nothing is left behind."""

import gc
import os
import signal
import socketserver
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage import BindError, Connection, Server
from moorage.errors import MoorageError
from moorage.events import Cause
from support.client import SOON
from support.house import Background, House, Journal, Latch, Open, Place, connected
from support.waiting import eventually

NOBODY = pytest.mark.security("plain")  # where nobody speaks


def echo(conn: Connection) -> None:
    while data := conn.recv(8192):
        conn.sendall(data)


def visit(house: House) -> None:
    with house.client() as client:
        assert client.ask(b"x") == b"x"


def same_again(address: Any) -> str:
    """The address as `bind` takes it."""
    if isinstance(address, str):
        return f"unix:{address}"
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


# From anywhere


@pytest.mark.runners("inline", "threads", "fibers")  # a child of `forks` has only its connection
@pytest.mark.parametrize("verb", ["drain", "shutdown", "close"])
def test_server_stops_for_a_handler(house: Open, verb: str) -> None:
    """Which must not wait for itself."""

    class Stop(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"stopping")
            getattr(self.server, verb)()

    opened = house(Stop)
    client = opened.client()
    assert client.receive(8) == b"stopping"
    assert client.is_cut()
    assert Background(opened.server.serve_forever).result() is None
    assert opened.server.fileno() == -1


@pytest.mark.parametrize("verb", ["drain", "shutdown", "close"])
def test_server_stops_for_another_thread(house: Open, verb: str) -> None:
    opened = house(echo, start=False)
    opened.server.bind()
    serving = Background(opened.server.serve_forever)
    with opened.client() as client:
        assert client.ask(b"x") == b"x"
    getattr(opened.server, verb)()
    serving.result()


@NOBODY
def test_server_stops_for_several_threads_at_once(house: Open) -> None:
    opened = house(echo)
    verbs: list[Callable[[], object]] = [opened.server.drain, opened.server.shutdown, opened.server.close]
    stops = [Background(verb) for verb in verbs * 3]
    for stop in stops:
        stop.result()
    assert opened.server.fileno() == -1


@pytest.mark.runners("inline", "threads", "fibers")
def test_server_stops_for_a_signal_in_the_serving_thread(house: Open) -> None:
    opened = house(echo, start=False)
    before = signal.signal(signal.SIGUSR1, lambda *_: opened.server.drain())
    try:
        opened.server.bind()

        def visit_and_signal() -> None:
            visit(opened)
            os.kill(os.getpid(), signal.SIGUSR1)

        visitor = Background(visit_and_signal)
        opened.server.serve_forever()
        visitor.result()
    finally:
        signal.signal(signal.SIGUSR1, before)


# At any time


@NOBODY
def test_shutdown_before_serving_makes_serving_return_at_once(house: Open) -> None:
    opened = house(echo, start=False)
    opened.server.shutdown()
    Background(opened.server.serve_forever).result()


def test_shutdown_of_a_bound_server_refuses_who_waits(house: Open) -> None:
    opened = house(echo, start=False)
    opened.server.bind()
    client = opened.client()
    opened.server.close()
    assert client.is_cut()


@NOBODY
def test_second_and_third_time_do_nothing(house: Open) -> None:
    opened = house(echo)
    assert opened.server.drain() is True
    assert opened.server.drain() is True
    opened.server.shutdown()
    opened.server.close()
    opened.server.serve_forever()


@NOBODY
def test_start_after_the_end_is_a_sentence(house: Open) -> None:
    opened = house(echo)
    opened.server.close()
    with pytest.raises(MoorageError, match="make a new one"):
        opened.server.start()


@NOBODY
def test_address_before_bind_is_a_sentence(house: Open) -> None:
    opened = house(echo, start=False)
    with pytest.raises(MoorageError, match="no address yet: call bind"):
        _ = opened.server.address
    assert opened.server.fileno() == -1


def test_context_manager_drains_when_all_went_well(house: Open, latch: Latch) -> None:
    def slow(conn: Connection) -> None:
        conn.sendall(conn.readline())

    opened = house(slow, start=False)
    with opened.server:
        client = opened.client()
        client.sendall(b"half ")
        later = threading.Timer(0.1, lambda: client.sendall(b"a line\n"))
        later.start()
        reply = Background(client.rest)
    assert reply.result() == b"half a line\n"
    later.join()


def test_context_manager_ends_at_once_when_something_went_wrong(house: Open) -> None:
    opened = house(echo, start=False)
    begun = time.monotonic()
    with pytest.raises(LookupError), opened.server:
        client = opened.client()
        assert client.ask(b"x") == b"x"
        cut = Background(client.is_cut)
        raise LookupError("the program failed")
    assert cut.result()
    assert time.monotonic() - begun < 1.5


# With idle and stuck clients


def test_idle_clients_do_not_hold_up_a_close(house: Open) -> None:
    opened = house(echo, max_connections=20)
    with connected(opened, 5) as clients:
        if opened.server.settings.runner != "inline":
            for client in clients:
                assert client.ask(b"x") == b"x"
        begun = time.monotonic()
        closing = Background(opened.server.close)
        for client in clients:
            assert client.is_cut()
        closing.result()
        assert time.monotonic() - begun < 2.0


@pytest.mark.security("plain")  # the handler does not look at its connection
@pytest.mark.runners("threads")
@pytest.mark.families("tcp4")
def test_stuck_handler_does_not_hold_up_a_close(house: Open, latch: Latch) -> None:
    def stuck(conn: Connection) -> None:
        conn.sendall(b"!")
        latch.wait()

    opened = house(stuck)
    client = opened.client()
    assert client.receive(1) == b"!"
    begun = time.monotonic()
    opened.server.close()
    assert time.monotonic() - begun < 4.0
    assert client.is_cut()
    assert len(opened.stacks()) == 1
    latch.open()
    assert opened.cause() is Cause.CLOSED_BY_OPERATOR


@pytest.mark.security("plain")  # the handler does not look at its connection
@pytest.mark.runners("threads")
@pytest.mark.families("tcp4")
def test_client_queued_behind_a_stuck_handler_is_cut_too(house: Open, latch: Latch, journal: Journal) -> None:
    def stuck(conn: Connection) -> None:
        journal.write("ran")
        conn.sendall(b"!")
        latch.wait()

    opened = house(stuck, threads=1)
    first = opened.client()
    assert first.receive(1) == b"!"
    second = opened.client()
    second.sendall(b"hello")
    opened.server.close()
    assert second.is_cut()
    latch.open()
    assert {opened.cause(), opened.cause()} == {Cause.CLOSED_BY_OPERATOR}
    assert journal.read() == "ran"
    assert journal.is_empty()


def test_waiting_for_connections_ends_when_they_have_left(house: Open) -> None:
    opened = house(echo)
    assert opened.server.wait_for_connections(0, 0)
    client = opened.client()
    assert client.ask(b"x") == b"x"
    assert not opened.server.wait_for_connections(0, 0.05)
    assert opened.server.wait_for_connections(1, 0)
    waiting = Background(lambda: opened.server.wait_for_connections(timeout=SOON))
    client.close()
    assert waiting.result()


# Again


def test_restart_on_the_same_address_at_once(house: Open, place: Place) -> None:
    opened = house(echo)
    bind = same_again(opened.server.address)
    for _ in range(3):
        with opened.client() as client:
            assert client.ask(b"x") == b"x"
            closing = Background(opened.server.close)  # the server closes first: TIME_WAIT is on its side
            assert client.is_cut()
        closing.result()
        opened.server = Server(echo, bind, runner=place.runner, drain_quiet=0.1, **place.settings())
        opened._stack.callback(opened.server.close)
        opened.server.start()


@NOBODY
@pytest.mark.runners(
    "inline", "threads", "fibers"
)  # a child would inherit our side of the visit that finds out who is there
def test_address_in_use_is_refused_and_leaves_nothing_open(house: Open, place: Place) -> None:
    opened = house(echo)
    bind = same_again(opened.server.address)
    visit(opened)
    assert opened.server.wait_for_connections(0, SOON)
    gc.collect()
    before = os.listdir("/proc/self/fd")
    other = Server(echo, bind, runner=place.runner)
    with pytest.raises(BindError, match="in use"):
        other.start()
    other.close()
    # who is in the way was found out by a visit, which may not even be accepted yet
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= len(before))
    visit(opened)


# Nothing left behind


@pytest.mark.parametrize("verb", ["drain", "close"])
def test_nothing_is_left_after_many_lives(house: Open, place: Place, verb: str) -> None:
    def life() -> None:
        opened = house(echo)
        with connected(opened, 3 if place.runner != "inline" else 1) as clients:
            for client in clients:
                assert client.ask(b"x") == b"x"
            clients[0].reset()
            end = Background(getattr(opened.server, verb))
            for client in clients[1:]:
                client.close()
        end.result()

    life()
    gc.collect()
    threads, fds = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        life()
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("moorage"):
            thread.join(SOON)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == fds
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@NOBODY
@pytest.mark.families("unix")
def test_path_of_a_unix_socket_is_gone(house: Open) -> None:
    opened = house(echo)
    path = Path(str(opened.server.address))
    assert path.is_socket()
    opened.server.close()
    assert not path.exists()


# Idle


def switches(thread: threading.Thread) -> int:
    """How often this thread has been woken, more or less: it gave the CPU up as often."""
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("voluntary_ctxt"))


@pytest.mark.families("tcp4", "unix")
def test_idle_server_is_not_woken_at_all(house: Open, place: Place, journal: Journal) -> None:
    """With connections that are idle too: deadlines are far away, and nobody polls."""

    def tell(conn: Connection) -> None:
        echo(conn)
        journal.write("left")

    opened = house(tell)
    with connected(opened, 1 if place.runner == "inline" else 10) as clients:
        for client in clients:
            assert client.ask(b"x") == b"x"
        ours = [thread for thread in threading.enumerate() if thread.name.startswith("moorage")]
        assert ours
        settle(ours)
        if place.runner == "fibers":  # its watchdog looks once or twice more before it lies down
            loop: Any = opened.server.watch
            eventually(lambda: loop.loop.bell is not None)
        before = [switches(thread) for thread in ours]
        assert journal.stays_empty(0.7)
        assert [switches(thread) for thread in ours] == before


def settle(threads: list[threading.Thread]) -> None:
    """Wait until all of them sleep."""
    deadline = time.monotonic() + SOON
    while any(
        Path(f"/proc/self/task/{t.native_id}/stat").read_text().rpartition(")")[2].split()[0] != "S" for t in threads
    ):
        assert time.monotonic() < deadline
