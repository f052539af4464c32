"""Pace: whose turn it is, and who gets it when somebody does not come in after all."""

from typing import Any

import pytest

from moorage.events import Cause, Event, Events, RefusalObserved
from moorage.pace import Pace
from moorage.rates import Memory

PEER = ("192.0.2.1", 4711)


class House:
    def __init__(self, burst: int = 2, **settings: Any) -> None:
        self.now = 1000.0
        self.said: list[Event] = []
        events = Events()
        events.subscribe(self.said.append)
        self.pace = Pace(Memory().rate(1, burst), events, clock=lambda: self.now, **settings)


def test_pace_where_clients_wait_gives_a_turn_with_what_is_taken() -> None:
    house, given = House(waits=True), [1, 2, 3]
    assert [house.pace.turn_with(given.pop) for _ in range(4)] == [3, 2, None, None]
    assert given == [1], "without a turn nothing is taken"
    assert house.pace.delay == 1.0
    house.now += house.pace.delay
    assert house.pace.turn_with(given.pop) == 1
    assert house.pace.delay == 0.0


def test_pace_keeps_the_turn_of_one_that_finds_no_place() -> None:
    house = House(waits=True)
    assert [house.pace.turn_with(lambda: None) for _ in range(100)] == [None] * 100
    assert house.pace.delay == 0.0, "it is not for us that he waits"
    assert [house.pace.turn_with(lambda: 1) for _ in range(3)] == [1, 1, None]


def test_pace_where_clients_wait_refuses_nobody() -> None:
    house = House(waits=True, burst=1)
    assert not any(house.pace.refuses(PEER) for _ in range(10))


def test_pace_that_refuses_does_so_above_the_rate() -> None:
    house = House(waits=False)
    assert [house.pace.refuses(PEER) for _ in range(4)] == [False, False, True, True]
    assert house.pace.delay == 0.0
    assert house.said == []
    house.now += 1
    assert not house.pace.refuses(PEER)


def test_pace_turn_is_put_back_once_and_only_if_there_was_one() -> None:
    house = House(waits=False)
    assert not house.pace.refuses(PEER)
    house.pace.put_back()
    house.pace.put_back()
    assert [house.pace.refuses(PEER) for _ in range(3)] == [False, False, True]
    house.pace.put_back()
    assert house.pace.refuses(PEER)


@pytest.mark.parametrize("waits", [False, True])
def test_pace_when_nobody_came_puts_back_only_what_was_taken_before(waits: bool) -> None:
    house = House(waits=waits)
    house.pace.turn_with(lambda: 1) if waits else house.pace.refuses(PEER)
    house.pace.nobody_came()
    left = sum(bool(house.pace.turn_with(lambda: 1)) if waits else not house.pace.refuses(PEER) for _ in range(5))
    assert left == (2 if waits else 1), "of one who was accepted and let in, nothing comes back"


@pytest.mark.parametrize("waits", [False, True])
def test_pace_that_only_observes_lets_all_in_and_says_whom_not(waits: bool) -> None:
    house = House(waits=waits, observes=True)
    assert not house.pace.waits
    assert not any(house.pace.refuses(PEER) for _ in range(5))
    assert house.said == [RefusalObserved(PEER, Cause.REFUSED_RATE)] * 3
