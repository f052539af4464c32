"""Who takes the clients that wait: on rows and a clock that the test moves."""

import pytest

from moorage.processes.spread import FRESH_SECONDS, LOOK_SECONDS, SLACK, UNTOLD, Spread
from support.clock import FakeClock


class FakeRow:
    """What one worker says of itself."""

    def __init__(self, index: int, open: int, now: float) -> None:
        self.index = index
        self.heartbeat = now
        self.numbers = {"open": open, "accepting": 1}

    def get(self, name: str) -> int:
        return self.numbers[name]

    def set(self, name: str, value: int) -> None:
        self.numbers[name] = value

    @property
    def is_accepting(self) -> bool:
        return self.numbers["accepting"] == 1


class Crew:
    """Workers with so many connections each."""

    def __init__(self, *open: int) -> None:
        self.clock = FakeClock()
        self.board = [FakeRow(index, count, self.clock.now) for index, count in enumerate(open)]
        self.looks = 0
        self.spreads = [Spread(self, row, self.clock) for row in self.board]

    def rows(self) -> list[FakeRow]:
        self.looks += 1
        return self.board

    def ask(self, index: int, waiting: int | None = 1) -> int:
        return self.spreads[index].share(waiting)


def test_share_of_the_only_worker_is_everything() -> None:
    crew = Crew(1000)
    assert [crew.ask(0, waiting) for waiting in (1, 7, 500, None)] == [1, 7, 500, UNTOLD]


def test_share_of_equals_is_an_equal_part_and_at_least_one() -> None:
    crew = Crew(10, 10, 10, 10)
    assert [crew.ask(0, waiting) for waiting in (1, 4, 5, 100)] == [1, 1, 2, 25]
    assert crew.ask(1, None) >= 1


def test_share_of_a_worker_far_above_the_emptiest_is_nothing() -> None:
    crew = Crew(100, 0, 50)
    assert [crew.ask(index) for index in range(3)] == [0, 1, 0]


@pytest.mark.parametrize("above", [0, SLACK])
def test_share_of_a_worker_slightly_above_the_emptiest_is_its_part(above: int) -> None:
    assert Crew(above, 0).ask(0, 10) == 5


def test_share_slack_grows_as_chance_does() -> None:
    assert Crew(10_100, 10_000).ask(0) == 1
    assert Crew(100, 0).ask(0) == 0


def test_share_after_stepping_aside_is_all_that_is_left_and_then_again_nothing() -> None:
    crew = Crew(100, 0)
    assert [crew.ask(0, 8) for _ in range(4)] == [0, 8, 0, 8]


def test_share_of_nobody_is_nothing_and_no_step_aside() -> None:
    crew = Crew(100, 0)
    assert crew.ask(0, 0) == 0
    assert crew.board[0].is_accepting


def test_share_asked_for_after_stepping_aside_says_that_we_are_back_although_nobody_waits() -> None:
    crew = Crew(100, 0)
    crew.ask(0)
    assert not crew.board[0].is_accepting
    crew.ask(0, 0)
    assert crew.board[0].is_accepting


def test_share_two_never_leave_the_same_clients_to_each_other() -> None:
    """The emptier one overtakes while the other one is aside."""
    crew = Crew(100, 50)
    assert crew.ask(0, 1000) == 0
    crew.board[1].numbers["open"] = 500
    assert crew.ask(1, 600) > 0


def test_share_of_the_emptiest_is_never_nothing_however_old_its_look() -> None:
    crew = Crew(0, 0)
    assert crew.ask(0, 100) == 50
    for row in crew.board:  # within the same moment both have taken many
        row.numbers["open"] = 50
    assert crew.ask(0, 10) == 5


@pytest.mark.parametrize("situation", ["stuck", "stopped", "not begun"])
def test_share_leaves_nobody_to_a_worker_that_does_not_accept(situation: str) -> None:
    crew = Crew(100, 0)
    emptier = crew.board[1]
    if situation == "stuck":
        crew.clock.advance(FRESH_SECONDS + 1.0)
    elif situation == "stopped":
        emptier.set("accepting", 0)
    else:
        emptier.heartbeat = 0.0
    assert crew.ask(0, 9) == 9


def test_share_looks_at_the_others_once_in_a_while() -> None:
    crew = Crew(10, 10)
    for _ in range(100):
        crew.ask(0, 2)
    assert crew.looks == 1
    crew.clock.advance(LOOK_SECONDS)
    crew.ask(0, 2)
    assert crew.looks == 2


def test_share_of_slow_arrivals_is_even_whoever_is_woken_first() -> None:
    """200 that stay, over four workers; the first is always first, and aside each time until the next arrival."""
    crew = Crew(0, 0, 0, 0)
    for _ in range(200):
        crew.clock.advance(1.0)
        for row in crew.board:
            row.heartbeat = crew.clock.now
        for index in range(4):
            if crew.ask(index):
                crew.board[index].numbers["open"] += 1
                break
        for index in range(4):  # the pause is over, and nobody is left
            crew.ask(index, 0)
    counts = [row.numbers["open"] for row in crew.board]
    assert sum(counts) == 200
    assert max(counts) <= 1.5 * min(counts)
