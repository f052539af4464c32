"""Limits: never more than was allowed, and whoever is above waits or is told."""

import socket
import threading
import time

import pytest

from moorage import Connection
from moorage.events import Cause, ConnectionRefused, Phase, PoolSaturated, ServerSuspended
from support.client import SOON
from support.house import Background, Journal, Latch, Open, Place, connected

pytestmark = pytest.mark.security("plain")  # who may come in is settled before anybody speaks


def echo(conn: Connection) -> None:
    while data := conn.recv(8192):
        conn.sendall(data)


def greet(conn: Connection) -> None:
    conn.sendall(b"!")
    while conn.recv(8192):
        pass


# The total


@pytest.mark.runners("threads", "fibers", "forks")
def test_handlers_at_once_are_never_more_than_max_connections(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        journal.write("+")
        conn.sendall(conn.recv(10))
        journal.write("-")

    opened = house(handle, max_connections=4)

    def come() -> bytes:
        with opened.client() as client:
            return client.ask(b"x")

    visits = [Background(come) for _ in range(40)]
    assert [visit.result() for visit in visits] == [b"x"] * 40
    inside = most = 0
    for _ in range(80):
        inside += 1 if journal.read() == "+" else -1
        most = max(most, inside)
    assert inside == 0
    assert most <= 4


def test_client_above_the_limit_waits_and_is_served_when_another_leaves(house: Open) -> None:
    opened = house(greet, max_connections=1)
    first = opened.client()
    assert first.receive(1) == b"!"
    second = opened.client()
    assert second.hears_nothing(0.1)
    first.close()
    assert second.receive(1) == b"!"


@pytest.mark.families("tcp4", "tcp6")
def test_ticket_of_a_lingering_connection_is_not_back(house: Open) -> None:
    """The limit is one of descriptors: who reads no end of stream still has one."""
    opened = house(lambda conn: conn.sendall(b"bye"), max_connections=1)
    first = opened.client()
    assert first.receive(4) == b"bye"
    second = opened.client()
    assert second.hears_nothing(0.2)
    assert len(opened.server.connections) == 1
    first.close()
    assert second.receive(3) == b"bye"


@pytest.mark.runners("threads", "fibers", "forks")
def test_overflow_refuse_says_why_and_ends(house: Open) -> None:
    opened = house(greet, max_connections=1, overflow="refuse", overflow_message=b"421 busy\r\n")
    refused = opened.server.events.queue(10, ConnectionRefused)
    first = opened.client()
    assert first.receive(1) == b"!"
    second = opened.client()
    second.sendall(b"x" * 1000)  # unread input must not destroy the message
    assert second.rest() == b"421 busy\r\n"
    event = refused.get(SOON)
    assert isinstance(event, ConnectionRefused)
    assert event.cause is Cause.REFUSED_TOTAL
    first.close()
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.client().receive(1) == b"!"


@pytest.mark.runners("threads", "fibers", "forks")
def test_overflow_reset_ends_without_a_word(house: Open, place: Place) -> None:
    opened = house(greet, max_connections=1, overflow="reset")
    first = opened.client()
    assert first.receive(1) == b"!"
    if place.family == "unix":
        assert opened.client().is_cut()
    else:
        with pytest.raises(ConnectionResetError):
            opened.client().recv(1)


# Threads


@pytest.mark.runners("threads")
def test_threads_at_once_are_never_more_than_threads(house: Open) -> None:
    opened = house(echo, threads=3, max_connections=20)
    with connected(opened, 20) as clients:
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
            client.say_no_more()
        assert [client.rest() for client in clients] == [b"%d" % number for number in range(20)]
        workers = [t.name for t in threading.enumerate() if t.name.startswith("moorage-") and t.name[8:].isdigit()]
    assert len(workers) <= 3


@pytest.mark.runners("threads")
def test_waiting_clients_are_served_in_the_order_of_arrival(house: Open, journal: Journal, latch: Latch) -> None:
    def handle(conn: Connection) -> None:
        if conn.id == 1:
            conn.sendall(b"!")
            latch.wait()
        journal.write(conn.id)

    opened = house(handle, threads=1)
    first = opened.client()
    assert first.receive(1) == b"!"
    with connected(opened, 10):
        latch.open()
        served = [int(journal.read()) for _ in range(11)]
    assert served == sorted(served)


@pytest.mark.runners("threads")
def test_client_that_waits_too_long_for_a_thread_is_ended(house: Open, latch: Latch) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(b"!")
        latch.wait()

    opened = house(handle, threads=1, queue_timeout=0.1)
    saturated = opened.server.events.queue(10, PoolSaturated)
    first = opened.client()
    assert first.receive(1) == b"!"
    second = opened.client()
    second.sendall(b"hello")
    begun = time.monotonic()
    assert second.is_cut()
    assert time.monotonic() - begun < 2.0
    event = opened.end()
    assert (event.cause, event.phase) == (Cause.QUEUE_TIMEOUT, Phase.WAITING)
    assert event.handled == 0.0
    assert saturated.get(SOON) == PoolSaturated(threads=1, waiting=1)
    latch.open()
    assert first.rest() == b""


@pytest.mark.runners("threads")
def test_client_that_gets_its_thread_in_time_is_not_ended_later(house: Open, latch: Latch) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(b"!")
        if conn.id == 1:
            latch.wait()
        echo(conn)

    opened = house(handle, threads=1, queue_timeout=0.2)
    first = opened.client()
    assert first.receive(1) == b"!"
    second = opened.client()
    latch.open()
    first.close()
    assert second.receive(1) == b"!"
    assert second.hears_nothing(0.4)
    assert second.ask(b"still here") == b"still here"


# What a peer may send


@pytest.mark.parametrize("size", [999, 1000])
def test_line_up_to_the_limit_is_a_line(house: Open, size: int) -> None:
    def handle(conn: Connection) -> None:
        for line in conn.rfile:
            conn.sendall(line)

    client = house(handle, line_limit=1000).client()
    line = b"x" * (size - 1) + b"\n"
    assert client.ask(line) == line


@pytest.mark.parametrize("in_pieces", [False, True], ids=["at-once", "in-pieces"])
def test_line_above_the_limit_ends_the_connection(house: Open, in_pieces: bool) -> None:
    def handle(conn: Connection) -> None:
        for line in conn.rfile:
            conn.sendall(line)

    opened = house(handle, line_limit=1000)
    client = opened.client()
    if in_pieces:
        for _ in range(3):
            client.sendall(b"x" * 400)
            client.hears_nothing(0.02)
    else:
        client.sendall(b"x" * 1000 + b"\n")
    assert client.rest() == b""
    assert opened.cause() is Cause.TOO_LARGE


def test_size_that_the_handler_gives_wins_over_the_limit(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        journal.write(len(conn.rfile.readline(5000)))
        journal.write(len(conn.rfile.readline(5000)))

    client = house(handle, line_limit=1000).client()
    client.sendall(b"x" * 5999 + b"\n")
    assert (journal.read(), journal.read()) == ("5000", "1000")


def test_read_without_a_size_is_bounded(house: Open) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(b"%d" % len(conn.rfile.read()))

    opened = house(handle, message_limit=50_000)
    client = opened.client()
    client.sendall(b"x" * 50_000)
    client.say_no_more()
    assert client.rest() == b"50000"
    assert opened.cause() is Cause.PEER_CLOSED
    client = opened.client()
    client.sendall(b"x" * 50_001)
    client.say_no_more()
    assert client.rest() == b""
    assert opened.cause() is Cause.TOO_LARGE


# Suspended


def test_suspended_server_serves_who_is_here_and_lets_nobody_in(house: Open) -> None:
    opened = house(echo)
    first = opened.client()
    assert first.ask(b"x") == b"x"
    suspended = opened.server.events.queue(1, ServerSuspended)
    opened.server.suspend()
    assert first.ask(b"y") == b"y"
    suspended.get(SOON)  # it takes effect in the serving thread
    second = opened.client()
    second.sendall(b"z")
    assert second.hears_nothing(0.1)
    first.close()
    assert second.hears_nothing(0.1)
    opened.server.resume()
    assert second.receive(1) == b"z"


def test_suspend_and_resume_lose_nobody_in_the_backlog(house: Open) -> None:
    opened = house(echo)
    for _ in range(10):
        opened.server.suspend()
        with connected(opened, 3) as clients:
            for client in clients:
                client.sendall(b"x")
                client.say_no_more()
            opened.server.resume()
            assert [client.rest() for client in clients] == [b"x"] * 3


def test_address_shared_by_two_servers_is_refused(house: Open, place: Place) -> None:
    opened = house(echo)
    address = opened.server.address
    with socket.socket(opened.server.socket.family) as other, pytest.raises(OSError, match="in use"):
        other.bind(address)
