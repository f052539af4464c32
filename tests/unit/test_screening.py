"""Screening: who is asked, and that whoever is turned away leaves nothing behind."""

import socket
from typing import Any

from moorage.events import Cause
from moorage.screening import Screening

PEER, LISTENER = ("192.0.2.1", 4711), object()


class Ticket:
    is_out = True

    def give_back(self) -> None:
        assert self.is_out
        self.is_out = False


class House:
    """A screening, its neighbours, and what they were told."""

    def __init__(self, *, early: bool = False, entered: Any = None, paced: bool = True, door: bool = True) -> None:
        self.told: list[Any] = []
        self.put = 0
        self._early, self._entered = early, entered
        self.screening = Screening(self if paced else None, self if door else None, self, self.admit)
        self.ticket = Ticket()

    def come(self) -> list[Any]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.screening.admit(ours, PEER, self.ticket, LISTENER)
        return self.told

    def refuses(self, addr: Any) -> bool:
        self.told.append("pace")
        return self._early

    def put_back(self) -> None:
        self.put += 1

    def enter(self, ticket: Any, addr: Any) -> Any:
        assert (ticket, addr) == (self.ticket, PEER)
        self.told.append("door")
        return self._entered or ticket

    def refuse(self, sock: Any, addr: Any, cause: Cause) -> None:
        assert addr == PEER
        assert not self.ticket.is_out
        self.told.append(cause)

    def admit(self, sock: Any, addr: Any, ticket: Any, listener: Any) -> None:
        assert (addr, listener) == (PEER, LISTENER)
        self.told.append(ticket)


def test_screening_hands_on_whom_nobody_turns_away() -> None:
    house = House()
    assert house.come() == ["pace", "door", house.ticket]
    assert house.ticket.is_out
    assert house.put == 0


def test_screening_hands_on_the_ticket_of_the_door() -> None:
    other = Ticket()
    assert House(entered=other).come()[-1] is other


def test_screening_refuses_who_comes_too_early_and_asks_nobody_else() -> None:
    house = House(early=True)
    assert house.come() == ["pace", Cause.REFUSED_RATE]
    assert house.put == 0


def test_screening_puts_the_turn_of_one_that_the_door_turns_away_back() -> None:
    house = House(entered=Cause.DENIED)
    assert house.come() == ["pace", "door", Cause.DENIED]
    assert house.put == 1


def test_screening_asks_only_whom_there_is() -> None:
    assert House(paced=False, entered=Cause.REFUSED_CLIENT).come() == ["door", Cause.REFUSED_CLIENT]
    assert House(door=False, early=True).come() == ["pace", Cause.REFUSED_RATE]
    house = House(door=False)
    assert house.come() == ["pace", house.ticket]
