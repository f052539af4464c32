"""Closing: no reply is destroyed, no descriptor reaches a stranger, every end has its cause."""

import os
import random
import socket
import ssl
import threading
import time
from contextlib import ExitStack

import pytest

from moorage import Connection, ConnectionEnded
from moorage.events import Cause
from support.client import SOON
from support.house import Background, Journal, Open, Place, connected

REPLY = b"HTTP/1.1 413 Too Large\r\n\r\n" + b"r" * 5000


# The reply


@pytest.mark.parametrize("unread", [1, 10_000, 60_000])
def test_early_reply_with_unread_input_arrives_whole_every_time(house: Open, unread: int) -> None:
    opened = house(lambda conn: conn.sendall(REPLY))
    for _ in range(20):
        with opened.client() as client:
            client.sendall(b"x" * unread)
            assert client.rest() == REPLY


def test_early_reply_reaches_a_client_that_goes_on_sending(house: Open) -> None:
    """It sends for as long as it hears nothing, as an upload does."""
    opened = house(lambda conn: conn.sendall(REPLY))
    for _ in range(20):
        with opened.client() as client:
            sent = 0
            while client.hears_nothing(0) and sent < 50_000:
                sent += client.send(b"x" * 1000)
            client.sendall(b"x" * 5000)
            assert client.rest() == REPLY


@pytest.mark.tls_families("tcp4", "unix")
def test_long_early_reply_arrives_whole(house: Open) -> None:
    opened = house(lambda conn: conn.sendall(b"r" * 3_000_000))
    with opened.client() as client:
        client.sendall(b"x" * 30_000)
        assert len(client.rest()) == 3_000_000


def test_reply_after_the_end_of_the_request_arrives_whole(house: Open) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(b"%d" % len(conn.rfile.read()))

    opened = house(handle)
    with opened.client() as client:
        client.sendall(b"x" * 100_000)
        client.say_no_more()
        assert client.rest() == b"100000"


