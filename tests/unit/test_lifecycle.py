"""Lifecycle, on both twins: the way of a connection, and what is given back at its end; more is in test_connection."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from moorage.errors import InternalError
from moorage.events import Cause, Phase
from moorage.state import ACCEPTED, CLOSED, HANDLER, LINGERING, QUEUED
from support.streams import Limits, PollingWaiter
from support.twins import BOTH, twin


class Home:
    """Where it lives; remembers what it is told."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Limits(**settings)
        self.events = SimpleNamespace(ends=frozenset({Cause.HANDLER_DONE}))
        self.watch = self
        self.forgotten: list[Any] = []
        self.timers: list[float] = []
        self.cancelled = 0
        self.lingering: list[Any] = []

    def forget(self, guest: Any) -> None:
        self.forgotten.append(guest)

    def call_at(self, when: float, call: Any) -> "Home":
        self.timers.append(when)
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def linger(self, sock: Any, release: Any, rest: bytes = b"") -> None:
        self.lingering.append((sock, release, rest))


class Ticket:
    given_back = 0

    def give_back(self) -> None:
        self.given_back += 1


@pytest.fixture(params=BOTH)
def kind(request: pytest.FixtureRequest) -> Any:
    base: Any = twin(request.param, "moorage.lifecycle").Lifecycle

    class Stay(base):  # type: ignore[misc]  # the twin is known when the test runs
        def __init__(self, sock: Any, home: Home) -> None:
            super().__init__(sock, ("127.0.0.1", 5), Ticket(), home, 7)
            self.emitted = 0

        def _look(self) -> None:
            raise AssertionError("no deadline passes here")

        def _interrupt(self, how: int) -> bool:
            return True

        def _emit_end(self) -> None:
            self.emitted += 1

    return Stay


@pytest.fixture
def home() -> Home:
    return Home(idle_timeout=60)


@pytest.fixture
def one(kind: Any, home: Home) -> Iterator[Any]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield kind(ours, home)


def serve(one: Any) -> None:
    one.open()
    one.queue()
    one.begin(PollingWaiter(plain=True))


def test_new_connection_has_nothing_behind_it(one: Any) -> None:
    assert (one.state, one.cause, one.id, one.peer) == (ACCEPTED, None, 7, ("127.0.0.1", 5))
    assert not one.is_over


def test_way_to_the_handler_is_queue_and_begin(one: Any) -> None:
    one.queue()
    assert one.state is QUEUED
    one.begin(PollingWaiter(plain=True))
    assert one.state is HANDLER
    assert not one._special


def test_step_that_the_table_does_not_have_is_ours(one: Any) -> None:
    with pytest.raises(InternalError, match="connection 7 cannot go from accepted to handler"):
        one.begin(PollingWaiter())


@pytest.mark.parametrize(("settings", "seconds"), [
    ({"idle_timeout": 60}, 60), ({"lifetime": 5}, 5), ({"idle_timeout": 60, "lifetime": 5}, 5),
    ({"idle_timeout": 6, "lifetime": 50}, 6),
])  # fmt: skip
def test_first_timer_is_for_the_first_deadline(kind: Any, settings: dict[str, float], seconds: float) -> None:
    home = Home(**settings)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = kind(ours, home)
        one.open()
        assert home.timers == [pytest.approx(one._opened_at + seconds)]


def test_connection_without_deadlines_sets_no_timer(kind: Any) -> None:
    home = Home()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        kind(ours, home).open()
    assert home.timers == []


def test_first_cause_wins_with_its_phase(one: Any) -> None:
    one.queue()
    one.record(Cause.SHED)
    one.begin(PollingWaiter())
    one.record(Cause.HANDLER_DONE)
    assert (one.cause, one._phase) == (Cause.SHED, Phase.WAITING)


def test_end_by_the_peer_closes_at_once(one: Any, home: Home) -> None:
    serve(one)
    one.record(Cause.PEER_CLOSED)
    one.finish()
    assert (one.state, one.fileno() if hasattr(one, "fileno") else one._sock.fileno()) == (CLOSED, -1)
    assert (one._ticket.given_back, home.forgotten, home.cancelled, one.emitted) == (1, [one], 1, 0)


def test_end_of_the_handler_lingers_and_is_told_when_released(one: Any, home: Home) -> None:
    serve(one)
    one.finish()
    assert one.state is LINGERING
    assert one.has_left
    assert one._ticket.given_back == 0
    [(sock, release, rest)] = home.lingering
    assert (sock, rest) == (one._sock, b"")
    release()
    assert (one.state, one._ticket.given_back, one.emitted) == (CLOSED, 1, 1)


class LateSession:
    """TLS whose last record does not fit into the socket."""

    decrypt = encrypt = None


@pytest.mark.parametrize(("cause", "is_said"), [
    (Cause.HANDLER_DONE, True), (Cause.PEER_CLOSED, True), (Cause.RESET, False), (Cause.WRITE_STALLED, False),
])  # fmt: skip
def test_rest_of_tls_is_given_to_the_watch_unless_nobody_listens(
    kind: Any, home: Home, cause: Cause, is_said: bool
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        late = type("Late", (kind,), {"_say_end": lambda _self: b"the rest", "_throw_away": lambda _self: None})(
            ours, home
        )
        serve(late)
        late._use(LateSession())
        late.record(cause)
        late.finish()
        assert late.state is (LINGERING if is_said else CLOSED)
        assert [rest for _sock, _release, rest in home.lingering] == [b"the rest"] * is_said


def test_connection_is_released_once(one: Any) -> None:
    serve(one)
    one.record(Cause.RESET)
    one.finish()
    one.finish()
    assert one._ticket.given_back == 1
    with pytest.raises(InternalError):
        one.release()
