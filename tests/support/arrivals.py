"""A place where connections arrive: real sockets, and everything around a setup in the hands of the test.

Owns      the fake watch, the fake door, steps of handshakes that wait for the test, and TLS clients in memory.
Promises  a step is computed when the test says so, unless `at_once`; everything is closed at the end.
"""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moorage.config import ListenerSettings
from moorage.connection import Connection
from moorage.events import Cause, ConnectionClosed, SetupFailed
from moorage.refusal import Overflow
from moorage.rules import Rules
from moorage.setup import Setup

from .certificates import certificates, client_context
from .guests import FakeTicket, Home
from .sockets import PATIENCE, connect_pair

PEER = ("192.0.2.1", 4711)
BALANCERS = "192.0.2.0/24"


@dataclass(frozen=True)
class Settings:
    setup_timeout: float | None = 10.0
    overflow: Overflow = "wait"
    overflow_message: bytes = b""


class FakeCertificates:
    """The same context for everybody."""

    events: Any = None

    def __init__(self) -> None:
        self.made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        files = certificates().server
        self.made.load_cert_chain(files.cert, files.key)

    def context(self) -> ssl.SSLContext:
        return self.made


@dataclass(eq=False)
class FakeListener:
    settings: ListenerSettings
    certificates: FakeCertificates | None = None
    trusted: Rules | None = None


@dataclass
class FakeDoor:
    """Lets everybody in with a ticket around the ticket, or nobody for this cause."""

    cause: Cause | None = None
    asked: list[Any] = field(default_factory=list)
    #: what it was told each time: whether this is the peer, whom the rules were asked about before
    told: list[bool] = field(default_factory=list)

    def enter_claimed(self, ticket: Any, addr: Any, *, is_peer: bool) -> Any:
        self.asked.append(addr)
        self.told.append(is_peer)
        return self.cause or Around(ticket)


class Around(FakeTicket):
    """What a limit of clients makes of a ticket."""

    def __init__(self, ticket: Any) -> None:
        super().__init__()
        self.inner = ticket

    def give_back(self) -> None:
        super().give_back()
        self.inner.give_back()


class Place:
    """One listener with its setup; `arrive` brings a client."""

    def __init__(
        self,
        proxy: str = "off",
        *,
        tls: bool = False,
        mode: str = "implicit",
        trusted: tuple[str, ...] = (BALANCERS,),
        door: FakeDoor | None = None,
        at_once: bool = True,
        home: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.home = Home(**(home or {}))
        self.watch = self.home.watch
        self.sink = self.home.sink
        self.door = door
        self.done: list[Any] = []
        self.steps: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._at_once = at_once
        self._sockets: list[socket.socket] = []
        listener_settings = ListenerSettings(proxy_protocol=proxy, tls_mode=mode)  # type: ignore[arg-type]  # words
        self.listener = FakeListener(
            listener_settings, FakeCertificates() if tls else None, Rules(allow=trusted) if trusted else None
        )
        watch: Any = self.watch
        self.setup = Setup(self.listener, door, Settings(**settings), watch, self.home.events, self._offload)

    def _offload(self, step: Callable[[], None], then: Callable[[], None]) -> None:
        self.steps.append((step, then))
        if self._at_once:
            self.make_step()

    def make_step(self) -> None:
        """Compute the first of the steps that wait, and come back."""
        step, then = self.steps.pop(0)
        step()
        then()

    def arrive(self, family: str = "tcp", peer: Any = PEER) -> "Arriving":
        """A client comes in."""
        ours, theirs = connect_pair(family)
        self._sockets += [ours, theirs]
        ticket = FakeTicket()
        connection = Connection(ours, peer, ticket, self.home, len(self._sockets) // 2)
        connection._opened_at = self.watch.now  # by the clock of the test
        connection.open()
        self.setup.begin(connection, self.done.append)
        return Arriving(self, connection, theirs, ticket)

    def live_timers(self) -> int:
        return sum(not timer.is_cancelled for timer in self.watch.timers)

    def close(self) -> None:
        self.watch.release_lingering()
        for sock in self._sockets:
            sock.close()


class Arriving:
    """One connection in its setup, and its client."""

    def __init__(self, place: Place, connection: Connection, peer: socket.socket, ticket: FakeTicket) -> None:
        self.place = place
        self.connection = connection
        self.peer = peer
        self.ticket = ticket
        self.fd = connection.fileno()

    def send(self, data: bytes) -> None:
        """The client sends this, and the watch sees it."""
        self.peer.sendall(data)
        self.place.watch.wait_parked()

    def send_bytewise(self, data: bytes) -> None:
        """The same, byte by byte, as long as anybody waits for more."""
        for byte in data:
            if not self.is_parked:
                return
            self.send(bytes([byte]))

    def leave(self) -> None:
        """The client closes."""
        self.peer.close()
        self.place.watch.wait_parked()

    @property
    def is_parked(self) -> bool:
        return self.fd in self.place.watch.parked

    def tls(self, **settings: Any) -> "MemoryClient":
        return MemoryClient(self, **settings)

    def closed(self) -> ConnectionClosed:
        """How it ended; it is over, and gave everything back."""
        self.place.watch.release_lingering()
        assert not self.is_parked
        assert self.place.live_timers() == 0
        assert self.connection not in self.place.done
        assert self.ticket.given_back == 1
        [event] = [one for one in self.place.sink.of(ConnectionClosed) if one.id == self.connection.id]
        return event

    def failed(self, cause: Cause) -> str:
        """The reason of a setup that failed for this cause."""
        assert self.closed().cause is cause
        [event] = self.place.sink.of(SetupFailed)
        assert (event.id, event.peer, event.cause) == (self.connection.id, self.connection.peer, cause)
        return event.reason

    def left(self, cause: Cause) -> ConnectionClosed:
        """It ended for this cause, and that is no failure."""
        event = self.closed()
        assert event.cause is cause
        assert self.place.sink.of(SetupFailed) == []
        return event


class MemoryClient:
    """A TLS client whose flights the test carries."""

    def __init__(
        self, arriving: Arriving, context: ssl.SSLContext | None = None, name: str | None = "localhost"
    ) -> None:
        self.arriving = arriving
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = context or client_context()
        self.made = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def flight(self) -> bytes:
        """What it says next."""
        try:
            self.made.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    def hear(self) -> bytes:
        """Take what the server has sent, which is here already or on its way."""
        data = self.arriving.peer.recv(65536)
        self.incoming.write(data)
        return data

    def shake_hands(self, *, bytewise: bool = False) -> None:
        """The whole of it."""
        send = self.arriving.send_bytewise if bytewise else self.arriving.send
        send(self.flight())
        self.arriving.peer.settimeout(PATIENCE)
        while not self.is_done():
            self.hear()
        send(self.outgoing.read())

    def is_done(self) -> bool:
        try:
            self.made.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True
