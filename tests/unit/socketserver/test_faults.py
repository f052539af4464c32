"""Unit tests of `moorage.socketserver.faults`: which errors only say that the client is gone."""

import socket
from collections.abc import Callable

import pytest

from moorage.errors import TooLarge
from moorage.events import Cause
from moorage.socketserver.faults import cause_of
from moorage.socketserver.rfile import Limits, Reader
from moorage.socketserver.wfile import Writer
from support.sockets import FAMILIES, pair, reset, shrink


def caught(call: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as raised:
        call()
    return raised.value


def test_reset_by_this_client_is_quiet() -> None:
    with pair() as (ours, theirs):
        reset(theirs)
        error = caught(lambda: ours.recv(1))
        assert isinstance(error, ConnectionResetError)
        assert cause_of(ours, error) is Cause.RESET


def test_broken_pipe_of_a_unix_client_is_quiet() -> None:
    with pair("unix") as (ours, theirs):
        theirs.close()
        error = caught(lambda: ours.sendall(b"x"))
        assert cause_of(ours, error) is Cause.RESET


@pytest.mark.parametrize("family", FAMILIES)
def test_reset_of_something_else_is_an_error(family: str) -> None:
    with pair(family) as (ours, _):
        assert cause_of(ours, ConnectionResetError("of a database")) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_own_timeout_in_a_read_is_quiet(family: str) -> None:
    with pair(family) as (ours, _):
        ours.settimeout(0.01)
        with Reader(ours, -1, Limits(line=100)) as rfile:
            assert cause_of(ours, caught(rfile.readline)) is Cause.IDLE


def test_timeout_of_something_else_is_an_error() -> None:
    with pair() as (ours, _), pair() as (other, _):
        ours.settimeout(0.01)
        other.settimeout(0.01)
        assert cause_of(ours, TimeoutError("of a future")) is None
        with Reader(other, -1, Limits(line=100)) as rfile:
            assert cause_of(ours, caught(rfile.readline)) is None


def test_write_that_stalls_is_quiet() -> None:
    with pair("unix") as (ours, theirs):
        shrink(ours, theirs)
        writer = Writer(ours, 0.01)
        assert cause_of(ours, caught(lambda: writer.write(bytes(1_000_000)))) is Cause.WRITE_STALLED


def test_line_too_long_is_quiet_when_this_request_sent_it() -> None:
    with pair() as (ours, theirs), Reader(ours, -1, Limits(line=10)) as rfile:
        theirs.sendall(b"x" * 20)
        assert cause_of(ours, caught(rfile.readline)) is Cause.TOO_LARGE
        assert cause_of(ours, TooLarge("of another")) is None


def test_any_other_error_is_an_error() -> None:
    with pair() as (ours, theirs):
        reset(theirs)
        assert cause_of(ours, ValueError("a bug")) is None
        assert cause_of(ours, None) is None
        assert cause_of((b"data", ours), OSError()) is None


def test_request_that_is_closed_tells_nothing() -> None:
    request = socket.socket()
    request.close()
    assert cause_of(request, ConnectionResetError()) is None
