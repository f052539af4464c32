"""Unit tests of `moorage.runners.forks`: the parent's side, with children that are not there."""

import _socket
import errno
import json
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from moorage.config.settings import ServerSettings
from moorage.connection import Connection
from moorage.deadline import Deadline, monotonic
from moorage.errors import InternalError
from moorage.events import Cause, ConnectionClosed, Event, Events, HandlerFailed, Phase
from moorage.runners import forks
from moorage.runners.children import Child, Children
from moorage.runners.forked import stop_message
from moorage.runners.forks import ForksRunner, warn_of_threads
from moorage.runners.record import ClosingRecord, Failure
from moorage.state import State
from moorage.watch import Watch
from support.fake_os import FakeSystem

REAL_SOCKETPAIR = socket.socketpair
RECORD = ClosingRecord(Cause.PEER_CLOSED, Phase.HANDLER, 12, 34, 0.0)


class Mortal(FakeSystem):
    """Children that a SIGKILL ends, and nothing else."""

    def tell(self, child: Child, signum: int) -> None:
        super().tell(child, signum)
        if signum == signal.SIGKILL:
            self.end(child.pid, -signum)


class House:
    """A runner, its home and its fake children, and the children's ends of the socket pairs."""

    draining = False

    def __init__(self, monkeypatch: pytest.MonkeyPatch, system: FakeSystem) -> None:
        self.settings = ServerSettings(max_connections=3)
        self.watch = Watch()
        self.events = Events()
        self.seen: list[Event] = []
        self.events.subscribe(self.seen.append, ConnectionClosed, HandlerFailed)
        self.system = system
        self.said_by_children: list[socket.socket] = []
        self.stops: list[tuple[float | None, Cause]] = []
        serve: Any = lambda _: None  # noqa: E731  # nobody is served here
        self.runner = ForksRunner(serve, self.settings, self.watch, self.events)
        self.runner.on_stop = lambda *stop: self.stops.append(stop)
        monkeypatch.setattr(forks, "warn_of_threads", lambda: None)
        monkeypatch.setattr(forks, "Children", lambda limit, on_exit: Children(limit, on_exit, system))
        monkeypatch.setattr(socket, "socketpair", self._socketpair)
        self._open: list[socket.socket] = []
        self.runner.start()

    def _socketpair(self, *kind: Any) -> tuple[socket.socket, socket.socket]:
        here, there = REAL_SOCKETPAIR(*kind)
        self.said_by_children.append(there.dup())
        return here, there

    def forget(self, connection: Connection) -> None:
        """As the reception."""

    def give_back(self) -> None:
        """As a ticket."""

    def admit(self) -> Connection:
        """A connection that waits for its runner."""
        ours, theirs = REAL_SOCKETPAIR()
        self._open.append(theirs)
        raw = _socket.socket(ours.family, ours.type, ours.proto, ours.detach())
        connection = Connection(raw, None, self, self, len(self._open))
        connection.queue()
        return connection

    def submit(self) -> Connection:
        connection = self.admit()
        self.runner.submit(connection)
        return connection

    def leave(self, number: int, *messages: bytes) -> None:
        """A child says this and ends."""
        for message in messages:
            self.said_by_children[number].send(message)
        self.system.end(1001 + number)
        self.watch.turn(5)

    def heard(self, number: int) -> Any:
        """What a child was told last."""
        return json.loads(self.said_by_children[number].recv(1000, socket.MSG_DONTWAIT))

    def turn_until_told(self, count: int) -> None:
        deadline = Deadline(10)
        while len(self.system.told) < count and not deadline.is_due():
            self.watch.turn(0.1)

    def close(self) -> None:
        self.runner.stop(0)
        self.watch.close()
        for sock in (*self.said_by_children, *self._open):
            sock.close()


@pytest.fixture
def system() -> FakeSystem:
    return Mortal()


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, system: FakeSystem) -> Iterator[House]:
    monkeypatch.setattr(forks, "GRACE_SECONDS", 0.05)
    house = House(monkeypatch, system)
    yield house
    house.close()


def test_submit_leaves_the_socket_to_the_child(house: House) -> None:
    connection = house.submit()
    assert connection.fileno() == -1
    assert connection.state is State.HANDLER


def test_connection_waits_while_no_process_is_to_be_had(house: House, system: FakeSystem) -> None:
    connection = house.admit()
    before = os.listdir("/proc/self/fd")
    system.fork_error = OSError(errno.EAGAIN, "no process")
    house.runner.submit(connection)
    house.said_by_children.pop().close()
    assert os.listdir("/proc/self/fd") == before
    assert connection.state.value == "queued"
    system.fork_error = None
    house.watch.turn(5)
    assert connection.state.value == "handler"
    house.leave(0, RECORD.pack())
    assert connection.state is State.CLOSED


def test_connection_that_waits_too_long_for_a_process_is_ended(house: House, system: FakeSystem) -> None:
    house.settings = house.runner._settings = ServerSettings(queue_timeout=0.05)
    connection = house.admit()
    system.fork_error = OSError(errno.EAGAIN, "no process")
    house.runner.submit(connection)
    while connection.cause is None:
        house.watch.turn(5)
    assert connection.cause is Cause.QUEUE_TIMEOUT
    while house.said_by_children:
        house.said_by_children.pop().close()


def test_stop_finishes_who_waits_for_a_process(house: House, system: FakeSystem) -> None:
    connection = house.admit()
    system.fork_error = OSError(errno.EAGAIN, "no process")
    house.runner.submit(connection)
    connection.end(Cause.CLOSED_BY_OPERATOR)
    house.runner.stop(0)
    assert connection.state in (State.LINGERING, State.CLOSED)


