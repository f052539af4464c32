"""Shedding: whom it closes, how many, and how often it looks."""

import pytest

from moorage.events import Cause
from moorage.shedding import AT_ONCE, Shedding

START = 1000.0


class Guest:
    def __init__(self, id: int, quiet_since: float | None) -> None:
        self.id = id
        self.cause: Cause | None = None
        self.has_left = False
        self._since = quiet_since
        self.looks = 0

    def quiet_since(self) -> float | None:
        self.looks += 1
        return None if self.cause else self._since

    def end(self, cause: Cause) -> None:
        assert self.cause is None
        self.cause = cause


class Listener:
    """So many wait here."""

    def __init__(self, waiting: int | None = 1, error: OSError | None = None) -> None:
        self._waiting, self._error = waiting, error

    def backlog_length(self) -> int | None:
        if self._error is not None:
            raise self._error
        return self._waiting


class House:
    def __init__(self, *since: float | None, idle: float = 10.0, cost: float = 0.0) -> None:
        self.guests = [Guest(number, moment) for number, moment in enumerate(since)]
        self.now, self._cost = START, cost
        self.shedding = Shedding(self.guests, idle, self._clock)

    def _clock(self) -> float:
        before, self.now = self.now, self.now + self._cost
        return before

    def closed(self) -> list[int]:
        return [guest.id for guest in self.guests if guest.cause is Cause.SHED]

    def looks(self) -> int:
        return self.guests[0].looks


def test_shedding_closes_the_longest_idle_first_and_no_more_than_are_wanted() -> None:
    house = House(START - 20, START - 40, START - 30, START - 50, None)
    assert house.shedding.make_room(Listener(2))
    assert house.closed() == [1, 3]


def test_shedding_closes_nobody_who_was_idle_for_less() -> None:
    house = House(START - 9.9, None, START)
    assert not house.shedding.make_room(Listener(5))
    assert house.closed() == []
    assert house.shedding.again_at == pytest.approx(START + 0.1)


def test_shedding_of_none_idle_is_worth_asking_when_somebody_may_be() -> None:
    assert not (house := House(START - 3, START - 1)).shedding.make_room(Listener(1))
    assert house.shedding.again_at == START + 7
    assert not (house := House(None, None)).shedding.make_room(Listener(1))
    assert house.shedding.again_at == START + 10


def test_shedding_counts_those_on_their_way_out() -> None:
    house = House(*[START - 20] * 5)
    assert house.shedding.make_room(Listener(2))
    house.now += 0.1
    assert house.shedding.make_room(Listener(2))
    assert len(house.closed()) == 2, "they are still leaving"
    house.now += 0.1
    assert house.shedding.make_room(Listener(3))
    assert len(house.closed()) == 3
    for guest in house.guests[:3]:
        house.guests.remove(guest)
    house.now += 0.1
    assert house.shedding.make_room(Listener(1))
    assert len(house.closed()) == 1


def test_shedding_looks_ten_times_a_second_at_most() -> None:
    house = House(START - 20, START - 20, START - 20)
    for _ in range(100):
        assert house.shedding.make_room(Listener(1))
        assert house.shedding.again_at == pytest.approx(START + 0.1)
    assert house.looks() == 1
    house.now = START + 0.1
    house.shedding.make_room(Listener(2))
    assert len(house.closed()) == 2


def test_shedding_that_is_expensive_takes_a_tenth_of_the_time() -> None:
    house = House(None, cost=0.5)
    house.shedding.make_room(Listener(1))
    assert house.shedding.again_at == START + 10, "nobody can be idle before"
    house.now = START + 4.9
    house.shedding.make_room(Listener(1))
    assert house.looks() == 1
    house.now = START + 5.1
    house.shedding.make_room(Listener(1))
    assert house.looks() == 2


def test_shedding_leaves_those_alone_who_only_linger() -> None:
    house = House(START - 20, START - 20)
    house.guests[0].has_left = True
    assert house.shedding.make_room(Listener(2))
    assert house.closed() == [1]


def test_shedding_closes_a_few_at_one_look() -> None:
    house = House(*[START - 20] * 200)
    house.shedding.make_room(Listener(1000))
    assert len(house.closed()) == AT_ONCE


@pytest.mark.parametrize("listener", [Listener(None), Listener(0), Listener(error=OSError(9, "Bad file descriptor"))])
def test_shedding_for_who_knows_how_many_closes_one(listener: Listener) -> None:
    house = House(START - 20, START - 30)
    assert house.shedding.make_room(listener)
    assert house.closed() == [1]
