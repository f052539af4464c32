"""Unit tests of `moorage.socketserver.accept_errors`."""

import errno
import logging
import socket

import pytest

from moorage.acceptor import ODD_IN_A_ROW
from moorage.shortage import PAUSE_SECONDS
from moorage.socketserver.accept_errors import AcceptErrors
from support.clock import FakeClock

NO_FDS = OSError(errno.EMFILE, "Too many open files")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def errors(clock: FakeClock) -> AcceptErrors:
    return AcceptErrors(clock)


def test_nobody_waiting_is_no_error(errors: AcceptErrors, caplog: pytest.LogCaptureFixture) -> None:
    assert errors.met(BlockingIOError(errno.EAGAIN, "again"), None) is None
    assert caplog.records == []


def test_shortage_is_a_pause_and_one_line_a_second(
    errors: AcceptErrors, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(25):
        assert errors.met(NO_FDS, None) == PAUSE_SECONDS
        clock.advance(PAUSE_SECONDS)
    assert [record.getMessage().split(";")[1] for record in caplog.records] == [
        " 1 tries failed, tried again every 0.1 s",
        " 10 tries failed, tried again every 0.1 s",
        " 10 tries failed, tried again every 0.1 s",
    ]


def test_end_of_a_shortage_is_said_once(
    errors: AcceptErrors, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    errors.met(NO_FDS, None)
    clock.advance(5)
    errors.over()
    errors.over()
    assert [record.getMessage() for record in caplog.records[1:]] == ["accepting clients again after 5.0 s"]


def test_error_of_one_client_goes_on_until_too_many_in_a_row(errors: AcceptErrors) -> None:
    aborted = OSError(errno.ECONNABORTED, "aborted")
    answers = [errors.met(aborted, None) for _ in range(ODD_IN_A_ROW)]
    assert answers == [None] * (ODD_IN_A_ROW - 1) + [PAUSE_SECONDS]


def test_error_of_a_programs_own_get_request_does_not_end_a_good_listener(errors: AcceptErrors) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert errors.met(TimeoutError("the handshake timed out"), listener) is None
        assert errors.met(OSError(1, "no TLS at all"), listener) is None


def test_error_of_a_useless_listener_is_raised(errors: AcceptErrors) -> None:
    error = OSError(errno.EINVAL, "not listening")
    with socket.socket() as deaf, pytest.raises(OSError, match="not listening"):
        errors.met(error, deaf)


def test_levels_are_warning_for_shortage_and_debug_for_one_client(
    errors: AcceptErrors, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    errors.met(NO_FDS, None)
    errors.met(OSError(errno.ECONNABORTED, "aborted"), None)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.DEBUG]
