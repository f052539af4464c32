"""Fibers: what a handler that shares its thread with all the others may do, and how it is stopped."""

import builtins
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import greenlet
import pytest

from moorage.connection import Connection
from moorage.events import Cause
from moorage.locks import Event
from support.house import Journal, Latch, Open, connected

#: what a fiber is does not depend on what its connection carries
pytestmark = [pytest.mark.runners("fibers"), pytest.mark.security("plain")]

SRC = Path(__file__).parents[2] / "src"


def echo(conn: Connection) -> None:
    while data := conn.recv(8192):
        conn.sendall(data)


# One thread


def test_ten_times_more_clients_than_an_idle_pool_keeps_are_served_by_one_thread(house: Open) -> None:
    opened = house(echo)
    assert opened.client().ask(b"x") == b"x"  # by now the watchdog is there, too
    before = threading.active_count()
    with connected(opened, 640) as clients:
        for client in clients:
            client.sendall(b"x")
        for client in clients:
            assert client.receive(1) == b"x"
        assert threading.active_count() == before
        assert len(opened.server.connections) == 641


@pytest.mark.parametrize("name", ["ValueError", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "GreenletExit"])
def test_exception_of_a_handler_ends_its_connection_and_no_other(house: Open, name: str) -> None:
    error = getattr(builtins, name, None) or getattr(greenlet, name)

    def handle(conn: Connection) -> None:
        if conn.recv(1) == b"r":
            raise error("asked for")
        echo(conn)

    opened = house(handle)
    good, bad = opened.client(), opened.client()
    good.sendall(b"e")
    assert good.ask(b"x") == b"x"
    bad.sendall(b"r")
    assert bad.is_cut()
    assert opened.cause() is Cause.HANDLER_ERROR
    assert type(opened.failure()) is error
    assert good.ask(b"y") == b"y"
    with connected(opened, 1) as (late,):
        late.sendall(b"e")
        assert late.ask(b"z") == b"z"


# Being stopped


@pytest.mark.families("tcp4")
@pytest.mark.parametrize("verb", ["drain", "close"])
def test_handler_that_waits_for_something_else_is_stopped_quietly(
    house: Open, latch: Latch, journal: Journal, verb: str
) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(b"!")
        try:
            latch.wait()
        except BaseException as error:
            journal.write(type(error).__name__)
            raise

    opened = house(handle, drain_timeout=0.1)
    client = opened.client()
    assert client.receive(1) == b"!"
    begun = time.monotonic()
    getattr(opened.server, verb)()
    assert time.monotonic() - begun < 4.0
    assert client.is_cut()
    assert journal.read() == "HandlerStopped"
    assert opened.cause() is (Cause.DRAIN_DEADLINE if verb == "drain" else Cause.CLOSED_BY_OPERATOR)
    assert opened.is_quiet()
    assert not opened._stacks._events


@pytest.mark.families("tcp4")
def test_handler_that_cannot_be_stopped_is_told_of_and_its_connection_closed(house: Open) -> None:
    never = Event()

    def stubborn(conn: Connection) -> None:
        conn.sendall(b"!")
        while True:
            try:
                never.wait()
            except BaseException:
                continue

    opened = house(stubborn)
    client = opened.client()
    assert client.receive(1) == b"!"
    opened.server.close()
    assert client.is_cut()
    assert "stubborn" in opened.stacks()[0]
    assert opened.cause() is Cause.CLOSED_BY_OPERATOR
    assert opened.server.wait_for_connections(0, 0)


