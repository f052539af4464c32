"""Echo: the first promise, and what a handler is told of its client."""

import contextvars
import os
import socketserver
import threading

import pytest

from moorage import Connection, Server
from moorage.events import Cause, Phase
from support.house import Background, Journal, Open, Place, connected

CLIENT = contextvars.ContextVar("CLIENT", default=b"nobody")


def echo(conn: Connection) -> None:
    while data := conn.recv(8192):
        conn.sendall(data)


class EchoByClass(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(8192):
            self.request.send(data)


@pytest.mark.tls_families("tcp4", "tcp6", "unix")
def test_messages_of_every_size_come_back(house: Open) -> None:
    client = house(echo).client()
    for size in (1, 2, 8191, 8192, 8193, 65536, 200_000):
        message = os.urandom(size)
        answer = Background(lambda size=size: client.receive(size))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        client.sendall(message)
        assert answer.result() == message


def test_end_of_stream_reaches_the_handler_and_its_end_the_client(house: Open) -> None:
    opened = house(echo)
    client = opened.client()
    client.sendall(b"last words")
    client.say_no_more()
    assert client.rest() == b"last words"
    assert opened.cause() is Cause.PEER_CLOSED


def test_handler_that_leaves_ends_the_connection(house: Open) -> None:
    opened = house(lambda conn: conn.sendall(b"bye"))
    assert opened.client().rest() == b"bye"
    event = opened.end()
    assert (event.cause, event.phase, event.bytes_sent) == (Cause.HANDLER_DONE, Phase.HANDLER, 3)


def test_one_client_after_the_other_is_served(house: Open) -> None:
    opened = house(EchoByClass)
    for number in range(20):
        with opened.client() as client:
            assert client.ask(b"%d" % number) == b"%d" % number


@pytest.mark.runners("threads", "fibers", "forks")
def test_many_clients_are_served_at_the_same_time(house: Open) -> None:
    opened = house(echo)
    with connected(opened, 25) as clients:
        for number, client in enumerate(clients):
            client.sendall(b"%d;" % number)
        for number, client in reversed(list(enumerate(clients))):
            assert client.receive(len(b"%d;" % number)) == b"%d;" % number
        assert len(opened.server.connections) == 25


def test_handler_knows_its_client_and_its_own_address(house: Open, place: Place, journal: Journal) -> None:
    def tell(conn: Connection) -> None:
        journal.write(conn.peer)
        journal.write(conn.local)
        journal.write(conn.getsockname())

    opened = house(tell)
    client = opened.client()
    own = client.getsockname()
    assert client.rest() == b""
    told = [journal.read() for _ in range(3)]
    peer = opened.end().peer
    assert told == [str(peer), str(opened.server.address), str(opened.server.address)]
    if place.family != "unix":
        assert told[0] == str(own)


def test_connections_have_numbers_of_their_own(house: Open, journal: Journal) -> None:
    opened = house(lambda conn: journal.write(conn.id))
    for _ in range(5):
        opened.client().rest()
    assert len({journal.read() for _ in range(5)}) == 5


def test_byte_counts_are_those_of_the_wire(house: Open, journal: Journal) -> None:
    def count(conn: Connection) -> None:
        conn.read_exactly(1000)
        conn.sendall(b"x" * 77)
        journal.write((conn.bytes_received, conn.bytes_sent))

    opened = house(count)
    client = opened.client()
    client.sendall(b"x" * 1000)
    assert len(client.rest()) == 77
    assert journal.read() == "(1000, 77)"
    event = opened.end()
    assert (event.bytes_received, event.bytes_sent) == (1000, 77)


# The context that handlers run in


def test_context_of_a_connection_is_its_own(house: Open) -> None:
    def remember(conn: Connection) -> None:
        for line in conn.rfile:
            if line != b"who\n":
                CLIENT.set(line.strip())
            conn.sendall(CLIENT.get() + b"\n")

    opened = house(remember)
    for name in (b"one", b"two", b"three"):
        with opened.client() as client:
            client.sendall(b"who\n")
            assert client.line() == b"nobody\n"
            assert client.ask(name + b"\n") == name + b"\n"
            client.sendall(b"who\n")
            assert client.line() == name + b"\n"


@pytest.mark.runners("threads", "fibers", "forks")
def test_contexts_of_simultaneous_connections_do_not_mix(house: Open) -> None:
    def remember(conn: Connection) -> None:
        CLIENT.set(conn.readline())
        conn.sendall(b"ready\n")
        conn.readline()
        conn.sendall(CLIENT.get())

    opened = house(remember)
    with connected(opened, 8) as clients:
        for number, client in enumerate(clients):
            client.sendall(b"%d\n" % number)
            assert client.line() == b"ready\n"
        for number, client in enumerate(clients):
            client.sendall(b"tell\n")
            assert client.line() == b"%d\n" % number


def test_worker_start_fills_the_state_and_the_context_of_every_connection(house: Open) -> None:
    def open_pool(server: Server) -> None:
        server.state.greeting = b"hello "
        CLIENT.set(b"everybody")

    class Greet(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.server.state.greeting + CLIENT.get())  # type: ignore[attr-defined]

    opened = house(Greet, worker_start=open_pool)
    assert [opened.client().rest() for _ in range(2)] == [b"hello everybody"] * 2


def test_worker_stop_runs_once_after_the_last_connection(house: Open, journal: Journal) -> None:
    def stop(server: Server) -> None:
        journal.write(f"stopped in {threading.current_thread().name}, {len(server.connections)} left")

    opened = house(lambda conn: journal.write("served"), worker_stop=stop)
    opened.client().rest()
    opened.end()
    opened.server.close()
    opened.server.close()
    assert [journal.read(), journal.read()] == ["served", "stopped in moorage-serve, 0 left"]
    assert journal.is_empty()


@pytest.mark.security("plain")  # nobody comes
def test_worker_start_that_raises_fails_the_start_and_leaves_nothing_open(house: Open) -> None:
    def fail(server: Server) -> None:
        raise RuntimeError("no database")

    opened = house(echo, start=False, worker_start=fail)
    with pytest.raises(RuntimeError, match="no database"):
        opened.server.start()
    assert opened.server.fileno() == -1
