"""Unit tests of `moorage.socketserver.parking`."""

import socket
from collections.abc import Iterator

import pytest

from moorage.socketserver.loop import Loop
from moorage.socketserver.parking import limit_life, park
from support.sockets import pair


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_parked_request_goes_on_at_its_first_byte(loop: Loop) -> None:
    said: list[bool] = []
    with pair() as (ours, theirs):
        park(loop, ours, 10, said.append)
        loop.turn(0)
        assert said == []
        theirs.sendall(b"x")
        while not said:
            loop.turn(10)
        assert said == [True]
        loop.turn(0)
        assert said == [True]


def test_parked_request_goes_on_at_its_end(loop: Loop) -> None:
    said: list[bool] = []
    with pair() as (ours, theirs):
        park(loop, ours, None, said.append)
        theirs.close()
        while not said:
            loop.turn(10)
    assert said == [True]


def test_parked_request_is_given_up_at_the_timeout(loop: Loop) -> None:
    said: list[bool] = []
    with pair() as (ours, _):
        park(loop, ours, 0.02, said.append)
        while not said:
            loop.turn(10)
    assert said == [False]


def test_life_ends_at_the_limit(loop: Loop) -> None:
    with pair() as (ours, theirs):
        limit_life(loop, ours, 0.02)
        loop.turn(10)
        assert theirs.recv(1) == b""


def test_life_of_a_closed_request_is_left_alone(loop: Loop) -> None:
    with pair() as (ours, _):
        limit_life(loop, ours, 0.02)
        ours.close()
        loop.turn(10)


def test_life_of_a_datagram_is_not_limited(loop: Loop) -> None:
    with socket.socket() as listener:
        limit_life(loop, (b"data", listener), 0.0)
        loop.turn(0.05)
