"""Unit tests of `moorage.runners.forked`: the child's side, in the process of the test."""

import _socket
import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from moorage.config.settings import ServerSettings
from moorage.connection import Connection
from moorage.deadline import monotonic
from moorage.errors import ConnectionEnded
from moorage.events import Cause, Events, Phase
from moorage.handler import Service
from moorage.runners.forked import HELD, Forked, drain_message, end_message, read_stop, stop_message
from moorage.runners.record import RECORD_BYTES, ClosingRecord
from moorage.watch import Watch


class Home:
    """Where the connection lived before the fork."""

    draining = False

    def __init__(self) -> None:
        self.settings = ServerSettings(drain_quiet=0.05, idle_timeout=5.0)
        self.watch = Watch()
        self.events = Events()

    def forget(self, connection: Connection) -> None:
        raise AssertionError("the child has touched the table of the parent")

    def give_back(self) -> None:
        raise AssertionError("the child has given back the ticket of the parent")


class Scene:
    """One child with its client and its parent, all in this process."""

    def __init__(self) -> None:
        self.home = Home()
        self.client, ours = socket.socketpair()
        self.client.settimeout(10)
        self.parent, self.there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        raw = _socket.socket(ours.family, ours.type, ours.proto, ours.detach())
        self.connection = Connection(raw, None, self.home, self.home, 7)
        self.connection.queue()
        self.forked = Forked(self.connection, self.there, self.home.watch, self.home.events)

    def run(self, handler: Callable[[Connection], Any]) -> ClosingRecord | None:
        """Serve it to its end, for a client that has said all; what the parent was told."""
        self.home.watch.call_at(monotonic() + 0.2, self.say_no_more)
        assert self.forked.run(Service(handler, self.home.events)) == 0
        return ClosingRecord.unpack(self.parent.recv(RECORD_BYTES, socket.MSG_DONTWAIT))

    def say_no_more(self) -> None:
        with contextlib.suppress(OSError):  # closed
            self.client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for sock in (self.client, self.parent, self.there):
            sock.close()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    before = {number: signal.getsignal(number) for number in HELD}
    monkeypatch.setattr(Connection, "_guard", threading.RLock())
    scene = Scene()
    yield scene
    scene.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def echo(conn: Connection) -> None:
    while data := conn.recv(100):
        conn.sendall(data)


def test_run_reports_how_it_went(scene: Scene) -> None:
    scene.client.sendall(b"12345")
    scene.client.shutdown(socket.SHUT_WR)
    record = scene.run(echo)
    assert record is not None
    assert (record.cause, record.phase, record.bytes_received, record.bytes_sent, record.failure) == (
        Cause.PEER_CLOSED, Phase.HANDLER, 5, 5, None,
    )  # fmt: skip
    assert record.handled > 0
    assert scene.client.recv(100) == b"12345"
    assert scene.client.recv(100) == b""


