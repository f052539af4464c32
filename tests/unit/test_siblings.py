"""Siblings: who waits by which bell, and what a sibling's exception means; the rest is in behaviour/."""

import threading
from typing import Any

import pytest

from moorage import calls, siblings
from moorage.connection import Connection
from moorage.errors import ConnectionEnded, HandlerStopped
from moorage.events import Cause, ConnectionClosed, HandlerFailed, SiblingsLeft
from moorage.handler import Service
from moorage.runners.waiters import PlainWaiter, WakeableWaiter
from moorage.siblings import Cancelled, SharedWaiter, Siblings
from moorage.transport.stream import READ
from support.guests import Guest, guest
from support.sockets import PATIENCE, open_fds, pair
from support.waiting import eventually, in_thread


def serve(one: Guest, handle: Any) -> Cause:
    Service(handle, one.home.events)(one.connection)
    one.home.watch.release_lingering()
    [event] = one.home.sink.of(ConnectionClosed)
    return event.cause


def raising(error: BaseException) -> Any:
    def fail() -> None:
        raise error

    return fail


# What an exception means


def own(conn: Connection) -> BaseException:
    return conn._own(ValueError("mine"))


@pytest.mark.parametrize(
    ("make", "is_quiet"),
    [
        (own, True),
        (lambda conn: ConnectionEnded(Cause.HANDLER_DONE), True),  # of another connection, closed by its holder
        (lambda conn: ConnectionEnded(Cause.IDLE), False),
        (lambda conn: ValueError("a database's"), False),
        (lambda conn: HandlerStopped(Cause.IDLE), False),
        (lambda conn: SystemExit(1), False),
    ],
)
def test_exception_of_a_sibling_is_judged_as_a_handlers(make: Any, is_quiet: bool) -> None:
    with guest() as one:
        error = make(one.connection)
        cause = serve(one, lambda conn: calls.spawn(raising(error)).join(PATIENCE))
        assert [event.error for event in one.home.sink.of(HandlerFailed)] == ([] if is_quiet else [error])
        assert cause is (Cause.HANDLER_DONE if is_quiet else Cause.HANDLER_ERROR)


def test_being_stopped_after_the_end_is_quiet() -> None:
    with guest() as one:

        def handle(conn: Connection) -> None:
            begun = threading.Event()

            def wait() -> None:
                begun.set()
                try:
                    conn.recv(1)
                except ConnectionEnded:
                    raise Cancelled(Cause.HANDLER_DONE) from None

            calls.spawn(wait)
            assert begun.wait(PATIENCE)

        assert serve(one, handle) is Cause.HANDLER_DONE
        assert one.home.sink.of(HandlerFailed) == []


# The end


def test_handler_waits_for_its_siblings_before_the_socket_is_finished() -> None:
    states: list[Any] = []

    begun = threading.Event()

    def sibling(conn: Connection) -> None:
        begun.set()
        try:
            conn.recv(1)
        finally:
            states.append(conn.state)

    with guest() as one:

        def handle(conn: Connection) -> None:
            calls.spawn(sibling, conn)
            begun.wait(PATIENCE)

        serve(one, handle)
        assert states == ["handler"]
        assert one.connection.siblings is None


def test_sibling_that_has_not_left_is_named_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "LEAVE_SECONDS", 0.05)
    may_go, begun = threading.Event(), threading.Event()

    def stay() -> None:
        begun.set()
        may_go.wait(PATIENCE)

    with guest() as one:

        def handle(conn: Connection) -> None:
            calls.spawn(stay)
            begun.wait(PATIENCE)

        serve(one, handle)
        [event] = one.home.sink.of(SiblingsLeft)
        assert (event.id, event.peer, len(event.stacks)) == (7, "peer", 1)
        assert "in stay" in event.stacks[0]
        may_go.set()
        eventually(lambda: not any("sibling" in thread.name for thread in threading.enumerate()))


def test_end_that_is_cut_short_by_the_server_still_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go, begun = threading.Event(), threading.Event()

    def stop(self: object, timeout: float | None = None) -> bool:
        raise HandlerStopped(Cause.CLOSED_BY_OPERATOR)

    def stay() -> None:
        begun.set()
        may_go.wait(PATIENCE)

    with guest() as one:

        def handle(conn: Connection) -> None:
            calls.spawn(stay)
            begun.wait(PATIENCE)
            monkeypatch.setattr(siblings.Sibling, "join", stop)

        assert serve(one, handle) is Cause.HANDLER_DONE
        assert len(one.home.sink.of(SiblingsLeft)) == 1
        may_go.set()


def test_sibling_of_a_handler_that_has_left_is_not_begun() -> None:
    with guest() as one:
        made = Siblings(Service(lambda conn: None, one.home.events), one.connection)
        made.end()
        with pytest.raises(ConnectionEnded):
            made.start(lambda: None)
        assert made._all == set()


def test_sibling_without_a_thread_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with guest() as one:
        made = Siblings(Service(lambda conn: None, one.home.events), one.connection)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            made.start(lambda: None)
        assert made._all == set()


def test_many_siblings_of_one_connection_leave_no_descriptor() -> None:
    with guest() as one:

        def look(conn: Connection) -> None:
            conn.settimeout(0.001)
            with pytest.raises(TimeoutError):
                conn.recv(1)

        def handle(conn: Connection) -> None:
            assert calls.spawn(look, conn).join(PATIENCE)
            before = len(open_fds())
            for _ in range(20):
                assert calls.spawn(look, conn).join(PATIENCE)
            eventually(lambda: len(open_fds()) <= before)

        assert serve(one, handle) is Cause.HANDLER_DONE
        assert one.home.sink.of(HandlerFailed) == []


# SharedWaiter


class Sock:
    """As much of a stream as a waiter asks for."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


def test_owner_of_a_shared_waiter_waits_as_before() -> None:
    with pair() as (ours, theirs):
        waiter = SharedWaiter(PlainWaiter())
        assert not waiter.wait(Sock(ours.fileno()), READ, 0.0)
        theirs.sendall(b"x")
        assert waiter.wait(Sock(ours.fileno()), READ, PATIENCE)
        assert waiter._bells == {}


def test_every_thread_of_a_shared_waiter_is_woken() -> None:
    with pair() as (ours, _theirs):
        waiter = SharedWaiter(WakeableWaiter())
        stream = Sock(ours.fileno())

        def wait() -> list[bool]:
            waits = [waiter.wait(stream, READ, PATIENCE) for _ in range(2)]
            waiter.forget()
            return waits

        with in_thread(wait) as one, in_thread(wait) as other:
            eventually(lambda: len(waiter._bells) == 2)
            waiter.wake(stream)
            assert [one.result(), other.result()] == [[False, False]] * 2
        assert waiter._bells == {}


def test_first_wait_of_a_thread_has_it_look_again() -> None:
    """A wake before its bell was there would be lost."""
    with pair() as (ours, _theirs):
        waiter = SharedWaiter(PlainWaiter())
        with in_thread(lambda: waiter.wait(Sock(ours.fileno()), READ, None)) as task:
            assert task.result() is False
