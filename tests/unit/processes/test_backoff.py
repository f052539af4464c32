"""Backoff: sooner or later, and never at once again and again."""

from moorage.processes.backoff import FIRST, GOOD_LIFE, MOST, Backoff


def test_backoff_of_failures_in_a_row_doubles_up_to_a_limit() -> None:
    backoff = Backoff()
    assert [backoff.failed() for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_backoff_after_thousands_of_failures_is_the_limit() -> None:
    backoff = Backoff()
    assert [backoff.failed() for _ in range(5000)][-1] == MOST


def test_backoff_after_a_good_life_is_nothing_and_forgets_what_was() -> None:
    backoff = Backoff()
    for _ in range(3):
        backoff.failed()
    assert backoff.died(GOOD_LIFE) == 0.0
    assert backoff.failed() == FIRST


def test_backoff_after_a_short_life_is_that_of_a_failure() -> None:
    backoff = Backoff()
    assert backoff.died(GOOD_LIFE - 0.1) == FIRST
    assert backoff.died(0.0) == 2 * FIRST
