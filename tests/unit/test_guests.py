"""Guests: who is here, and who is told when one less is, on both twins."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from moorage.events import Events
from support.twins import BOTH, twin


@pytest.fixture(params=BOTH)
def guests(request: pytest.FixtureRequest) -> Any:
    guests = twin(request.param, "moorage.guests").Guests("settings", "watch", Events())
    for number in (1, 2):
        guests._guests[number] = SimpleNamespace(id=number)
    return guests


def test_guests_are_those_who_were_not_forgotten(guests: Any) -> None:
    first, second = guests
    guests.forget(first)
    assert (len(guests), list(guests)) == (1, [second])


def test_guest_forgotten_twice_is_forgotten_once(guests: Any) -> None:
    first, _ = guests
    guests.forget(first)
    guests.forget(first)
    assert len(guests) == 1


def test_guests_can_be_forgotten_while_one_looks_at_them(guests: Any) -> None:
    for guest in guests:
        guests.forget(guest)
    assert len(guests) == 0


def test_last_guest_of_a_drain_is_told(guests: Any) -> None:
    told: list[int] = []
    guests.on_empty = lambda: told.append(len(guests))
    first, second = guests
    guests.draining = True
    guests.forget(first)
    assert told == []
    guests.forget(second)
    assert told == [0]


def test_last_guest_is_nobodys_affair_without_a_drain(guests: Any) -> None:
    told: list[int] = []
    guests.on_empty = lambda: told.append(1)
    for guest in guests:
        guests.forget(guest)
    assert told == []


def test_watcher_is_told_of_every_guest_that_leaves(guests: Any) -> None:
    seen: list[int] = []
    watching = threading.Event()

    def watch() -> None:
        with guests._fewer:
            guests._watchers += 1
            watching.set()
            while len(guests):
                guests._fewer.wait(20)
                seen.append(len(guests))
            guests._watchers -= 1

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert watching.wait(20)
    for guest in guests:
        guests.forget(guest)
    watcher.join(20)
    assert not watcher.is_alive()
    assert seen[-1] == 0


def test_guests_have_what_a_home_has(guests: Any) -> None:
    assert (guests.settings, guests.watch, guests.draining) == ("settings", "watch", False)
