"""Causes: the table is whole, and says what it means in plain words."""

import logging

import pytest

from moorage.events import CAUSES, Cause, Phase


def test_every_cause_has_its_row() -> None:
    assert list(CAUSES) == list(Cause)


@pytest.mark.parametrize("cause", list(Cause))
def test_row_of_a_cause_is_complete(cause: Cause) -> None:
    row = CAUSES[cause]
    assert row.phases
    assert row.phases <= set(Phase)
    assert row.set_by in {"stream", "watch", "admission", "connection", "handler", "drain", "operator", "runner"}
    assert row.level in {logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR}
    assert row.meaning[-1].isalpha() or row.meaning[-1] in ")`"


def test_causes_are_plain_words() -> None:
    assert all(str(cause) == cause.value == cause.name.lower() for cause in Cause)


def test_what_the_peer_does_is_no_error_of_ours() -> None:
    """A load balancer's health check connects and resets."""
    assert CAUSES[Cause.RESET].level == logging.DEBUG
    assert [cause for cause, row in CAUSES.items() if row.level >= logging.ERROR] == [Cause.HANDLER_ERROR, Cause.KILLED]
