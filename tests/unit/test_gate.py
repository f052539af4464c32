"""Gate: never more tickets than the limit, each back exactly once, on both twins."""

import signal
import sys
import threading

import pytest

from moorage.errors import SettingError
from moorage.gate import Gate, Ticket
from support.twins import BOTH, twin


@pytest.fixture(autouse=True, params=BOTH)
def each_twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "Gate", twin(request.param, "moorage.gate").Gate)


def take(gate: Gate) -> Ticket:
    ticket = gate.take()
    assert ticket is not None
    return ticket


def test_gate_gives_tickets_up_to_its_limit() -> None:
    gate = Gate(2)
    assert (gate.free, gate.taken) == (2, 0)
    take(gate), take(gate)
    assert (gate.free, gate.taken) == (0, 2)
    assert gate.take() is None


def test_ticket_given_back_can_be_taken_again() -> None:
    gate = Gate(1)
    take(gate).give_back()
    assert gate.free == 1
    take(gate)
    assert gate.take() is None


def test_ticket_given_back_twice_counts_once() -> None:
    gate = Gate(2)
    first, _second = take(gate), take(gate)
    first.give_back()
    first.give_back()
    assert gate.free == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_gate_without_a_single_ticket_is_refused(limit: int) -> None:
    with pytest.raises(SettingError, match=f"max_connections is {limit}"):
        Gate(limit)


def test_waiter_is_called_in_the_thread_that_gives_back() -> None:
    gate = Gate(1)
    ticket = take(gate)
    called: list[threading.Thread] = []
    gate.when_free(lambda: called.append(threading.current_thread()))
    assert called == []
    giver = threading.Thread(target=ticket.give_back)
    giver.start()
    giver.join()
    assert called == [giver]


def test_waiter_is_called_once() -> None:
    gate = Gate(1)
    ticket = take(gate)
    called: list[int] = []
    gate.when_free(lambda: called.append(1))
    ticket.give_back()
    take(gate).give_back()
    assert called == [1]


def test_waiter_is_called_at_once_when_a_ticket_is_free() -> None:
    called: list[int] = []
    Gate(1).when_free(lambda: called.append(1))
    assert called == [1]


def test_all_waiters_are_called_for_one_ticket() -> None:
    """The first may have no client to give it to."""
    gate = Gate(1)
    ticket = take(gate)
    called: list[int] = []
    for number in range(3):
        gate.when_free(lambda number=number: called.append(number))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    ticket.give_back()
    assert called == [0, 1, 2]


def test_waiter_that_finds_no_ticket_may_wait_again() -> None:
    gate = Gate(1)
    ticket = take(gate)
    found: list[Ticket | None] = []

    def try_again() -> None:
        found.append(gate.take())
        if found[-1] is None:
            gate.when_free(try_again)

    gate.when_free(lambda: found.append(gate.take()))
    gate.when_free(try_again)
    ticket.give_back()
    assert [one is None for one in found] == [False, True]
    assert found[0] is not None
    found[0].give_back()
    assert [one is None for one in found] == [False, True, False]


def test_limit_holds_between_threads() -> None:
    gate, rounds = Gate(5), 3000
    most = [0] * 8

    def work(number: int) -> None:
        for _ in range(rounds):
            ticket = gate.take()
            if ticket is not None:
                most[number] = max(most[number], gate.taken)
                ticket.give_back()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 5
    assert gate.free == 5


def test_one_ticket_given_back_by_many_threads_counts_once() -> None:
    gate = Gate(3)
    for _ in range(200):
        ticket = take(gate)
        start = threading.Barrier(4)

        def give_back(ticket: Ticket = ticket, start: threading.Barrier = start) -> None:
            start.wait()
            ticket.give_back()

        threads = [threading.Thread(target=give_back) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert gate.free == 3


def test_signal_handler_may_give_back_while_the_same_thread_takes() -> None:
    """Nothing here may hold a lock: the handler would wait for itself."""
    gate = Gate(4)
    given: list[int] = []

    def give_back(*_: object) -> None:
        ticket = gate.take()
        if ticket is not None:
            ticket.give_back()
        given.append(1)

    before = signal.signal(signal.SIGALRM, give_back)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while len(given) < 20:
            gate.when_free(lambda: None)
            ticket = gate.take()
            if ticket is not None:
                ticket.give_back()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert gate.free == 4
