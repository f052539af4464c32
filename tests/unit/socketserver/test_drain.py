"""Unit tests of `moorage.socketserver.drain`."""

import logging
import socket
import threading

import pytest

from moorage.deadline import Deadline
from moorage.socketserver import drain
from moorage.socketserver.drain import Busy, Quiet, quiet_needed
from support.clock import FakeClock
from support.sockets import FAMILIES, pair
from support.waiting import eventually, in_thread


def test_drain_of_nobody_returns_at_once() -> None:
    assert Busy().drain() == []


def test_drain_waits_for_a_handler_at_work() -> None:
    busy = Busy()
    done, begun = threading.Event(), threading.Event()

    def handle() -> None:
        busy.enter(threading.current_thread(), None, daemon=False)
        begun.set()
        done.wait(10)
        busy.leave(threading.current_thread())

    with in_thread(handle) as handler:
        assert begun.wait(10)
        assert busy.threads() == [handler.thread]
        with in_thread(busy.drain) as draining:
            draining.wait_asleep()
            done.set()
            assert draining.result() == []
    assert busy.threads() == []


def test_drain_does_not_wait_for_daemons_nor_for_its_own_thread() -> None:
    busy = Busy()
    busy.enter(threading.current_thread(), None, daemon=False)
    assert busy.is_here()
    assert busy.drain() == []
    other = threading.Thread()
    busy.enter(other, None, daemon=True)
    assert busy.threads() == [threading.current_thread()]


def test_drain_tells_a_quiet_connection_end_of_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "QUIET_SECONDS", 0.02)
    busy = Busy()
    begun = threading.Event()

    def handle(request: socket.socket) -> bytes:
        busy.enter(threading.current_thread(), request, daemon=False)
        begun.set()
        try:
            return request.recv(1)
        finally:
            busy.leave(threading.current_thread())

    with pair() as (ours, _), in_thread(lambda: handle(ours)) as handler:
        assert begun.wait(10)
        assert busy.drain() == []
        assert handler.result() == b""


def test_drain_logs_the_stack_of_a_handler_that_does_not_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(drain, "CUT_SECONDS", 0.02)
    busy = Busy()
    busy.drain_timeout = 0.02
    done = threading.Event()

    def stubborn() -> None:
        busy.enter(threading.current_thread(), None, daemon=False)
        done.wait(10)

    with in_thread(stubborn) as handler:
        eventually(busy.threads)
        assert busy.drain() == [handler.thread]
        done.set()
    assert caplog.records[0].levelno == logging.WARNING
    assert "stubborn" in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
def test_connection_is_told_only_when_it_is_quiet(family: str) -> None:
    clock = FakeClock()
    quiet = Quiet(clock)
    with pair(family) as (ours, theirs):
        quiet.tell("key", ours, 3600.0)
        theirs.sendall(b"x")
        quiet.tell("key", ours, 0.0)
        ours.setblocking(False)
        assert ours.recv(1) == b"x", "what is unread is not cut off"
        with pytest.raises(BlockingIOError):
            ours.recv(1)
        quiet.tell("key", ours, 0.0)
        assert ours.recv(1) == b""


def test_quiet_of_a_unix_connection_begins_with_the_drain() -> None:
    clock = FakeClock()
    quiet = Quiet(clock)
    with pair("unix") as (ours, _):
        ours.setblocking(False)
        quiet.tell("key", ours, 1.0)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
        clock.advance(1)
        quiet.tell("key", ours, 1.0)
        assert ours.recv(1) == b""


def test_look_at_a_connection_waits_for_no_timeout_of_its_own() -> None:
    with pair() as (ours, _):
        ours.settimeout(1000)
        Quiet().tell("key", ours, 3600.0)


def test_quiet_is_not_needed_in_the_last_tenth_of_the_window() -> None:
    clock = FakeClock()
    deadline = Deadline(10, clock)
    assert quiet_needed(deadline, 10) == drain.QUIET_SECONDS
    clock.advance(9.5)
    assert quiet_needed(deadline, 10) == 0.0
    assert quiet_needed(Deadline(None), None) == drain.QUIET_SECONDS
