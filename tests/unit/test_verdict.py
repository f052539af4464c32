"""Verdict: the table of accept errors."""

import errno
import itertools
import os

import pytest

from moorage.verdict import VERDICTS, Verdict, judge


def test_verdicts_no_errno_has_two() -> None:
    for one, other in itertools.combinations(VERDICTS.values(), 2):
        assert not one & other


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        (errno.EAGAIN, Verdict.EMPTY),
        (errno.ECONNABORTED, Verdict.GO_ON),
        (errno.EPROTO, Verdict.GO_ON),
        (errno.EHOSTUNREACH, Verdict.GO_ON),
        (errno.EMFILE, Verdict.PAUSE),
        (errno.ENOMEM, Verdict.PAUSE),
        (errno.EBADF, Verdict.FAIL),
        (errno.EINVAL, Verdict.FAIL),
        (0, Verdict.FAIL),
    ],
)
def test_judge_knows_the_number(number: int, verdict: Verdict) -> None:
    assert judge(OSError(number, os.strerror(number))) is verdict


def test_judge_error_without_a_number_fails() -> None:
    assert judge(OSError("made up")) is Verdict.FAIL
