"""Unit tests of `moorage.socketserver.loop`."""

import socket
import threading
from collections.abc import Iterator

import pytest

from moorage.admission import Gate
from moorage.socketserver.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_turn_says_that_a_client_may_be_there(loop: Loop, listener: socket.socket) -> None:
    loop.listen(listener.fileno())
    assert not loop.turn(0)
    with socket.create_connection(listener.getsockname()):
        assert loop.turn(10)


def test_end_wakes_a_turn_without_timeout(loop: Loop, listener: socket.socket) -> None:
    loop.listen(listener.fileno())
    ender = threading.Thread(target=loop.end)
    ender.start()
    assert not loop.turn(None)
    assert loop.is_ending
    ender.join()


def test_pause_leaves_the_client_in_the_backlog_until_it_is_over(loop: Loop, listener: socket.socket) -> None:
    loop.listen(listener.fileno())
    with socket.create_connection(listener.getsockname()):
        loop.pause(0.05)
        assert not loop.turn(0)
        assert loop.turn(10) or loop.turn(10)


def test_loop_that_waits_for_a_ticket_listens_again_when_one_is_free(loop: Loop, listener: socket.socket) -> None:
    gate = Gate(1)
    ticket = gate.take()
    assert ticket is not None
    loop.listen(listener.fileno())
    with socket.create_connection(listener.getsockname()):
        loop.wait_for(gate)
        assert bool(loop.is_waiting)
        assert not loop.turn(0)
        giver = threading.Thread(target=ticket.give_back)
        giver.start()
        assert loop.turn(10) or loop.turn(10)
        giver.join()
        is_waiting: bool = loop.is_waiting
    assert not is_waiting
