"""Reception: from the ticket to the runner, and who is here."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from moorage.connection import Connection
from moorage.events import Cause, ConnectionClosed, ConnectionOpened, Events, HandlerFailed, Phase
from moorage.reception import Reception
from moorage.state import State
from support.fake_watch import FakeWatch
from support.guests import FakeTicket
from support.sink import Sink
from support.sockets import connect_pair, read_all
from support.streams import Limits
from support.waiting import in_thread


@dataclass(frozen=True)
class Settings(Limits):
    wait_for_data: bool = False
    first_data_timeout: float | None = None


class Hall:
    """A reception, its neighbours, and clients."""

    def __init__(self, **settings: Any) -> None:
        self.watch = FakeWatch()
        self.events = Events()
        self.sink = Sink(self.events)
        self.submitted: list[Connection] = []
        self.error: Exception | None = None
        self.sockets: list[Any] = []
        self.tickets: list[FakeTicket] = []
        self.reception = Reception(Settings(**settings), self.watch, self.events, Connection, self.submit)

    def submit(self, connection: Connection) -> None:
        if self.error is not None:
            raise self.error
        self.submitted.append(connection)

    def admit(self, listener: object = None) -> tuple[Connection, Any]:
        ours, theirs = connect_pair()
        self.sockets += [ours, theirs]
        self.tickets.append(FakeTicket())
        before = set(self.reception)
        self.reception.admit(ours, theirs.getsockname(), self.tickets[-1], listener)
        new = set(self.reception) - before
        return (new.pop() if new else None), theirs  # type: ignore[return-value]

    def leave(self, connection: Connection) -> None:
        connection.finish()
        self.watch.release_lingering()


@pytest.fixture
def hall() -> Iterator[Hall]:
    hall = Hall()
    yield hall
    for sock in hall.sockets:
        sock.close()


@pytest.fixture
def parking() -> Iterator[Hall]:
    hall = Hall(wait_for_data=True, first_data_timeout=30)
    yield hall
    for sock in hall.sockets:
        sock.close()


@pytest.fixture(autouse=True)
def one_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hall", "parking"):
        if name in request.fixturenames:
            monkeypatch.setattr("moorage.reception.monotonic", request.getfixturevalue(name).watch.clock)


def test_admitted_client_is_here_and_with_the_runner(hall: Hall) -> None:
    connection, peer = hall.admit()
    assert hall.submitted == [connection]
    assert connection.state is State.QUEUED
    assert list(hall.reception) == [connection]
    [event] = hall.sink.of(ConnectionOpened)
    assert (event.id, event.peer, event.local) == (connection.id, peer.getsockname(), peer.getpeername())


def test_every_connection_has_a_number_of_its_own(hall: Hall) -> None:
    assert len({hall.admit()[0].id for _ in range(5)}) == 5


def test_connection_is_here_until_its_socket_is_closed(hall: Hall) -> None:
    connection, _ = hall.admit()
    connection.finish()
    assert len(hall.reception) == 1
    hall.watch.release_lingering()
    assert len(hall.reception) == 0
    assert hall.tickets[0].given_back == 1
    hall.reception.forget(connection)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), BlockingIOError(11, "no process")])
def test_connection_that_no_runner_takes_is_closed_and_reported(hall: Hall, error: Exception) -> None:
    hall.error = error
    _, peer = hall.admit()
    assert read_all(peer) == b""
    hall.watch.release_lingering()
    assert [event.error for event in hall.sink.of(HandlerFailed)] == [error]
    assert [event.cause for event in hall.sink.of(ConnectionClosed)] == [Cause.SHED]
    assert len(hall.reception) == 0
    assert hall.tickets[0].given_back == 1
    hall.error = None
    hall.admit()
    assert len(hall.submitted) == 1


def test_client_that_must_speak_first_is_parked(parking: Hall) -> None:
    connection, peer = parking.admit()
    assert parking.submitted == []
    assert connection.state is State.WAITING
    peer.send(b"x")
    parking.watch.parked[connection.fileno()](1)
    assert parking.submitted == [connection]
    assert parking.watch.parked == {}
    parking.watch.pass_time(100)
    assert connection.cause is None


def test_mute_client_is_ended_without_a_thread(parking: Hall) -> None:
    connection, peer = parking.admit()
    parking.watch.pass_time(29)
    assert connection.cause is None
    parking.watch.pass_time(1)
    assert parking.submitted == []
    assert parking.watch.parked == {}
    assert read_all(peer) == b""
    parking.watch.release_lingering()
    [event] = parking.sink.of(ConnectionClosed)
    assert (event.cause, event.phase) == (Cause.FIRST_DATA, Phase.WAITING)
    assert parking.tickets[0].given_back == 1


@pytest.mark.parametrize("verb", ["tell", "end"])
def test_parked_connection_that_is_over_gets_no_thread(parking: Hall, verb: str) -> None:
    connection, _ = parking.admit()
    getattr(connection, verb)()
    parking.watch.parked[connection.fileno()](1)
    parking.watch.release_lingering()
    assert parking.submitted == []
    assert len(parking.reception) == 0
    assert [timer for timer in parking.watch.timers if not timer.is_cancelled] == []


class FakeSetup:
    """Keeps whom it was given until the test says that they are set up."""

    def __init__(self) -> None:
        self.begun: list[tuple[Any, Any]] = []

    def begin(self, guest: Any, done: Any) -> None:
        self.begun.append((guest, done))

    def be_done(self) -> None:
        guest, done = self.begun.pop(0)
        done(guest)


class FakeSession:
    """TLS with or without input."""

    decrypt = encrypt = None

    def __init__(self, has_input: bool) -> None:
        self.has_input = has_input


def test_connection_of_a_listener_with_a_setup_goes_through_it_first(hall: Hall) -> None:
    setup, listener = FakeSetup(), object()
    hall.reception.setups = {listener: setup}
    connection, _ = hall.admit(listener)
    assert hall.submitted == []
    assert list(hall.reception) == [connection]
    setup.be_done()
    assert hall.submitted == [connection]


def test_connection_of_another_listener_goes_the_plain_way(hall: Hall) -> None:
    setup = FakeSetup()
    hall.reception.setups = {object(): setup}
    connection, _ = hall.admit(object())
    assert setup.begun == []
    assert hall.submitted == [connection]


def test_client_that_was_set_up_is_parked_until_it_speaks(parking: Hall) -> None:
    setup, listener = FakeSetup(), object()
    parking.reception.setups = {listener: setup}
    connection, peer = parking.admit(listener)
    setup.be_done()
    assert connection.state is State.WAITING
    peer.send(b"x")
    parking.watch.wait_parked()
    assert parking.submitted == [connection]


@pytest.mark.parametrize("where", ["buffer", "session"])
def test_client_whose_bytes_came_behind_its_setup_is_not_parked(parking: Hall, where: str) -> None:
    setup, listener = FakeSetup(), object()
    parking.reception.setups = {listener: setup}
    connection, _ = parking.admit(listener)
    if where == "buffer":
        connection._buffer = bytearray(b"x")
    else:
        connection._use(FakeSession(True))
    setup.be_done()
    assert parking.submitted == [connection]


def test_client_of_a_session_without_input_is_parked(parking: Hall) -> None:
    setup, listener = FakeSetup(), object()
    parking.reception.setups = {listener: setup}
    connection, _ = parking.admit(listener)
    connection._use(FakeSession(False))
    setup.be_done()
    assert connection.state is State.WAITING


def test_iteration_bears_that_somebody_leaves(hall: Hall) -> None:
    connections = [hall.admit()[0] for _ in range(3)]
    for number, connection in enumerate(hall.reception):
        hall.leave(connections[-1 - number] if number == 0 else connection)
        break
    assert len(hall.reception) == 2


def test_wait_returns_when_few_enough_are_here(hall: Hall) -> None:
    connections = [hall.admit()[0] for _ in range(3)]
    assert hall.reception.wait_for(3, 0)
    assert not hall.reception.wait_for(2, 0.001)
    with in_thread(lambda: hall.reception.wait_for(1, 20)) as waiting:
        for connection in connections[:2]:
            waiting.wait_asleep()
            hall.leave(connection)
        assert waiting.result() is True


def test_wait_without_a_timeout_waits(hall: Hall) -> None:
    connection, _ = hall.admit()
    with in_thread(lambda: hall.reception.wait_for(0, None)) as waiting:
        waiting.wait_asleep()
        hall.leave(connection)
        assert waiting.result() is True


def test_last_one_to_leave_is_told_while_draining(hall: Hall) -> None:
    told: list[int] = []
    hall.reception.on_empty = lambda: told.append(len(hall.reception))
    first, second, third = (hall.admit()[0] for _ in range(3))
    hall.leave(first)
    hall.reception.draining = True
    hall.leave(second)
    assert told == []
    hall.leave(third)
    assert told == [0]
