"""InlineRunner: one at a time, and the Watch goes on turning while the handler waits."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from moorage.config import ServerSettings
from moorage.connection import Connection
from moorage.deadline import monotonic
from moorage.errors import ConnectionEnded
from moorage.events import Cause, Events
from moorage.runners.inline import InlineRunner, TurningWaiter
from moorage.transport.stream import READ, WRITE
from moorage.watch import Watch
from support.guests import Guest
from support.waiting import in_thread


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.close()


def make(watch: Watch, serve: Any) -> InlineRunner:
    runner = InlineRunner(serve, ServerSettings(), watch, Events())
    runner.start()
    return runner


@pytest.fixture
def guests() -> Iterator[list[Guest]]:
    guests = [Guest(begin=False) for _ in range(3)]
    for guest in guests:
        guest.connection.queue()
    yield guests
    for guest in guests:
        guest.close()


def test_connection_is_served_before_submit_returns_in_the_same_thread(watch: Watch, guests: list[Guest]) -> None:
    served: list[tuple[Connection, threading.Thread]] = []
    runner = make(watch, lambda connection: served.append((connection, threading.current_thread())))
    runner.submit(guests[0].connection)
    assert served == [(guests[0].connection, threading.current_thread())]
    assert runner.at_once == 1


def test_connection_that_comes_while_a_handler_waits_is_served_after_it(watch: Watch, guests: list[Guest]) -> None:
    steps: list[str] = []

    def serve(connection: Connection) -> None:
        number = [guest.connection for guest in guests].index(connection)
        steps.append(f"{number} begins")
        if number == 0:
            watch.call_soon(lambda: runner.submit(guests[1].connection))
            watch.call_soon(lambda: runner.submit(guests[2].connection))
            watch.call_soon(lambda: guests[0].peer.sendall(b"x"))
            assert connection.recv(1) == b"x"
        steps.append(f"{number} ends")

    runner = make(watch, serve)
    runner.submit(guests[0].connection)
    assert steps == [f"{number} {step}" for number in range(3) for step in ("begins", "ends")]


def test_handler_that_raises_leaves_the_runner_usable(watch: Watch, guests: list[Guest]) -> None:
    served: list[Connection] = []

    def serve(connection: Connection) -> None:
        served.append(connection)
        if len(served) == 1:
            raise KeyboardInterrupt

    runner = make(watch, serve)
    with pytest.raises(KeyboardInterrupt):
        runner.submit(guests[0].connection)
    runner.submit(guests[1].connection)
    assert len(served) == 2


def test_deadlines_are_kept_while_the_handler_waits(watch: Watch, guests: list[Guest]) -> None:
    ends: list[BaseException] = []

    def serve(connection: Connection) -> None:
        watch.call_at(watch._clock() + 0.01, lambda: connection.end(Cause.LIFETIME))
        try:
            connection.recv(1)
        except ConnectionEnded as error:
            ends.append(error)

    make(watch, serve).submit(guests[0].connection)
    assert len(ends) == 1


def test_handler_that_waits_is_told_by_a_drain(watch: Watch, guests: list[Guest]) -> None:
    received: list[bytes] = []

    def serve(connection: Connection) -> None:
        watch.call_soon(connection.tell)
        received.append(connection.recv(1))

    make(watch, serve).submit(guests[0].connection)
    assert received == [b""]


def test_wait_parks_the_socket_only_while_it_lasts(watch: Watch, guests: list[Guest]) -> None:
    waiter = TurningWaiter(watch)
    assert not waiter.wait(guests[0].sock, READ, 0)
    assert watch._parked == {}
    guests[0].peer.send(b"x")
    assert waiter.wait(guests[0].sock, READ, 20)
    assert watch._parked == {}

    def fail() -> None:
        raise ZeroDivisionError

    watch.call_soon(fail)
    with pytest.raises(ZeroDivisionError):
        waiter.wait(guests[0].sock, READ, 20)
    assert watch._parked == {}


def test_wake_ends_the_turn(watch: Watch, guests: list[Guest]) -> None:
    waiter = TurningWaiter(watch)
    waiter.wake(guests[0].sock)
    assert not waiter.wait(guests[0].sock, READ, 20)


def test_wait_that_a_hook_makes_within_the_wait_of_the_handler_costs_neither(watch: Watch, guests: list[Guest]) -> None:
    """As `handle_shutdown` does, which runs in the turn and may write to the same socket."""
    answers: list[bool] = []
    received: list[bytes] = []
    waiter = TurningWaiter(watch)

    def hook() -> None:
        answers.append(waiter.wait(guests[0].sock, WRITE, 20))
        answers.append(waiter.wait(guests[0].sock, READ, 0))
        guests[0].peer.sendall(b"x")

    def serve(connection: Connection) -> None:
        watch.call_soon(hook)
        received.append(connection.recv(1))

    make(watch, serve).submit(guests[0].connection)
    assert answers == [True, False]
    assert received == [b"x"]
    assert watch._parked == {}


def test_handlers_that_wait_never_nest(watch: Watch, guests: list[Guest]) -> None:
    """Each connection comes while the one before it waits."""
    inside: list[Connection] = []
    depths: list[int] = []

    def come(number: int) -> None:
        if number < len(guests):
            runner.submit(guests[number].connection)
        guests[number - 1].peer.sendall(b"x")

    def serve(connection: Connection) -> None:
        inside.append(connection)
        number = [guest.connection for guest in guests].index(connection) + 1
        watch.call_soon(lambda: come(number))
        connection.recv(1)
        depths.append(len(inside))
        inside.remove(connection)

    runner = make(watch, serve)
    runner.submit(guests[0].connection)
    assert depths == [1, 1, 1]


def test_those_who_wait_behind_a_handler_that_raised_are_served_with_the_next(
    watch: Watch, guests: list[Guest]
) -> None:
    served: list[Connection] = []

    def serve(connection: Connection) -> None:
        served.append(connection)
        if len(served) == 1:
            runner.submit(guests[1].connection)
            raise KeyboardInterrupt

    runner = make(watch, serve)
    with pytest.raises(KeyboardInterrupt):
        runner.submit(guests[0].connection)
    runner.submit(guests[2].connection)
    assert served == [guest.connection for guest in guests]


def test_timers_fire_and_calls_are_made_while_the_handler_waits(watch: Watch, guests: list[Guest]) -> None:
    made: list[str] = []

    def fire() -> None:
        made.append("timer")
        guests[0].peer.sendall(b"x")

    def serve(connection: Connection) -> None:
        watch.call_soon(lambda: made.append("call"))
        watch.call_at(monotonic() + 0.01, fire)
        connection.recv(1)

    make(watch, serve).submit(guests[0].connection)
    assert made == ["call", "timer"]


def test_wake_from_another_thread_ends_a_wait_without_a_timeout(watch: Watch, guests: list[Guest]) -> None:
    waiter = TurningWaiter(watch)
    with in_thread(lambda: waiter.wait(guests[0].sock, READ, None)) as waiting:
        waiting.wait_asleep()
        waiter.wake(guests[0].sock)
        assert waiting.result() is False
