"""Hostile peers: what they do ends their own connection, is one quiet cause, and costs nobody else."""

import logging
import os
import random
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from moorage import Connection, StreamRequestHandler
from moorage.events import Cause
from support.client import SOON, Client
from support.house import Background, House, Open, Place
from support.programs import crowd_server

TCP = pytest.mark.families("tcp4", "tcp6")
pytestmark = pytest.mark.security("plain")  # what hostile peers do with TLS: behaviour/test_tls.py
KIB = 1024

#: how the lines begin that tell what the operator did
OPERATION = ("listening on", "accepting", "draining", "the drain", "stopped")


def echo_lines(conn: Connection) -> None:
    for line in conn.rfile:
        conn.sendall(line)


class Careful(StreamRequestHandler):
    """Does what good handlers do, all of which may fail when the peer is gone."""

    disable_nagle_algorithm = True
    wbufsize = 4096

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)
            self.wfile.flush()
        self.request.shutdown(socket.SHUT_WR)


def nosy(conn: Connection) -> None:
    conn.readline()
    conn.getpeername()
    conn.shutdown(socket.SHUT_WR)


def sends_first(conn: Connection) -> None:
    conn.sendall(b"220 ready\r\n")
    echo_lines(conn)


@pytest.fixture
def noise(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines above debug level, but those of start and stop."""
    caplog.set_level(logging.DEBUG, "moorage")

    def noise() -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.levelno > logging.DEBUG and not record.getMessage().startswith(OPERATION)
        ]

    return noise


def settle(opened: House, count: int) -> list[Cause]:
    """How so many connections ended; afterwards the server is as good as new."""
    causes = [opened.cause() for _ in range(count)]
    assert opened.server.wait_for_connections(0, SOON)
    return causes


# Resets and health checks


# not forks: a child forked while a client is being made here would keep that client's socket open
@pytest.mark.runners("threads", "inline", "fibers")
@pytest.mark.parametrize("settings", [{}, {"wait_for_data": True}], ids=["", "wait-for-data"])
@pytest.mark.parametrize("handler", [echo_lines, Careful, sends_first], ids=["function", "class", "sends-first"])
def test_health_check_is_not_worth_a_line(
    house: Open, noise: Callable[[], list[str]], handler: Any, settings: dict[str, Any]
) -> None:
    opened = house(handler, **settings)
    for _ in range(5):
        with Client(opened.server.address):
            pass
        Client(opened.server.address).reset()
    assert set(settle(opened, 10)) <= {Cause.PEER_CLOSED, Cause.RESET, Cause.HANDLER_DONE}
    assert opened.is_quiet()
    assert noise() == []


@TCP
@pytest.mark.parametrize("handler", [echo_lines, Careful, nosy], ids=["function", "class", "nosy"])
def test_reset_in_the_middle_is_quiet(house: Open, noise: Callable[[], list[str]], handler: Any) -> None:
    opened = house(handler)
    for count in (0, 1, 3, 10_000):
        client = opened.client()
        client.sendall(b"line\n" * count + b"half")
        client.reset()
    causes = settle(opened, 4)
    assert opened.is_quiet(), noise()
    assert noise() == []
    assert set(causes) <= {Cause.RESET, Cause.PEER_CLOSED, *([Cause.HANDLER_DONE] if handler is nosy else [])}


@TCP
def test_reset_in_the_middle_of_a_reply_is_quiet(house: Open, noise: Callable[[], list[str]]) -> None:
    def send_much(conn: Connection) -> None:
        while True:
            conn.sendall(b"x" * 100_000)

    opened = house(send_much)
    for _ in range(5):
        client = opened.client()
        client.receive(1000)
        client.reset()
    assert set(settle(opened, 5)) == {Cause.RESET}
    assert noise() == []


@TCP
def test_clients_that_leave_the_backlog_are_nobody(house: Open, noise: Callable[[], list[str]]) -> None:
    opened = house(echo_lines)
    opened.server.suspend()
    for _ in range(20):
        Client(opened.server.address).reset()
    opened.server.resume()
    with Client(opened.server.address) as client:
        assert client.ask(b"hello\n") == b"hello\n"
    assert opened.server.wait_for_connections(0, SOON)
    assert noise() == []


# Floods of bytes


def test_garbage_ends_nobody_elses_connection(house: Open, place: Place) -> None:
    opened = house(echo_lines, line_limit=4 * KIB)
    chaos = random.Random(1)
    for _ in range(20):
        with Client(opened.server.address) as client:
            try:
                client.sendall(chaos.randbytes(chaos.randrange(20_000)))
                if chaos.random() < 0.5:
                    client.say_no_more()
                    client.rest()
            except ConnectionError:
                pass
    with Client(opened.server.address) as good:
        assert good.ask(b"hello\n") == b"hello\n"
    assert opened.is_quiet()


@pytest.mark.runners("threads", "forks")
@pytest.mark.families("tcp4", "unix")
def test_peers_that_never_read_hold_up_nobody(house: Open) -> None:
    def send_much(conn: Connection) -> None:
        if conn.readline() == b"much\n":
            conn.sendall(b"x" * 20_000_000)
        conn.sendall(b"done\n")

    opened = house(send_much, write_timeout=0.3)
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(Client(opened.server.address)).sendall(b"much\n")
        with Client(opened.server.address) as good:
            good.sendall(b"little\n")
            assert good.rest() == b"done\n"
        assert [opened.cause() for _ in range(11)].count(Cause.WRITE_STALLED) == 10
    assert opened.is_quiet()


def test_endless_line_takes_no_more_memory_than_its_limit() -> None:
    """`readline()` without a limit let one client take 300 MB."""

    def send_without_end(address: Any) -> int:
        sent = 0
        with Client(address) as client:
            try:
                while sent < 20_000_000:
                    sent += client.send(b"x" * 65536)
            except ConnectionError:
                pass
        return sent

    with crowd_server(handler="echo_lines", max_connections=50) as server:
        with Client(server.address) as first:
            assert first.ask(b"hello\n") == b"hello\n"
        floods = [Background(lambda: send_without_end(server.address)) for _ in range(30)]
        sent = sum(flood.result() for flood in floods)
        above = server.report()["VmHWM"] - server.idle["VmRSS"]
        print(f"{sent} bytes sent by 30 clients, {above} KiB above idle")
        assert above < 30 * 512
    assert not [line for line in server.log if "Traceback" in line]


def test_endless_block_takes_no_more_memory_than_its_limit(house: Open) -> None:
    def handle(conn: Connection) -> None:
        conn.read_until(b"the end", 100_000)

    opened = house(handle)
    client = opened.client()
    with pytest.raises(ConnectionError):
        for _ in range(10_000):
            client.sendall(os.urandom(10) * 1000)
    event = opened.end()
    assert event.cause is Cause.TOO_LARGE
    assert event.bytes_received < 300_000


# Oddities


@TCP
def test_urgent_data_is_data_of_nobody(house: Open) -> None:
    opened = house(echo_lines)
    client = opened.client()
    client.sendall(b"he")
    client.send(b"!", socket.MSG_OOB)
    client.sendall(b"llo\n")
    assert client.receive(6) == b"hello\n"
    client.close()
    assert opened.cause() is Cause.PEER_CLOSED


def test_one_byte_at_a_time_is_a_line_all_the_same(house: Open) -> None:
    client = house(echo_lines).client()
    for byte in b"hello, world\n":
        client.sendall(bytes([byte]))
    assert client.line() == b"hello, world\n"