def test_child_that_leaves_reports_its_numbers(house: House) -> None:
    connection = house.submit()
    house.leave(0, RECORD.pack())
    event = house.seen[0]
    assert isinstance(event, ConnectionClosed)
    assert (event.cause, event.phase, event.bytes_received, event.bytes_sent, event.handled) == (
        Cause.PEER_CLOSED, Phase.HANDLER, 12, 34, 0.0,
    )  # fmt: skip
    assert connection.state is State.CLOSED


def test_child_that_says_nothing_was_killed(house: House) -> None:
    house.submit()
    house.leave(0)
    assert [event.cause for event in house.seen if isinstance(event, ConnectionClosed)] == [Cause.KILLED]


def test_child_that_says_nonsense_was_killed(house: House) -> None:
    house.submit()
    house.leave(0, b"nonsense", b"{}")
    assert [event.cause for event in house.seen if isinstance(event, ConnectionClosed)] == [Cause.KILLED]


def test_failure_in_a_child_is_an_event_before_the_end(house: House) -> None:
    house.submit()
    failure = Failure("ValueError: bad", "Traceback")
    house.leave(0, ClosingRecord(Cause.HANDLER_ERROR, Phase.HANDLER, 0, 0, 0.0, failure).pack())
    failed, closed = house.seen
    assert isinstance(failed, HandlerFailed)
    assert str(failed.error) == "ValueError: bad"
    assert isinstance(closed, ConnectionClosed)
    assert closed.cause == Cause.HANDLER_ERROR


def test_end_is_told_by_term_and_after_the_grace_by_kill(house: House, system: FakeSystem) -> None:
    connection = house.submit()
    connection.end(Cause.SHED)
    connection.end(Cause.SHED)
    house.turn_until_told(1)
    assert house.heard(0) == {"end": "shed"}
    assert system.told == [(1001, signal.SIGTERM)]
    house.turn_until_told(2)
    house.watch.turn(5)
    assert system.told == [(1001, signal.SIGTERM), (1001, signal.SIGKILL)]
    assert [event.cause for event in house.seen if isinstance(event, ConnectionClosed)] == [Cause.SHED]


def test_connection_that_was_ended_before_gets_no_child(house: House, system: FakeSystem) -> None:
    connection = house.admit()
    connection.end(Cause.SHED)
    house.runner.submit(connection)
    assert connection.state in (State.LINGERING, State.CLOSED)
    assert not house.runner._links


def test_child_that_leaves_in_time_is_not_killed(house: House, system: FakeSystem) -> None:
    house.submit().end(Cause.SHED)
    house.turn_until_told(1)
    house.leave(0, RECORD.pack())
    house.watch.turn(0.2)
    assert system.told == [(1001, signal.SIGTERM)]


def test_drain_is_told_by_usr1_also_to_later_children(house: House, system: FakeSystem) -> None:
    house.submit()
    moment = monotonic() + 100
    house.runner.drain(moment)
    assert system.told == [(1001, signal.SIGUSR1)]
    house.submit()
    assert [house.heard(0), house.heard(1)] == [{"drain": moment}, {"drain": moment}]


def test_drain_that_ends_now_is_not_told(house: House, system: FakeSystem) -> None:
    house.submit()
    house.runner.drain(monotonic())
    assert system.told == []


def test_stop_kills_who_does_not_leave_and_says_so(house: House, system: FakeSystem) -> None:
    house.submit()
    lines = house.runner.stop(0)
    assert system.told == [(1001, signal.SIGTERM), (1001, signal.SIGKILL)]
    assert [line.split(" did ")[0] for line in lines] == ["process 1001"]
    assert [type(event) for event in house.seen] == [ConnectionClosed]


def test_stop_of_the_server_by_a_handler_reaches_it_at_once(house: House) -> None:
    house.submit()
    house.said_by_children[0].send(stop_message(2.5, Cause.DRAIN_DEADLINE))
    house.watch.turn(5)
    assert house.stops == [(2.5, Cause.DRAIN_DEADLINE)]
    house.leave(0, RECORD.pack())
    assert [event.cause for event in house.seen if isinstance(event, ConnectionClosed)] == [Cause.PEER_CLOSED]


def test_stop_of_the_server_in_the_parent_is_not_passed_on(house: House) -> None:
    assert not house.runner.passes_on_stop(None, Cause.DRAIN_DEADLINE)
    assert not house.runner.has_this_thread()


def test_children_without_pidfds_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "POLL_SECONDS", 0.01)
    house = House(monkeypatch, FakeSystem(pidfds=False))
    house.submit()
    house.said_by_children[0].send(RECORD.pack())
    house.system.end(1001)
    deadline = Deadline(10)
    while not house.seen and not deadline.is_due():
        house.watch.turn(1)
    assert [event.cause for event in house.seen if isinstance(event, ConnectionClosed)] == [Cause.PEER_CLOSED]
    house.close()


def test_link_is_no_way_to_wait(house: House) -> None:
    house.submit()
    (link,) = house.runner._links.values()
    with pytest.raises(InternalError, match="another process"):
        link.wait(0, 0, None)


def test_warning_names_the_other_threads() -> None:
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, name="an innocent bystander")
    thread.start()
    with pytest.warns(RuntimeWarning, match="other threads.*an innocent bystander"):
        warn_of_threads()
    leave.set()
    thread.join()


def test_warning_needs_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.current_thread()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_threads()
