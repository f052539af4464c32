"""FibersRunner: a fiber for each connection, and how those end that would rather not."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import greenlet
import pytest

from moorage.config import ServerSettings
from moorage.deadline import monotonic
from moorage.errors import HandlerStopped, SettingError
from moorage.events import Cause, ConnectionClosed, HandlerFailed
from moorage.handler import Service
from moorage.hub.hub import Hub
from moorage.runners import check_runner, make_watch
from moorage.runners.fibers import FibersRunner
from support.guests import Guest


class Floor:
    """A runner that is turned by the test, and its guests."""

    def __init__(self, handle: Callable[[Any], object]) -> None:
        self.hub = Hub()
        self.guests: list[Guest] = []
        self._first = Guest(begin=False)
        self.events = self._first.home.events
        self.sink = self._first.home.sink
        self.service = Service(handle, self.events)
        self.runner = FibersRunner(self.service, ServerSettings(runner="fibers"), self.hub, self.events)
        self.runner.start()

    def submit(self) -> Guest:
        guest = Guest(begin=False)
        guest.connection.id = len(self.guests)
        guest.connection._home = self._first.home
        guest.connection.queue()
        self.guests.append(guest)
        self.runner.submit(guest.connection)
        return guest

    def turn(self, count: int = 3) -> None:
        for _ in range(count):
            self.hub.turn(0)

    def close(self) -> None:
        for guest in [self._first, *self.guests]:
            guest.close()
        self.hub.close()
        self.runner._watchdog.stop()


@pytest.fixture
def floor() -> Iterator[Callable[..., Floor]]:
    floors: list[Floor] = []

    def make(handle: Callable[[Any], object]) -> Floor:
        floors.append(Floor(handle))
        return floors[-1]

    yield make
    for one in floors:
        one.close()


def echo(conn: Any) -> None:
    while data := conn.recv(100):
        conn.sendall(data)


def test_connections_are_served_side_by_side(floor: Callable[..., Floor]) -> None:
    one = floor(echo)
    guests = [one.submit() for _ in range(5)]
    for guest in guests:
        guest.arrive(b"x")
    one.turn()
    assert [guest.peer.recv(10) for guest in guests] == [b"x"] * 5
    for guest in guests:
        guest.peer.close()
    while one.hub.loop.busy:
        one.hub.turn(0)
    assert one.hub.loop.idle == 5
    assert [event.cause for event in one.sink.of(ConnectionClosed)] == [Cause.PEER_CLOSED] * 5


def test_connection_waits_in_the_loop(floor: Callable[..., Floor]) -> None:
    waiters: list[object] = []
    one = floor(lambda conn: waiters.append(conn._waiter))
    one.submit()
    one.turn()
    assert waiters == [one.hub.loop]


def test_caller_in_the_hubs_thread_must_not_wait(floor: Callable[..., Floor]) -> None:
    assert floor(echo).runner.has_this_thread()


def test_goodbyes_are_said_in_fibers_that_may_wait(floor: Callable[..., Floor]) -> None:
    one = floor(echo)
    said: list[int] = []

    def wait_for_the_other() -> None:
        while not said:
            one.hub.loop.give_way()
        said.append(1)

    one.runner.notify([wait_for_the_other, lambda: said.append(2)])
    one.turn()
    assert said == [2, 1]


def test_stop_of_an_idle_runner_is_quick(floor: Callable[..., Floor]) -> None:
    begun = monotonic()
    assert floor(echo).runner.stop(10.0) == []
    assert monotonic() - begun < 1.0


def test_stop_waits_for_who_is_about_to_leave(floor: Callable[..., Floor]) -> None:
    def handle(conn: Any) -> None:
        one.hub.loop.park(monotonic() + 0.05)

    one = floor(handle)
    one.submit()
    assert one.runner.stop(10.0) == []
    assert not one.sink.of(HandlerFailed)


def test_handler_that_waits_for_something_else_is_stopped_quietly(floor: Callable[..., Floor]) -> None:
    raised: list[BaseException] = []

    def handle(conn: Any) -> None:
        try:
            one.hub.loop.park()
        except BaseException as error:
            raised.append(error)
            raise

    one = floor(handle)
    guest = one.submit()
    one.turn()
    guest.connection.end(Cause.DRAIN_DEADLINE)
    assert one.runner.stop(0.0) == []
    assert [type(error) for error in raised] == [HandlerStopped]
    assert not one.sink.of(HandlerFailed)
    assert guest.connection.cause is Cause.DRAIN_DEADLINE


def test_goodbye_that_waits_for_ever_is_stopped_too(floor: Callable[..., Floor]) -> None:
    one = floor(echo)
    one.runner.notify([one.hub.loop.park])
    one.turn()
    assert one.runner.stop(0.0) == []
    assert one.hub.loop.busy == 0


def test_handler_that_cannot_be_stopped_is_told_of_and_gives_its_connection_up(floor: Callable[..., Floor]) -> None:
    def stubborn(conn: Any) -> None:
        while True:
            try:
                one.hub.loop.park()
            except BaseException:
                continue

    one = floor(stubborn)
    guest = one.submit()
    one.turn()
    guest.connection.end(Cause.CLOSED_BY_OPERATOR)
    [stack] = one.runner.stop(0.0)
    assert stack.startswith("connection 0:\n")
    assert "stubborn" in stack
    assert guest.connection.has_left or guest.connection.fileno() == -1
    assert guest.connection.cause is Cause.CLOSED_BY_OPERATOR


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, greenlet.GreenletExit])
def test_exception_of_a_handler_ends_nothing_else(floor: Callable[..., Floor], kind: type[BaseException]) -> None:
    def handle(conn: Any) -> None:
        if conn.recv(1) == b"r":
            raise kind("asked for")
        conn.sendall(b"served")

    one = floor(handle)
    one.service.ctrl_c = lambda: False
    bad, good = one.submit(), one.submit()
    bad.arrive(b"r")
    one.turn()
    good.arrive(b"x")
    one.turn()
    assert good.peer.recv(10) == b"served"
    assert bad.connection.cause is Cause.HANDLER_ERROR
    assert [type(event.error) for event in one.sink.of(HandlerFailed)] == [kind]


def test_ctrl_c_in_a_handler_is_raised_by_the_hub(floor: Callable[..., Floor]) -> None:
    def handle(conn: Any) -> None:
        raise KeyboardInterrupt

    one = floor(handle)
    guest = one.submit()
    with pytest.raises(KeyboardInterrupt):
        one.turn()
    assert guest.connection.cause is Cause.HANDLER_ERROR


# Without greenlet


@pytest.fixture
def without_greenlet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "greenlet", None)


@pytest.mark.usefixtures("without_greenlet")
@pytest.mark.parametrize("ask", [check_runner, make_watch])
def test_missing_greenlet_is_a_sentence_with_the_way_out(ask: Callable[[Any], object]) -> None:
    with pytest.raises(SettingError, match=r"needs greenlet, .*: install it with `pip install greenlet`"):
        ask(ServerSettings(runner="fibers"))


@pytest.mark.usefixtures("without_greenlet")
@pytest.mark.parametrize("runner", ["inline", "threads", "forks"])
def test_other_runners_do_without_greenlet(runner: Any) -> None:
    check_runner(ServerSettings(runner=runner))
    make_watch(ServerSettings(runner=runner)).close()