def test_reply_arrives_although_the_handler_closes_the_connection_itself(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        with conn:
            conn.sendall(REPLY)
        conn.close()
        journal.write(conn.fileno() >= 0)

    opened = house(handle)
    with opened.client() as client:
        client.sendall(b"x" * 1000)
        assert client.rest() == REPLY
    assert journal.read() == "True"
    assert opened.cause() is Cause.HANDLER_DONE


@pytest.mark.families("tcp4")
@pytest.mark.runners("threads", "fibers", "forks")
def test_peer_that_never_closes_costs_two_seconds_and_no_thread(house: Open) -> None:
    opened = house(lambda conn: conn.sendall(REPLY))
    with opened.client() as client:
        client.sendall(b"x")
        begun = time.monotonic()
        assert client.receive(len(REPLY)) == REPLY
        event = opened.end()
        assert 1.8 < time.monotonic() - begun < 3.0
        assert event.handled < 1.0


@pytest.mark.families("tcp4", "tcp6")
def test_peer_that_never_stops_sending_is_not_listened_to_for_long(house: Open) -> None:
    opened = house(lambda conn: conn.sendall(REPLY))
    begun = time.monotonic()
    with opened.client() as client, pytest.raises(ConnectionError):
        while time.monotonic() - begun < SOON:
            client.sendall(b"x" * 65536)
    assert time.monotonic() - begun < 3.0
    assert opened.cause() is Cause.HANDLER_DONE


# The descriptor


@pytest.mark.runners("threads", "fibers", "forks")
def test_descriptor_of_an_ended_connection_stays_open_until_its_holder_leaves(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(b"!")
        try:
            conn.recv(1)
        except ConnectionEnded as error:
            os.fstat(conn.fileno())
            journal.write(error.cause)
            journal.write(conn.fileno() >= 0)

    opened = house(handle)
    client = opened.client()
    assert client.receive(1) == b"!"
    opened.server.connections[0].end()
    assert client.is_cut()
    assert [journal.read(), journal.read()] == ["closed_by_operator", "True"]


def test_first_cause_wins(house: Open) -> None:
    def handle(conn: Connection) -> None:
        conn.end(Cause.SHED)
        conn.end(Cause.LIFETIME)
        raise ValueError("after the end")

    opened = house(handle)
    assert opened.client().is_cut()
    assert opened.cause() is Cause.SHED
    assert isinstance(opened.failure(), Exception)


def test_every_call_after_the_end_raises(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        conn.end()
        for call in (
            lambda: conn.recv(1),
            lambda: conn.recv_into(bytearray(1)),
            conn.rfile.readline,
            lambda: conn.rfile.read(1),
            lambda: conn.read_exactly(1),
            lambda: conn.send(b"x"),
            lambda: conn.sendall(b"x"),
            lambda: conn.wfile.write(b"x"),
        ):
            try:
                call()
                journal.write("returned")
            except ConnectionEnded as error:
                journal.write(error.cause)

    opened = house(handle)
    assert opened.client().is_cut()
    assert [journal.read() for _ in range(8)] == ["closed_by_operator"] * 8


@pytest.mark.runners("threads", "fibers")
def test_foreign_end_never_lets_a_reused_descriptor_reach_the_old_handler(
    house: Open, journal: Journal, place: Place
) -> None:
    """Several threads end connections at random while clients come and go and numbers are reused at once."""
    chance = 0.3 if place.security == "plain" else 0.03  # a handshake takes its time, and is to be survived by some

    def handle(conn: Connection) -> None:
        name = conn.read_exactly(8)
        try:
            while block := conn.read_exactly(8):
                if block != name:
                    journal.write(f"{name!r} got {block!r} on {conn!r}")
                    return
                conn.sendall(block)
        except (OSError, EOFError):
            for _ in range(3):  # a handler that does not take no for an answer
                try:
                    stolen = conn.recv(100)
                except OSError:
                    continue
                if stolen and stolen.strip(name) and not name.startswith(stolen):
                    journal.write(f"{name!r} got {stolen!r} on {conn!r}")

    opened = house(handle, max_connections=64)
    over = threading.Event()
    descriptors: set[int] = set()
    ended = [0]

    def end_some(seed: int) -> None:
        choose = random.Random(seed)
        while not over.is_set():
            for connection in opened.server.connections:
                if choose.random() < chance:
                    descriptors.add(connection.fileno())
                    connection.end(choose.choice([Cause.CLOSED_BY_OPERATOR, Cause.SHED, Cause.IDLE]))
                    ended[0] += 1
            over.wait(0.001)

    def come_and_go(number: int) -> int:
        talks = 0
        for visit in range(60):
            name = b"%03d.%03d " % (number, visit)
            with opened.client() as client:
                try:
                    client.sendall(name)
                    for _ in range(5):
                        answer = client.ask(name)
                        assert name.startswith(answer), (name, answer)
                        talks += 1
                except (ConnectionError, ssl.SSLError):
                    pass
        return talks

    enders = [Background(lambda seed=seed: end_some(seed)) for seed in range(3)]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    visitors = [Background(lambda number=number: come_and_go(number)) for number in range(8)]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    try:
        assert sum(visitor.result() for visitor in visitors) > 200
    finally:
        over.set()
    for ender in enders:
        ender.result()
    assert ended[0] > 100
    assert len(descriptors) < ended[0], "no number was reused: this showed nothing"
    assert journal.is_empty(), journal.read()


# Detached: what is behind a descriptor must be the conversation itself, so not TLS (see test_tls.py)


@pytest.mark.security("plain")
def test_detached_connection_is_the_handlers(house: Open, journal: Journal, place: Place) -> None:
    def handle(conn: Connection) -> None:
        with socket.socket(fileno=conn.detach()) as sock:
            journal.write(conn.fileno())
            sock.sendall(b"mine: " + sock.recv(100))

    opened = house(handle, max_connections=1)
    with opened.client() as client:
        client.sendall(b"hello")
        assert client.rest() == b"mine: hello"
    assert journal.read() == "-1"
    assert opened.cause() is Cause.DETACHED


@pytest.mark.security("plain")
@pytest.mark.runners("threads", "fibers")
def test_detached_connection_gives_its_ticket_back(house: Open) -> None:
    taken: list[int] = []
    opened = house(lambda conn: taken.append(conn.detach()), max_connections=1)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(opened.client())
            assert opened.cause() is Cause.DETACHED
            stack.callback(os.close, taken[-1])
        assert opened.server.connections == ()


@pytest.mark.security("plain")
def test_detach_with_bytes_read_ahead_is_refused(house: Open) -> None:
    def handle(conn: Connection) -> None:
        conn.readline()
        try:
            conn.detach()
        except ValueError as error:
            conn.sendall(str(error).encode())

    client = house(handle).client()
    client.sendall(b"STARTTLS\ninjected\n")
    assert b"9 bytes have been read ahead" in client.rest()


# Half-closed


@pytest.mark.tls_families("tcp4", "unix")  # there are two ways to wait
def test_half_closed_client_gets_everything(house: Open) -> None:
    def handle(conn: Connection) -> None:
        for line in conn.rfile:
            conn.sendall(line * 1000)

    opened = house(handle)
    with connected(opened, 1) as (client,):
        client.sendall(b"a\nb\nlast without an end")
        client.say_no_more()
        assert client.rest() == b"a\n" * 1000 + b"b\n" * 1000 + b"last without an end" * 1000


def test_server_side_half_close_leaves_reading_open(house: Open) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(b"question")
        conn.shutdown(socket.SHUT_WR)
        answer = conn.readline()
        assert answer == b"answer\n"

    opened = house(handle)
    client = opened.client()
    assert client.receive(9) == b"question"
    assert not client.hears_nothing(0)
    client.sendall(b"answer\n")
    client.close()
    assert opened.cause() in (Cause.HANDLER_DONE, Cause.PEER_CLOSED)
    assert opened.is_quiet()


# Resets


@pytest.mark.families("tcp4", "tcp6")
def test_reset_while_the_handler_reads_is_a_cause(house: Open) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(b"!")
        conn.recv(100)

    opened = house(handle)
    client = opened.client()
    assert client.receive(1) == b"!"
    client.reset()
    assert opened.cause() is Cause.RESET
    assert opened.is_quiet()
