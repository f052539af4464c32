"""Signals: what is asked for, and that what was there before comes back."""

import os
import signal
from types import FrameType

import pytest

from moorage.errors import OperatorError
from moorage.processes.signals import SIGNALS, Action, CaughtSignals
from support.waiting import in_thread

Asked = list[tuple[Action, signal.Signals]]


def sent(*numbers: signal.Signals) -> Asked:
    """What is asked for when these signals come, one after the other."""
    asked: Asked = []
    with CaughtSignals(lambda action, number: asked.append((action, number))):
        for number in numbers:
            os.kill(os.getpid(), number)  # handled in this thread before `kill` returns to the next line
    return asked


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_signal_asks_for_its_action(number: signal.Signals) -> None:
    assert sent(number) == [(SIGNALS[number].action, number)]


def test_second_signal_to_stop_ends_now() -> None:
    asked = sent(signal.SIGTERM, signal.SIGINT, signal.SIGTERM)
    assert [action for action, _ in asked] == [Action.DRAIN, Action.END, Action.END]


def test_handlers_from_before_are_put_back() -> None:
    def own(_number: int, _frame: FrameType | None) -> None:
        pass

    before = signal.signal(signal.SIGUSR1, own)
    try:
        sent(signal.SIGTERM)
        assert signal.getsignal(signal.SIGUSR1) is own
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_handlers_from_before_are_put_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), CaughtSignals(lambda *_: None):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_thread_than_the_main_one_is_refused_with_the_way_out() -> None:
    def enter() -> None:
        with CaughtSignals(lambda *_: None):
            raise AssertionError("entered")

    with in_thread(enter) as entering:
        error = entering.error()
    assert isinstance(error, OperatorError)
    assert "main thread" in str(error)


def test_every_action_has_a_signal() -> None:
    assert {row.action for row in SIGNALS.values()} == set(Action)
