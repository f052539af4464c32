"""Handlers written for the standard library, unmodified; and what our own base classes add."""

import socket
import socketserver
from typing import Any

import pytest

import moorage
from moorage.events import Cause
from support.house import Journal, Open, Place

pytestmark = pytest.mark.security("plain")  # they stand on the calls of a connection; of TLS those know, not these


class Lines(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class Unbuffered(Lines):
    rbufsize = 0


class SmallBuffer(Lines):
    rbufsize = 3


class BufferedWrites(Lines):
    wbufsize = 4096

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line[:1])
            self.wfile.write(line[1:])
            self.wfile.flush()


class DefaultBuffer(BufferedWrites):
    wbufsize = -1


class WithTimeout(Lines):
    timeout = 5


class Recv(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(8192):
            self.request.send(data)


class Mixed(Lines):
    def handle(self) -> None:
        self.request.sendall(self.rfile.readline())
        self.connection.sendall(self.rfile.read(5))
        while data := self.rfile.readline():
            self.wfile.write(data)


class Ours(moorage.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class OursBuffered(Ours):
    wbufsize = 4096

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)
            self.wfile.flush()


class Factory:
    """Any callable with the contract is a handler, as in the standard library."""

    def __call__(self, request: object, client_address: object, server: object) -> None:
        Lines(request, client_address, server)  # type: ignore[arg-type]


@pytest.mark.security("plain", "tls")
@pytest.mark.parametrize(
    "handler",
    [
        Lines, Unbuffered, SmallBuffer, BufferedWrites, DefaultBuffer, WithTimeout, Recv, Mixed, Ours, OursBuffered,
        Factory(),
    ],
    ids=lambda handler: getattr(handler, "__name__", "Factory"),
)  # fmt: skip
def test_handler_echoes(house: Open, handler: type[socketserver.BaseRequestHandler]) -> None:
    opened = house(handler)
    client = opened.client()
    for line in (b"one\n", b"two2\n", b"three\n"):
        assert client.ask(line) == line
    client.sendall(b"x" * 20_000 + b"\n")
    assert client.receive(20_001) == b"x" * 20_000 + b"\n"
    client.say_no_more()
    assert client.rest() == b""
    assert opened.cause() is Cause.PEER_CLOSED
    assert opened.is_quiet()


@pytest.mark.parametrize("base", [socketserver.StreamRequestHandler, moorage.StreamRequestHandler])
def test_unbuffered_read_returns_what_is_there(house: Open, base: type[socketserver.StreamRequestHandler]) -> None:
    class Raw(base):  # type: ignore[misc, valid-type]
        rbufsize = 0

        def handle(self) -> None:
            while data := self.rfile.read(8192):
                self.wfile.write(data)

    client = house(Raw).client()
    assert client.ask(b"not 8192 bytes") == b"not 8192 bytes"
    client.say_no_more()
    assert client.rest() == b""


@pytest.mark.parametrize("base", [socketserver.StreamRequestHandler, moorage.StreamRequestHandler])
def test_what_is_buffered_is_sent_at_the_end(house: Open, base: type[socketserver.StreamRequestHandler]) -> None:
    class Last(base):  # type: ignore[misc, valid-type]
        wbufsize = 4096

        def handle(self) -> None:
            self.wfile.write(b"not flushed by the handler")

    assert house(Last).client().rest() == b"not flushed by the handler"


@pytest.mark.families("tcp4", "tcp6")
@pytest.mark.parametrize("base", [socketserver.StreamRequestHandler, moorage.StreamRequestHandler])
def test_nagle_is_as_the_class_says(
    house: Open, journal: Journal, base: type[socketserver.StreamRequestHandler]
) -> None:
    class Handler(base):  # type: ignore[misc, valid-type]
        disable_nagle_algorithm = True

        def handle(self) -> None:
            journal.write(self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)

    house(Handler, nodelay=False).client().rest()
    assert journal.read() == "True"


def test_server_that_a_handler_sees_is_the_server(house: Open, journal: Journal, place: Place) -> None:
    class Look(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            journal.write(self.server.server_address)
            journal.write(self.server.RequestHandlerClass.__name__)
            journal.write(self.server.state.greeting)  # type: ignore[attr-defined]
            if place.runner != "forks":  # there, a child has no listener
                listening: Any = self.server
                journal.write(listening.socket.fileno() == listening.fileno() >= 0)
            journal.write(self.client_address == self.request.peer)

    def start(server: moorage.Server) -> None:
        server.state.greeting = "hello"

    opened = house(Look, worker_start=start)
    address = opened.server.server_address
    opened.client().rest()
    assert journal.read() == str(address)
    assert [journal.read(), journal.read()] == ["Look", "hello"]
    assert {journal.read() for _ in range(1 if place.runner == "forks" else 2)} == {"True"}


# setup and finish


@pytest.mark.parametrize("base", [moorage.BaseRequestHandler, moorage.StreamRequestHandler])
@pytest.mark.parametrize("where", ["setup", "handle", "nowhere"])
def test_finish_runs_whatever_raises(
    house: Open, journal: Journal, base: type[socketserver.BaseRequestHandler], where: str
) -> None:
    class Handler(base):  # type: ignore[misc, valid-type]
        def setup(self) -> None:
            journal.write("setup")
            if where == "setup":
                raise LookupError(where)
            super().setup()

        def handle(self) -> None:
            journal.write("handle")
            if where == "handle":
                raise LookupError(where)

        def finish(self) -> None:
            super().finish()
            journal.write("finish")

    opened = house(Handler)
    assert opened.client().rest() == b""
    cause = opened.cause()
    seen = [journal.read()]
    while not journal.is_empty():
        seen.append(journal.read())
    assert seen == (["setup", "finish"] if where == "setup" else ["setup", "handle", "finish"])
    assert cause is (Cause.HANDLER_DONE if where == "nowhere" else Cause.HANDLER_ERROR)


def test_finish_of_a_client_that_left_is_quiet(house: Open) -> None:
    class Last(socketserver.StreamRequestHandler):
        wbufsize = 100_000

        def handle(self) -> None:
            self.wfile.write(b"x" * 50_000)
            self.rfile.readline()
            self.wfile.write(b"x" * 40_000)

    opened = house(Last)
    client = opened.client()
    client.close()
    assert opened.cause() in (Cause.PEER_CLOSED, Cause.RESET)
    assert opened.is_quiet()


@pytest.mark.families("tcp4", "tcp6")
def test_stdlib_file_keeps_its_bytes_over_a_timeout(house: Open) -> None:
    """The standard library's `rfile` throws the begun line away and then refuses to go on."""

    class Patient(socketserver.StreamRequestHandler):
        timeout = 0.05

        def handle(self) -> None:
            timeouts = 0
            while True:
                try:
                    self.wfile.write(self.rfile.readline())
                    return
                except TimeoutError:
                    timeouts += 1
                    if timeouts == 2:
                        self.wfile.write(b"?")

    client = house(Patient).client()
    client.sendall(b"half ")
    assert client.receive(1) == b"?"
    client.sendall(b"line\n")
    assert client.rest() == b"half line\n"
