"""What runs beside a handler: `moorage.spawn`, and `moorage.connect` to where it carries bytes from and to."""

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import moorage
from moorage import siblings
from moorage.connection import Connection
from moorage.events import Cause, SiblingsLeft
from support.client import SOON
from support.house import Journal, Latch, Open, Place
from support.sockets import open_fds
from support.waiting import eventually

SHORT = 0.05  # in which what was begun comes to its wait; a test does not fail when it does not
LARGE = os.urandom(600_000)


def echo(conn: Connection) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def copy(source: Connection, sink: Connection) -> None:
    while data := source.recv(65536):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


class Proxy:
    """Carries bytes to the upstream and back."""

    def __init__(self, upstream: Any, journal: Journal | None = None) -> None:
        self._upstream = upstream
        self._journal = journal

    def __call__(self, client: Connection) -> None:
        with moorage.connect(self._upstream) as upstream:
            back = moorage.spawn(self._carry_back, upstream, client)
            copy(client, upstream)
            back.join(SOON)

    def _carry_back(self, upstream: Connection, client: Connection) -> None:
        try:
            copy(upstream, client)
        finally:
            if self._journal is not None:
                self._journal.write("back")


@pytest.fixture
def upstream(place: Place) -> Iterator[Any]:
    """The address of a server that echoes, of the same family; it runs in threads."""
    bind = {"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": "unix:@moorage-test-upstream"}[place.family]
    with moorage.Server(echo, bind, drain_quiet=0.05, drain_timeout=5.0) as server:
        yield server.address


def until_ended(conn: Connection, journal: Journal) -> None:
    """A sibling that waits for its connection, and says how it was told of the end."""
    try:
        while conn.recv(100):
            pass
    except BaseException as error:
        journal.write(type(error).__name__)
        raise


def expected_end(place: Place) -> str:
    return "Cancelled" if place.runner == "fibers" else "ConnectionEnded"


# The proxy


def test_proxy_carries_both_ways_and_half_closes(house: Open, upstream: Any) -> None:
    opened = house(Proxy(upstream))
    client = opened.client()
    assert client.ask(b"hello") == b"hello"
    sending = send_meanwhile(client, LARGE)
    assert client.receive(len(LARGE)) == LARGE
    sending.join(SOON)
    client.say_no_more()
    assert client.rest() == b""
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.is_quiet()


def send_meanwhile(client: Any, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=client.sendall, args=(data,))
    thread.start()
    return thread


def test_proxy_whose_client_resets_ends_with_its_sibling(house: Open, journal: Journal, upstream: Any) -> None:
    opened = house(Proxy(upstream, journal))
    client = opened.client()
    assert client.ask(b"hello") == b"hello"
    client.reset()
    assert journal.read() == "back"
    assert opened.cause() in {Cause.RESET, Cause.PEER_CLOSED}
    assert opened.is_quiet()


@pytest.mark.runners("threads", "fibers")
def test_proxies_leave_nothing_behind(house: Open, upstream: Any) -> None:
    opened = house(Proxy(upstream))

    def round_trips() -> None:
        for number in range(20):
            client = opened.client()
            assert client.ask(b"%d" % number) == b"%d" % number
            if number % 2:
                client.say_no_more()
                assert client.rest() == b""
            else:
                client.reset()
        assert opened.server.wait_for_connections(0, SOON)

    round_trips()
    before = open_fds()
    round_trips()
    eventually(lambda: {fd.split()[1] for fd in open_fds()} <= {fd.split()[1] for fd in before} or not_more(before))


def not_more(before: set[str]) -> bool:
    return len(open_fds()) <= len(before)


# The end of a sibling


def test_sibling_that_waits_for_its_connection_ends_with_the_handler(
    house: Open, journal: Journal, place: Place
) -> None:
    def handle(conn: Connection) -> None:
        moorage.spawn(until_ended, conn, journal)
        moorage.sleep(SHORT)  # it waits by now
        conn.sendall(b"reply")

    opened = house(handle)
    client = opened.client()
    assert client.rest() == b"reply"
    assert journal.read() == expected_end(place)
    assert opened.cause() is Cause.HANDLER_DONE
    assert opened.is_quiet()


def test_late_input_does_not_destroy_the_reply_of_a_handler_with_a_sibling(house: Open, journal: Journal) -> None:
    reply = b"r" * 30_000

    def handle(conn: Connection) -> None:
        moorage.spawn(until_ended, conn, journal)
        moorage.sleep(SHORT)
        conn.sendall(reply)

    opened = house(handle)
    client = opened.client(4096)
    journal.read()  # the handler has left
    try:
        client.sendall(b"x" * 1000)
    except BrokenPipeError:  # a Unix socket's peer may be told
        assert client.family == socket.AF_UNIX
    assert client.rest() == reply


def test_sibling_that_waits_for_another_connection_ends_when_that_is_closed(
    house: Open, journal: Journal, upstream: Any, place: Place
) -> None:
    def handle(conn: Connection) -> None:
        with moorage.connect(upstream) as other:
            moorage.spawn(until_ended, other, journal)
            moorage.sleep(SHORT)
            conn.sendall(b"reply")

    opened = house(handle)
    assert opened.client().rest() == b"reply"
    assert journal.read() == expected_end(place)
    assert opened.cause() is Cause.HANDLER_DONE
    assert opened.is_quiet()