@pytest.mark.families("tcp4")
def test_handler_that_is_stopped_may_put_its_things_away(house: Open, latch: Latch, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(b"!")
        try:
            latch.wait()
        finally:
            Event().wait(0.05)
            journal.write("put away")

    opened = house(handle)
    client = opened.client()
    assert client.receive(1) == b"!"
    opened.server.close()
    assert journal.read() == "put away"
    assert opened.is_quiet()


# Leaving the interpreter

HEAD = f"""
import os, signal, socket, sys, threading
sys.path.insert(0, {str(SRC)!r})
from moorage import Server
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
def echo(conn):
    while data := conn.recv(100):
        conn.sendall(data)
def lines(conn):
    for line in conn.rfile:
        conn.wfile.write(line)
def connect(count=20):
    clients = [socket.create_connection(server.address, 20) for _ in range(count)]
    for client in clients:
        client.sendall(b"x\\n")
        assert client.recv(10) == b"x\\n"
    return clients
def interrupt():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
"""

LEAVING = {
    "exit": """
server = Server(echo, "127.0.0.1:0", runner="fibers").start()
clients = connect()
sys.exit()
""",
    "exit while lines are read": """
server = Server(lines, "127.0.0.1:0", runner="fibers").start()
clients = connect()
clients[0].sendall(b"half a line")
sys.exit()
""",
    "end of the program": """
server = Server(echo, "127.0.0.1:0", runner="fibers").start()
clients = connect()
del server
""",
    "end while the hub is busy": """
server = Server(echo, "127.0.0.1:0", runner="fibers").start()
def ask():
    client, = connect(1)
    try:
        while True:
            client.sendall(b"x")
            client.recv(10)
            begun.set()
    except OSError:
        pass
begun = threading.Event()
threading.Thread(target=ask, daemon=True).start()
begun.wait(20)
""",
    "ctrl-c while all wait": """
def client():
    clients = connect()
    while not server.watch.loop.asleep:  # the last reply is out before its handler waits again
        threading.Event().wait(0.01)
    interrupt()
    assert all(client.recv(1) == b"" for client in clients)
server = Server(echo, "127.0.0.1:0", runner="fibers", worker_start=lambda _: threading.Thread(target=client).start())
try:
    server.serve_forever()
except KeyboardInterrupt:
    assert server.fileno() == -1 and not server.connections
else:
    raise AssertionError("not interrupted")
""",
    "ctrl-c while a handler computes": """
from moorage.events import Cause, ConnectionClosed
ends = []
def compute(conn):
    interrupt()
    while True:
        pass
server = Server(compute, "127.0.0.1:0", runner="fibers", log_level="error",
                worker_start=lambda _: threading.Thread(target=lambda: kept.append(socket.create_connection(address))).start())
server.events.subscribe(lambda event: ends.append(event.cause), ConnectionClosed)
kept = []
server.bind()
address = server.address
import logging
logging.getLogger("moorage").addHandler(logging.NullHandler())
try:
    server.serve_forever()
except KeyboardInterrupt:
    assert ends == [Cause.HANDLER_ERROR], ends
else:
    raise AssertionError("not interrupted")
""",
    "a handler's own KeyboardInterrupt is no Ctrl-C": """
import logging
logging.getLogger("moorage").addHandler(logging.NullHandler())
def handle(conn):
    if conn.recv(1) == b"k":
        raise KeyboardInterrupt
    conn.sendall(b"!")
def client():
    with socket.create_connection(server.address, 20) as bad:
        bad.sendall(b"k")
        assert bad.recv(1) == b""
    with socket.create_connection(server.address, 20) as good:
        good.sendall(b"g")
        told.append(good.recv(1))
    server.drain()
told = []
server = Server(handle, "127.0.0.1:0", runner="fibers", worker_start=lambda _: threading.Thread(target=client).start())
server.serve_forever()
assert told == [b"!"]
""",
    "a handler that cannot be stopped": """
from moorage.locks import Event
import gc, logging
logging.getLogger("moorage").addHandler(logging.NullHandler())
never = Event()
def stubborn(conn):
    conn.sendall(b"!")
    while True:
        try:
            never.wait()
        except BaseException:
            continue
def client():
    with socket.create_connection(server.address, 20) as one:
        assert one.recv(1) == b"!"
        server.close()
server = Server(stubborn, "127.0.0.1:0", runner="fibers", worker_start=lambda _: threading.Thread(target=client).start())
server.serve_forever()
del server
gc.collect()
""",
}


@pytest.mark.parametrize("leaving", LEAVING)
def test_interpreter_is_left_without_a_word(leaving: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + LEAVING[leaving]], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"(the drain ended after [\d.]+ s: \d+ connections? cut\n)?", done.stderr), done.stderr
