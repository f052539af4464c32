"""A server for one test, and what its handlers tell the test.

Owns      `House`, the server with its ends and failures; `Journal` and `Latch`, by which handlers talk to
          the test from whatever thread or process they run in.
Promises  every wait ends after `SOON` seconds; at the end nothing of the server is left behind.
"""

import os
import select
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from moorage.events import Cause, ConnectionClosed, DrainStarted, HandlerFailed, HandlersCut, SetupFailed
from moorage.hub.parking import this_loop
from moorage.locks import Event
from moorage.server import Server

from .certificates import certificates
from .client import SOON, Client
from .tls_client import NAME, TlsClient

__all__ = ["Background", "House", "Journal", "Latch", "Open", "Place", "connected", "house_at"]

QUICK = {"drain_quiet": 0.1}
T = TypeVar("T")

THREADS = "moorage"  # how the names of all our threads begin
SHARED = "moorage-blocking"  # those of `run_blocking`, which belong to the process and end when they are idle


def is_ours(thread: str) -> bool:
    """Whether a thread of this name belongs to a server."""
    return thread.startswith(THREADS) and not thread.startswith(SHARED)


@dataclass(frozen=True)
class Place:
    """Where a behaviour is shown: one runner, one family of sockets, plain or over TLS."""

    runner: str
    family: str
    security: str = "plain"

    def bind(self, folder: str) -> str:
        return {"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": f"unix:{folder}/s"}[self.family]

    def settings(self) -> dict[str, Any]:
        """What a server needs for it."""
        if self.security == "plain":
            return {}
        files = certificates().server
        return {"tls_cert": files.cert, "tls_key": files.key}

    def client(self, address: Any, receive_buffer: int | None = None) -> Client:
        """A client of a server there."""
        return (TlsClient if self.security == "tls" else Client)(address, receive_buffer)

    def __str__(self) -> str:
        return "-".join([self.runner, self.family, *(["tls"] if self.security == "tls" else [])])


class House:
    """A server that runs, and its clients, which are closed at the end."""

    def __init__(self, server: Server, stack: ExitStack, place: Place) -> None:
        self.server = server
        self.place = place
        self._stack = stack
        self._ends = server.events.queue(10_000, ConnectionClosed)
        self._failures = server.events.queue(1000, HandlerFailed)
        self._setups = server.events.queue(1000, SetupFailed)
        self._drains = server.events.queue(10, DrainStarted)
        self._stacks = server.events.queue(10, HandlersCut)

    def client(self, receive_buffer: int | None = None) -> Client:
        """A client that stays until the end of the test, or of a `with` block."""
        return self._stack.enter_context(self.place.client(self.server.address, receive_buffer))

    def tls_client(
        self, context: ssl.SSLContext | None = None, name: str | None = NAME, *, secured: bool = True
    ) -> TlsClient:
        """One that says more of its TLS; `secured=False`: it begins in plain text."""
        client = TlsClient(self.server.address, context=context, name=name, secured=secured)
        return self._stack.enter_context(client)

    def raw_client(self) -> Client:
        """One that speaks plain text, whatever the server does."""
        return self._stack.enter_context(Client(self.server.address))

    def end(self) -> ConnectionClosed:
        """How the next connection ended."""
        event = self._ends.get(SOON)
        assert isinstance(event, ConnectionClosed)
        return event

    def cause(self) -> Cause:
        """Why the next connection ended."""
        return self.end().cause

    def failure(self) -> BaseException:
        """What the next handler raised."""
        event = self._failures.get(SOON)
        assert isinstance(event, HandlerFailed)
        return event.error

    def setup_failure(self) -> SetupFailed:
        """Whose handshake failed next, and why."""
        event = self._setups.get(SOON)
        assert isinstance(event, SetupFailed)
        return event

    def setup_failures(self) -> int:
        """How many handshakes have failed that nobody has asked for yet."""
        return len(self._setups._events)

    def stacks(self) -> tuple[str, ...]:
        """Where the handlers were that did not return."""
        event = self._stacks.get(SOON)
        assert isinstance(event, HandlersCut)
        return event.stacks

    def is_quiet(self) -> bool:
        """Whether no handler has failed so far."""
        return not self._failures._events

    def drain(self, timeout: float | None = SOON) -> "Background[bool]":
        """Begin a drain; returns when it has begun."""
        drain = Background(lambda: self.server.drain(timeout))
        self._drains.get(SOON)
        return drain


Open = Callable[..., House]


@contextmanager
def house_at(place: Place, folder: str) -> Iterator[Open]:
    """Opens servers at this place; closes them at the end, and looks that nothing of them is left."""
    houses: list[House] = []
    with ExitStack() as stack:

        def open_house(handler: Any, *, start: bool = True, **settings: Any) -> House:
            settings = {**QUICK, **place.settings(), **settings}
            server = Server(handler, place.bind(folder), runner=place.runner, **settings)
            stack.callback(server.close)
            house = House(server, stack, place)
            houses.append(house)
            if start:
                server.start()
            return house

        yield open_house
    for house in houses:
        assert house.server.wait_for_connections(0, SOON)
        assert house.server.fileno() == -1
    for thread in threading.enumerate():
        if is_ours(thread.name):
            thread.join(SOON)
            assert not thread.is_alive(), f"{thread.name} is left behind"


@contextmanager
def connected(house: House, count: int) -> Iterator[list[Client]]:
    """So many clients."""
    with ExitStack() as stack:
        yield [stack.enter_context(house.place.client(house.server.address)) for _ in range(count)]


class Journal:
    """Words from handlers to the test, one at a time."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._words: list[str] = []

    def write(self, word: object) -> None:
        """One word; in one system call, which is all or nothing below 4 KiB."""
        os.write(self._write, f"{word}\n".encode())

    def read(self) -> str:
        """The next word."""
        if not self._words:
            assert select.select([self._read], [], [], SOON)[0], "no handler has written anything"
            self._words = os.read(self._read, 65536).decode().splitlines()
        return self._words.pop(0)

    def stays_empty(self, seconds: float) -> bool:
        """Whether there is nothing to read, and nothing comes within this time."""
        return not self._words and not select.select([self._read], [], [], seconds)[0]

    def is_empty(self) -> bool:
        """Whether all was read."""
        return self.stays_empty(0)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Latch:
    """Closed until the test opens it, once for all."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0)
        self._event = Event()

    def open(self) -> None:
        os.eventfd_write(self._fd, 1)
        self._event.set()

    def wait(self) -> None:
        """Until it is open; a fiber lets the others run meanwhile."""
        if this_loop() is not None:
            assert self._event.wait(SOON), "the latch was never opened"
            return
        assert select.select([self._fd], [], [], SOON)[0], "the latch was never opened"

    def __del__(self) -> None:  # a handler may look at it until the very end
        os.close(self._fd)


class Background(Generic[T]):
    """A call in another thread, and its result."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._results: list[T] = []
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def result(self) -> T:
        """What the call returned; raises what it raised."""
        self._thread.join(SOON + 10)
        assert not self._thread.is_alive(), "the call did not come back"
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def is_over(self) -> bool:
        """Whether the call came back."""
        return not self._thread.is_alive()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self._results.append(call())
        except BaseException as error:
            self._errors.append(error)