def test_sibling_that_computes_gets_the_end_at_its_next_call(house: Open, journal: Journal, place: Place) -> None:
    def count(conn: Connection) -> None:
        try:
            while True:
                moorage.sleep(0.01)
                conn.sendall(b".")
        except BaseException as error:
            journal.write(type(error).__name__)
            raise

    def handle(conn: Connection) -> None:
        moorage.spawn(count, conn)
        conn.readline()

    opened = house(handle)
    client = opened.client()
    assert client.receive(2) == b".."
    client.sendall(b"enough\n")
    client.rest()
    assert journal.read() == expected_end(place)
    assert opened.is_quiet()


def test_sibling_of_a_connection_that_the_server_ends_is_told(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        moorage.spawn(until_ended, conn, journal)
        conn.sendall(b"!")
        moorage.sleep(SHORT)
        conn.end()
        conn.sendall(b"too late")

    opened = house(handle)
    client = opened.client()
    assert client.receive(1) == b"!"
    assert client.is_cut()
    assert journal.read() in {"Cancelled", "ConnectionEnded"}
    assert opened.cause() is Cause.CLOSED_BY_OPERATOR
    assert opened.is_quiet()


@pytest.mark.runners("inline", "threads", "fibers")
@pytest.mark.families("tcp4")
def test_sibling_that_does_not_leave_is_reported_and_left(
    house: Open, place: Place, latch: Latch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "LEAVE_SECONDS", 0.2)
    is_over: list[bool] = []

    def stay() -> None:
        if place.runner != "fibers":
            latch.wait()
        while not is_over:
            try:
                moorage.sleep(0.01)
            except moorage.HandlerStopped:
                pass

    def handle(conn: Connection) -> None:
        moorage.spawn(stay)
        moorage.sleep(0.01)

    opened = house(handle)
    left = opened.server.events.queue(1, SiblingsLeft)
    assert opened.client().rest() == b""
    event = left.get(SOON)
    assert isinstance(event, SiblingsLeft)
    assert "stay" in event.stacks[0]
    assert event.id == opened.end().id
    is_over.append(True)
    latch.open()


# What goes wrong in one


def test_error_of_a_sibling_is_reported_as_a_handlers(house: Open) -> None:
    def fail(conn: Connection) -> None:
        raise ValueError("asked for")

    def handle(conn: Connection) -> None:
        moorage.spawn(fail, conn).join(SOON)
        conn.sendall(b"still here")

    opened = house(handle)
    assert opened.client().rest() == b"still here"
    assert "asked for" in str(opened.failure())
    assert opened.cause() is Cause.HANDLER_ERROR


def test_what_the_connection_raises_in_a_sibling_is_quiet(house: Open) -> None:
    def handle(conn: Connection) -> None:
        moorage.spawn(conn.read_exactly, 100).join(SOON)

    opened = house(handle)
    client = opened.client()
    client.sendall(b"less")
    client.say_no_more()
    assert client.rest() == b""
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.is_quiet()


# What it may do


def test_sibling_may_start_another_and_both_end(house: Open, journal: Journal, place: Place) -> None:
    def first(conn: Connection) -> None:
        moorage.spawn(until_ended, conn, journal)
        moorage.sleep(SHORT)

    def handle(conn: Connection) -> None:
        assert moorage.spawn(first, conn).join(SOON)
        conn.sendall(b"reply")

    opened = house(handle)
    assert opened.client().rest() == b"reply"
    assert journal.read() == expected_end(place)
    assert opened.is_quiet()


def test_handler_and_sibling_share_locks_and_blocking_calls(house: Open) -> None:
    def work(lock: Any, words: list[bytes]) -> None:
        with lock:
            words.append(moorage.run_blocking(bytes, b"blocking "))
            moorage.sleep(0.01)
            words.append(b"asleep ")

    def handle(conn: Connection) -> None:
        lock, words = moorage.Lock(), list[bytes]()
        both = [moorage.spawn(work, lock, words) for _ in range(2)]
        assert all(one.join(SOON) for one in both)
        assert not any(one.is_alive() for one in both)
        conn.sendall(b"".join(words))

    assert house(handle).client().rest() == b"blocking asleep " * 2


@pytest.mark.security("plain")  # without its connection
def test_join_gives_up_in_time(house: Open) -> None:
    def handle(conn: Connection) -> None:
        one = moorage.spawn(moorage.sleep, 0.5)
        conn.sendall(b"%d %d" % (one.join(0.01), one.is_alive()))

    assert house(handle).client().rest() == b"0 1"


def test_spawn_on_a_connection_that_was_ended_raises_the_end(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        conn.end()
        try:
            moorage.spawn(journal.write, "never")
        except moorage.ConnectionEnded:
            journal.write("ended")

    house(handle).client()
    assert journal.read() == "ended"
    assert journal.stays_empty(0.05)
