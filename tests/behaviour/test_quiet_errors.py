"""Quiet errors: what the connection itself raised is a cause; everything else is an error with its traceback."""

import concurrent.futures
import errno
import logging
import os
import socket
import socketserver
from collections.abc import Callable

import pytest

from moorage import Connection, ConnectionEnded, Incomplete, TooLarge
from moorage.events import Cause
from support.client import Client
from support.house import House, Open

FEW = pytest.mark.families("tcp4", "unix")


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.INFO and record.exc_info]


def settled(opened: House) -> Cause:
    """How the connection ended; by then its lines are logged."""
    return opened.cause()


# The connection's own


def wait_for_line(conn: Connection) -> None:
    conn.readline()


def wait_for_block(conn: Connection) -> None:
    conn.read_exactly(100)


def wait_with_timeout(conn: Connection) -> None:
    conn.settimeout(0.05)
    conn.recv(1)


def wait_with_deadline(conn: Connection) -> None:
    with conn.deadline(0.05):
        conn.recv(1)


def write_much(conn: Connection) -> None:
    while True:
        conn.sendall(b"x" * 1_000_000)


@FEW
@pytest.mark.parametrize(
    ("handler", "settings", "act", "cause"),
    [
        (wait_with_timeout, {}, Client.rest, Cause.IDLE),
        (wait_with_deadline, {}, Client.rest, Cause.IDLE),
        (wait_for_line, {"idle_timeout": 0.05}, Client.rest, Cause.IDLE),
        (wait_for_line, {"line_limit": 10}, lambda c: c.sendall(b"x" * 20), Cause.TOO_LARGE),
        (wait_for_block, {"message_limit": 10}, Client.is_cut, Cause.TOO_LARGE),
        (wait_for_block, {}, lambda c: (c.sendall(b"half"), c.close()), Cause.PEER_CLOSED),
        (write_much, {}, lambda c: (c.receive(1), c.close()), Cause.RESET),
        (wait_for_line, {}, lambda c: None, Cause.CLOSED_BY_OPERATOR),
    ],
    ids=["timeout", "deadline", "idle", "line", "block", "incomplete", "reset", "operator"],
)
def test_error_of_the_connection_is_quiet(
    house: Open,
    caplog: pytest.LogCaptureFixture,
    handler: Callable[[Connection], None],
    settings: dict[str, float],
    act: Callable[[Client], object],
    cause: Cause,
) -> None:
    caplog.set_level(logging.DEBUG, "moorage")
    opened = house(handler, **settings)
    client = opened.client()
    act(client)
    if cause is Cause.CLOSED_BY_OPERATOR:
        opened.server.close()
    client.close()
    assert settled(opened) is cause
    assert opened.is_quiet()
    assert not errors(caplog)


@FEW
def test_error_of_the_connection_passed_on_by_a_library_is_quiet(house: Open) -> None:
    """The rule is about the object, not about the frames it went through."""

    def handle(conn: Connection) -> None:
        try:
            conn.settimeout(0.05)
            conn.recv(1)
        finally:
            conn.sendall(b"finally")

    opened = house(handle)
    assert opened.client().rest() == b"finally"
    assert settled(opened) is Cause.IDLE
    assert opened.is_quiet()


# The handler's own


def from_a_future(conn: Connection) -> None:
    concurrent.futures.Future[None]().result(timeout=0)


def from_a_future_after_a_timeout_of_the_connection(conn: Connection) -> None:
    conn.settimeout(0.02)
    try:
        conn.recv(1)
    except TimeoutError:
        from_a_future(conn)


def from_another_socket(conn: Connection) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(0.02)
        one.recv(1)


def from_a_database(conn: Connection) -> None:
    raise ConnectionResetError(errno.ECONNRESET, "the database went away")


def from_a_pipe(conn: Connection) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        os.write(write, b"x")
    finally:
        os.close(write)


def from_the_code(conn: Connection) -> None:
    conn.sendall("text")  # type: ignore[arg-type]  # the mistake that is shown


def looks_like_ours(conn: Connection) -> None:
    raise ConnectionEnded(Cause.IDLE)


@FEW
@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (from_a_future, "TimeoutError"),
        (from_a_future_after_a_timeout_of_the_connection, "TimeoutError"),
        (from_another_socket, "TimeoutError"),
        (from_a_database, "ConnectionResetError"),
        (from_a_pipe, "BrokenPipeError"),
        (from_the_code, "TypeError"),
        (looks_like_ours, "ConnectionEnded"),
    ],
)
def test_error_of_the_handler_is_logged_with_its_traceback(
    house: Open, caplog: pytest.LogCaptureFixture, handler: Callable[[Connection], None], kind: str
) -> None:
    opened = house(handler)
    opened.client().rest()
    assert settled(opened) is Cause.HANDLER_ERROR
    assert not opened.is_quiet()
    assert [record.levelno for record in errors(caplog)] == [logging.ERROR]
    assert kind in caplog.text
    assert handler.__name__ in caplog.text, "the traceback names the line"


@FEW
def test_error_of_a_class_handler_is_logged_once(house: Open, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            raise LookupError("no such thing")

    opened = house(Broken)
    opened.client().rest()
    assert settled(opened) is Cause.HANDLER_ERROR
    assert len(errors(caplog)) == 1
    assert "LookupError: no such thing" in caplog.text


def test_server_goes_on_after_an_error(house: Open) -> None:
    def handle(conn: Connection) -> None:
        if conn.readline() == b"fail\n":
            raise SystemExit("not the server's business")
        conn.sendall(b"fine")

    opened = house(handle)
    for request, reply in ((b"fail\n", b""), (b"x\n", b"fine"), (b"fail\n", b""), (b"x\n", b"fine")):
        with opened.client() as client:
            client.sendall(request)
            assert client.rest() == reply


def test_block_cut_short_tells_what_came(house: Open) -> None:
    def handle(conn: Connection) -> None:
        try:
            conn.read_exactly(10)
        except Incomplete as error:
            conn.sendall(error.partial)

    client = house(handle).client()
    client.sendall(b"12345")
    client.say_no_more()
    assert client.rest() == b"12345"


def test_line_too_long_may_be_answered(house: Open) -> None:
    def handle(conn: Connection) -> None:
        try:
            conn.readline()
        except TooLarge:
            conn.sendall(b"500 too long")

    client = house(handle, line_limit=1000).client()
    client.sendall(b"x" * 30_000)
    assert client.rest() == b"500 too long"
