"""Intake: a client of a plain listener gets its fiber in one step, and nothing is different for anybody."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from moorage import Server, twins
from moorage.config import ListenerSettings
from moorage.connection import Connection
from moorage.events import ConnectionOpened, Events
from moorage.gate import Gate as PureGate
from moorage.hub.hub import Hub
from moorage.listener import open_listeners
from moorage.reception import Reception
from moorage.state import State
from support.certificates import certificates
from support.sink import Sink
from support.sockets import read_all
from support.streams import Limits
from support.twins import native

pytestmark = [pytest.mark.runners("fibers"), pytest.mark.security("plain"), pytest.mark.families("tcp4")]


class Quay:
    """An intake and its neighbours, without a server."""

    def __init__(self, stack: ExitStack, gate: Any, **limits: Any) -> None:
        self.hub = Hub()
        self.hub.enter()
        stack.callback(self.hub.close)
        self.gate = gate
        self.events = Events()
        settings: Any = Limits(**limits)  # which has what is asked here
        self.reception = Reception(settings, self.hub, self.events, Connection, lambda _: None)
        [self.listener] = open_listeners([ListenerSettings(bind="127.0.0.1:0")])
        stack.callback(self.listener.close)
        self.served: list[Connection] = []
        listener = self.listener
        self.take: Callable[[int], int] = twins.Intake(
            listener.fileno(), listener.kind, gate, self.reception, self.hub.loop, self.serve
        ).take
        self._stack = stack
        stack.callback(self.run_fibers)  # so that no connection is left

    def serve(self, connection: Connection) -> None:
        connection.begin(self.hub.loop)
        self.served.append(connection)
        with suppress(OSError):  # its client may have left
            connection.sendall(b"hello")
        connection.finish()

    def client(self) -> socket.socket:
        return self._stack.enter_context(socket.create_connection(self.listener.address))

    def run_fibers(self) -> None:
        while self.hub.loop.busy:
            self.hub.turn(0)


Make = Callable[..., Quay]


@pytest.fixture(params=["own gate", "other gate"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """With the gate that it knows, and with one of others, as under workers."""
    engine = native()
    if not twins.NATIVE:
        pytest.skip(f"the pure twins were chosen: {twins.WHY}")
    with ExitStack() as stack:

        def make(limit: int = 100, **limits: Any) -> Quay:
            gate = (engine.Gate if request.param == "own gate" else PureGate)(limit)
            return Quay(stack, gate, **limits)

        yield make


def test_clients_are_taken_and_have_their_fibers(make: Make) -> None:
    quay = make()
    clients = [quay.client() for _ in range(3)]
    assert quay.take(10) == 3
    assert [(guest.id, guest.state, guest.peer) for guest in quay.reception] == [
        (number, State.QUEUED, client.getsockname()) for number, client in enumerate(clients, 1)
    ]
    assert quay.gate.taken == 3
    quay.run_fibers()
    assert [read_all(client) for client in clients] == [b"hello"] * 3


def test_connection_that_is_over_leaves_nothing(make: Make) -> None:
    quay = make(idle_timeout=60, lifetime=30)
    client = quay.client()
    assert quay.take(1) == 1
    quay.run_fibers()
    assert read_all(client) == b"hello"
    client.close()
    while len(quay.reception):
        quay.hub.turn()
    assert (quay.gate.free, quay.served[0].state) == (100, State.CLOSED)
    assert quay.hub._timers.delay() is None


def test_no_more_are_taken_than_asked_for(make: Make) -> None:
    quay = make()
    _clients = [quay.client() for _ in range(3)]
    assert [quay.take(2), quay.take(2), quay.take(2)] == [2, 1, 0]
    assert quay.gate.taken == 3


def test_no_more_are_taken_than_there_are_tickets(make: Make) -> None:
    quay = make(limit=2)
    _clients = [quay.client() for _ in range(3)]
    assert quay.take(10) == 2
    assert quay.listener.backlog_length() == 1


def test_error_of_the_listener_is_left_to_others(make: Make) -> None:
    quay = make()
    quay.listener.close()
    assert quay.take(10) == 0
    assert quay.gate.free == 100


def test_first_deadline_is_the_nearer_of_the_two(make: Make) -> None:
    quay = make(idle_timeout=3600, lifetime=20)
    _client = quay.client()
    assert quay.take(1) == 1
    left = quay.hub._timers.delay()
    assert left is not None
    assert 18 < left < 20.1


def test_client_for_whom_there_is_no_fiber_leaves_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    quay = make(idle_timeout=60)
    client = quay.client()

    def refuse() -> None:
        raise MemoryError

    monkeypatch.setattr(quay.hub.loop, "_hire", refuse)
    with pytest.raises(MemoryError):
        quay.take(1)
    assert (quay.gate.free, len(quay.reception), quay.hub._timers.delay()) == (100, 0, None)
    assert client.recv(1) == b""


def test_who_wants_to_know_is_told_of_each_and_looks_after_each(make: Make) -> None:
    quay = make()
    sink = Sink(quay.events)
    client, _other = quay.client(), quay.client()
    assert quay.take(10) == 1
    [event] = sink.of(ConnectionOpened)
    assert (event.id, event.peer, event.local) == (1, client.getsockname(), client.getpeername())
    assert quay.take(10) == 1


def test_connection_with_a_beginning_of_its_own_is_our_mistake(make: Make) -> None:
    class Other(Connection):
        def __init__(self, *rest: Any) -> None:
            super().__init__(*rest)

    quay = make()
    quay.reception.make = Other
    with pytest.raises(TypeError, match="__init__ of its own"):
        twins.Intake(0, (2, 1, 6), quay.gate, quay.reception, quay.hub.loop, quay.serve)


# Who has one


def hello(conn: Connection) -> None:
    conn.sendall(b"hello")


def has_intake(**settings: Any) -> bool:
    """Whether the acceptor of such a server has one; its client is served all the same."""
    with Server(hello, settings.pop("bind", "127.0.0.1:0"), **settings) as server:
        [acceptor] = server._acceptors
        if isinstance(server.address, tuple) and "tls_cert" not in settings:
            with socket.create_connection(server.address) as client:
                if settings.get("wait_for_data"):
                    client.sendall(b"x")
                assert read_all(client) == b"hello"
        return acceptor._intake is not None


def test_plain_tcp_under_fibers_has_an_intake() -> None:
    assert has_intake(runner="fibers") == twins.NATIVE


@pytest.mark.parametrize(
    "settings",
    [{"runner": "threads"}, {"wait_for_data": True}, {"max_per_client": 5}, {"accept_rate": 1000.0}],
    ids=str,
)
def test_server_that_asks_more_about_its_clients_has_none(settings: dict[str, Any]) -> None:
    assert not has_intake(**{"runner": "fibers"} | settings)


def test_listener_that_is_no_plain_tcp_over_ipv4_has_none(tmp_path: Path) -> None:
    tls = certificates().server
    assert not has_intake(runner="fibers", bind=f"unix:{tmp_path}/x")
    assert not has_intake(runner="fibers", tls_cert=(tls.cert,), tls_key=(tls.key,))
