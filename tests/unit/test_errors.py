"""Errors: whose fault each is, and what it carries."""

import pickle

import pytest

from moorage import errors
from moorage.errors import (
    BindError,
    ConnectionEnded,
    HandlerStopped,
    Incomplete,
    InheritError,
    InternalError,
    MoorageError,
    OperatorError,
    PeerError,
    PidFileError,
    PrivilegeError,
    SettingError,
    TargetError,
    TooLarge,
)
from moorage.events import Cause


def test_names_are_all_the_exceptions_there_are() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes == set(errors.__all__)


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (SettingError, (OperatorError, MoorageError, ValueError)),
        (BindError, (OperatorError, MoorageError, OSError)),
        (InheritError, (OperatorError, MoorageError)),
        (PidFileError, (OperatorError, MoorageError)),
        (PrivilegeError, (OperatorError, MoorageError)),
        (TargetError, (OperatorError, MoorageError)),
        (TooLarge, (PeerError, MoorageError, ValueError)),
        (Incomplete, (PeerError, MoorageError, EOFError)),
        (InternalError, (MoorageError,)),
        (ConnectionEnded, (TimeoutError, OSError)),
    ],
)
def test_error_is_caught_as_what_it_is(error: type[Exception], bases: tuple[type[Exception], ...]) -> None:
    assert issubclass(error, bases)
    assert all(issubclass(error, base) for base in bases)


def test_blame_is_on_one_side_only() -> None:
    sides = (OperatorError, PeerError, InternalError, ConnectionEnded)
    for error in (SettingError, BindError, TargetError, TooLarge, Incomplete, InternalError, ConnectionEnded):
        assert sum(issubclass(error, side) for side in sides) == 1


def test_connection_ended_says_why_and_is_no_error_of_moorage() -> None:
    error = ConnectionEnded(Cause.IDLE)
    assert error.cause == "idle"
    assert "idle" in str(error)
    assert not isinstance(error, MoorageError)


def test_handler_stopped_passes_handlers_that_catch_everything_usual() -> None:
    error = HandlerStopped(Cause.LIFETIME)
    assert not isinstance(error, Exception)
    assert error.cause == "lifetime"
    assert "lifetime" in str(error)


def test_incomplete_holds_what_did_arrive() -> None:
    error = Incomplete(b"abc", "a block of 5 bytes")
    assert error.partial == b"abc"
    assert str(error) == "the stream ended after 3 bytes of a block of 5 bytes"


@pytest.mark.parametrize(
    "error",
    [ConnectionEnded("idle"), HandlerStopped("idle"), Incomplete(b"ab", "a line"), TooLarge("x"), BindError("x")],
)
def test_error_survives_the_way_to_another_process(error: BaseException) -> None:
    """A handler may hand its exception to a process pool."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
