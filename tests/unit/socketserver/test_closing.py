"""Unit tests of `moorage.socketserver.closing`."""

import socket

import pytest

from moorage.socketserver.closing import close, half_close
from moorage.socketserver.engine import Engine
from support.sockets import FAMILIES, pair, read_all

families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@families
def test_half_close_ends_our_side_only(family: str) -> None:
    with pair(family) as (ours, theirs):
        half_close(ours)
        assert theirs.recv(1) == b""
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"


def test_half_close_of_a_request_that_is_gone_is_nothing() -> None:
    request = socket.socket()
    half_close(request)
    request.close()
    half_close(request)


@families
def test_close_without_a_loop_discards_what_is_there(family: str, engine: Engine) -> None:
    with pair(family) as (ours, theirs):
        theirs.sendall(b"unread")
        ours.sendall(b"reply")
        half_close(ours)
        close(engine, ours, 10)
        assert ours.fileno() == -1
        assert read_all(theirs) == b"reply"


@families
def test_close_lingers_in_the_loop_while_the_request_is_closed_at_once(family: str, engine: Engine) -> None:
    with pair(family) as (ours, theirs), engine.loop() as loop:
        ours.sendall(b"reply")
        half_close(ours)
        close(engine, ours, 10)
        assert ours.fileno() == -1
        assert len(engine.lingering) == 1
        theirs.sendall(b"late")
        assert read_all(theirs) == b"reply"
        theirs.close()
        while engine.lingering:
            loop.turn(10)


def test_close_is_at_once_when_the_peer_has_closed(engine: Engine) -> None:
    with pair() as (ours, theirs), engine.loop():
        theirs.close()
        assert ours.recv(1) == b""
        half_close(ours)
        close(engine, ours, 10)
        assert ours.fileno() == -1
        assert len(engine.lingering) == 0


def test_close_does_not_linger_beyond_the_limit(engine: Engine) -> None:
    with pair() as (ours, _), pair() as (other, _), engine.loop():
        for request in (ours, other):
            half_close(request)
            close(engine, request, 1)
            assert request.fileno() == -1
        assert len(engine.lingering) == 1
    assert len(engine.lingering) == 0, "the end of the loop closes what lingers"


def test_close_waits_for_no_timeout_of_the_request(engine: Engine) -> None:
    """MSG_DONTWAIT alone does not do: Python waits for the socket's timeout first."""
    with pair() as (ours, theirs):
        ours.settimeout(1000)
        half_close(ours)
        close(engine, ours, 10)
        assert theirs.recv(1) == b""


def test_close_leaves_the_open_files_of_the_program_alone(engine: Engine) -> None:
    with pair() as (ours, theirs), engine.loop():
        file = ours.makefile("rb")
        half_close(ours)
        close(engine, ours, 10)
        theirs.sendall(b"x\n")
        assert file.readline() == b"x\n"
        file.close()
        assert ours.fileno() == -1


def test_close_in_a_child_process_lingers_there(engine: Engine) -> None:
    child = Engine(inherited=engine)
    with pair() as (ours, theirs):
        theirs.sendall(b"unread")
        theirs.shutdown(socket.SHUT_WR)
        half_close(ours)
        close(child, ours, 10)
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""


def test_close_while_the_loop_is_being_closed_leaves_nothing_open(engine: Engine) -> None:
    with pair() as (ours, theirs), engine.loop() as loop:
        loop.close()
        half_close(ours)
        close(engine, ours, 10)
        assert not engine.lingering
        assert theirs.recv(1) == b""
