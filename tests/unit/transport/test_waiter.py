"""Waiter: the contract; every runner's way to wait keeps it."""

import socket
from collections.abc import Iterator

import pytest

from moorage.runners.inline import TurningWaiter
from moorage.runners.waiters import PlainWaiter, WakeableWaiter
from moorage.transport.stream import READ, WRITE
from moorage.transport.waiter import Waiter
from moorage.watch import Watch
from support.sockets import pair


@pytest.fixture(params=["plain", "wakeable", "turning"])
def waiter(request: pytest.FixtureRequest) -> Iterator[Waiter]:
    watch = Watch()
    waiters: dict[str, Waiter] = {
        "plain": PlainWaiter(),
        "wakeable": WakeableWaiter(),
        "turning": TurningWaiter(watch),
    }
    yield waiters[request.param]
    watch.close()


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with pair() as ends:
        yield ends


def test_waiter_says_when_the_socket_is_ready(waiter: Waiter, sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    assert waiter.wait(ours, WRITE, 20)
    theirs.send(b"x")
    assert waiter.wait(ours, READ, 20)
    assert waiter.wait(ours, READ, None)


def test_waiter_says_when_the_time_is_over(waiter: Waiter, sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = sockets
    assert not waiter.wait(ours, READ, 0)
    assert not waiter.wait(ours, READ, 0.001)


def test_waiter_sees_the_peer_leave(waiter: Waiter, sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    theirs.close()
    assert waiter.wait(ours, READ, 20)