def test_failure_is_reported_with_its_traceback(scene: Scene) -> None:
    scene.client.close()
    record = scene.run(lambda conn: 1 // 0)
    assert record is not None
    assert record.failure is not None
    assert record.cause == Cause.HANDLER_ERROR
    assert record.failure.summary == "ZeroDivisionError: integer division or modulo by zero"
    assert __file__ in record.failure.traceback


def test_subscribers_of_the_parent_hear_nothing(scene: Scene) -> None:
    heard: list[object] = []
    scene.home.events.subscribe(heard.append)
    scene.client.close()
    scene.run(lambda conn: 1 // 0)
    assert heard == []


def test_deadlines_are_kept_by_the_child(scene: Scene) -> None:
    object.__setattr__(scene.home.settings, "idle_timeout", 0.05)
    record = scene.run(echo)
    assert record is not None
    assert record.cause == Cause.IDLE


def test_drain_tells_a_quiet_connection(scene: Scene) -> None:
    scene.parent.send(drain_message(monotonic() + 5))

    def handler(conn: Connection) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert conn.draining
        assert conn.recv(1) == b""

    record = scene.run(handler)
    assert record is not None
    assert (record.cause, record.failure) == (Cause.DRAINED, None)


def test_drain_lets_the_handler_say_goodbye(scene: Scene) -> None:
    scene.parent.send(drain_message(None))

    def handler(conn: Connection) -> None:
        conn.on_drain = lambda: conn.sendall(b"bye")
        conn.recv(1)

    scene.run(handler)
    assert scene.client.recv(100) == b"bye"


def test_end_by_the_parent_has_its_cause(scene: Scene) -> None:
    causes: list[str] = []

    def handler(conn: Connection) -> None:
        scene.parent.send(end_message(Cause.SHED))
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(ConnectionEnded) as caught:
            conn.recv(1)
        causes.append(caught.value.cause)

    record = scene.run(handler)
    assert record is not None
    assert (record.cause, causes) == (Cause.SHED, [Cause.SHED])


def test_term_of_others_is_a_drain_and_the_second_ends(scene: Scene) -> None:
    def handler(conn: Connection) -> None:
        before = conn.draining
        os.kill(os.getpid(), signal.SIGTERM)
        assert [before, conn.draining] == [False, True]
        os.kill(os.getpid(), signal.SIGTERM)
        conn.recv(1)

    record = scene.run(handler)
    assert record is not None
    assert (record.cause, record.failure) == (Cause.CLOSED_BY_OPERATOR, None)


def test_term_of_others_after_the_parents_word_does_not_end(scene: Scene) -> None:
    scene.parent.send(drain_message(None))

    def handler(conn: Connection) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        conn.recv(1)

    record = scene.run(handler)
    assert record is not None
    assert record.cause == Cause.DRAINED


def test_ctrl_c_is_the_parents(scene: Scene) -> None:
    scene.client.sendall(b"x")
    scene.client.shutdown(socket.SHUT_WR)

    def handler(conn: Connection) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        echo(conn)

    record = scene.run(handler)
    assert record is not None
    assert record.cause == Cause.PEER_CLOSED


def test_death_of_the_parent_is_a_drain(scene: Scene) -> None:
    scene.parent.close()

    def handler(conn: Connection) -> None:
        assert conn.recv(1) == b""
        assert conn.draining
        scene.say_no_more()

    assert scene.forked.run(Service(handler, scene.home.events)) == 0
    assert scene.connection.cause == Cause.DRAINED


def test_record_with_a_failure_that_does_not_fit_is_sent_without(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.client.close()
    sent: list[bytes] = []

    def say(message: bytes) -> bool:
        sent.append(message)
        return len(sent) > 1

    monkeypatch.setattr(scene.forked, "say", say)
    scene.forked.run(Service(lambda conn: 1 // 0, scene.home.events))
    records = [ClosingRecord.unpack(message) for message in sent]
    assert [record and record.cause for record in records] == [Cause.HANDLER_ERROR] * 2
    assert [record and record.failure is None for record in records] == [False, True]


@pytest.mark.parametrize("timeout", [None, 0.0, 2.5])
def test_stop_message_read_is_what_was_said(timeout: float | None) -> None:
    assert read_stop(stop_message(timeout, Cause.CLOSED_BY_OPERATOR)) == (timeout, Cause.CLOSED_BY_OPERATOR)


@pytest.mark.parametrize(
    "message", [b"", b"{}", b"[]", b"7", b'{"stop": 1}', b'{"stop": [1, "x"]}', b'{"stop": ["x", "idle"]}', b"\xff"]
)
def test_stop_message_read_from_anything_else_is_none(message: bytes) -> None:
    assert read_stop(message) is None


def test_messages_of_the_parent_are_plain_json() -> None:
    assert json.loads(end_message(Cause.SHED)) == {"end": "shed"}
    assert json.loads(drain_message(None)) == {"drain": None}
