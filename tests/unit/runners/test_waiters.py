"""Waiters: the poll calls, and the bell that ends them; what all waiters share is in test_waiter.py."""

import errno
import gc
import os
import signal
from typing import NoReturn

import pytest

from moorage.deadline import monotonic
from moorage.runners.waiters import PlainWaiter, WakeableWaiter
from moorage.transport.stream import READ, WRITE
from support.sockets import FAMILIES, open_fds, pair
from support.waiting import in_thread

everywhere = pytest.mark.parametrize("family", FAMILIES)
both = pytest.mark.parametrize("kind", [PlainWaiter, WakeableWaiter])
Kind = type[PlainWaiter] | type[WakeableWaiter]


@both
@everywhere
def test_wait_ends_when_the_socket_is_ready(kind: Kind, family: str) -> None:
    waiter = kind()
    with pair(family) as (ours, theirs):
        assert waiter.wait(ours, WRITE, 20) is True
        with in_thread(lambda: waiter.wait(ours, READ, None)) as waiting:
            waiting.wait_asleep()
            theirs.send(b"x")
            assert waiting.result() is True


@both
@everywhere
def test_wait_ends_when_the_time_is_over_and_not_before(kind: Kind, family: str) -> None:
    waiter = kind()
    with pair(family) as (ours, _):
        for timeout in (0, 0.0001, 0.01):
            begun = monotonic()
            assert waiter.wait(ours, READ, timeout) is False
            assert monotonic() - begun >= timeout


@both
@everywhere
def test_wait_ends_when_the_peer_hangs_up(kind: Kind, family: str) -> None:
    waiter = kind()
    with pair(family) as (ours, theirs), in_thread(lambda: waiter.wait(ours, READ, None)) as waiting:
        waiting.wait_asleep()
        theirs.close()
        assert waiting.result() is True


@both
@everywhere
def test_wait_for_nothing_ends_when_both_sides_are_shut(kind: Kind, family: str) -> None:
    """A hang-up is told whether it was asked for or not."""
    waiter = kind()
    with pair(family) as (ours, theirs):
        assert waiter.wait(ours, 0, 0) is False
        theirs.close()
        ours.shutdown(1)
        assert waiter.wait(ours, 0, 20) is True


def test_plain_waiter_allows_plain_calls_and_the_other_does_not() -> None:
    assert PlainWaiter.plain
    assert not WakeableWaiter.plain


def test_plain_waiter_has_nothing_to_wake() -> None:
    PlainWaiter().wake()


def test_plain_waiter_is_woken_by_who_shuts_the_socket() -> None:
    with pair() as (ours, _), in_thread(lambda: PlainWaiter().wait(ours, READ, None)) as waiting:
        waiting.wait_asleep()
        ours.shutdown(0)
        assert waiting.result() is True


def test_wake_ends_the_wait_from_another_thread() -> None:
    waiter = WakeableWaiter()
    with pair("unix") as (ours, _), in_thread(lambda: waiter.wait(ours, READ, None)) as waiting:
        waiting.wait_asleep()
        waiter.wake()
        assert waiting.result() is False


def test_wake_ends_the_wait_from_a_signal_handler() -> None:
    waiter = WakeableWaiter()
    before = signal.signal(signal.SIGALRM, lambda *_: waiter.wake())
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pair("unix") as (ours, _):
            assert waiter.wait(ours, READ, 20) is False
    finally:
        signal.signal(signal.SIGALRM, before)


def test_wake_before_the_wait_ends_it_and_counts_once() -> None:
    waiter = WakeableWaiter()
    with pair("unix") as (ours, _):
        waiter.wake()
        waiter.wake()
        assert waiter.wait(ours, READ, 20) is False
        begun = monotonic()
        assert waiter.wait(ours, READ, 0.02) is False
        assert monotonic() - begun >= 0.02, "the bell rings on"


def test_ready_socket_is_seen_together_with_the_bell() -> None:
    waiter = WakeableWaiter()
    with pair("unix") as (ours, theirs):
        theirs.send(b"x")
        waiter.wake()
        assert waiter.wait(ours, READ, 20) is True


def test_longest_timeout_fits_into_poll() -> None:
    with pair() as (ours, theirs):
        theirs.send(b"x")
        assert PlainWaiter().wait(ours, READ, 1e9)


def test_closed_waiter_leaves_no_descriptor() -> None:
    before = open_fds()
    waiter = WakeableWaiter()
    waiter.close()
    waiter.close()
    waiter.wake()
    assert open_fds() == before


def test_dropped_waiter_leaves_no_descriptor() -> None:
    before = open_fds()
    WakeableWaiter()
    assert open_fds() == before


def test_wake_after_close_does_not_ring_at_the_next_owner_of_the_number() -> None:
    waiter = WakeableWaiter()
    number = waiter._bell
    waiter.close()
    stranger = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        assert stranger == number
        waiter.wake()
        with pytest.raises(BlockingIOError):
            os.eventfd_read(stranger)
    finally:
        os.close(stranger)


def test_waiter_without_a_descriptor_left_fails_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> NoReturn:
        raise OSError(errno.EMFILE, "too many open files")

    unraisable: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    monkeypatch.setattr(os, "eventfd", refuse)
    with pytest.raises(OSError, match="too many open files"):
        WakeableWaiter()
    gc.collect()
    assert unraisable == []
