"""tls_load: what load.c does, through TLS 1.3: keeps one message in flight on each connection, checks every byte.

    python tls_load.py PORT echo|churn CONNECTIONS IDLE SIZE WARMUP COUNT SECONDS AUTHORITY

Owns      the client side of a measurement; one thread, one epoll; the words of load.c on stdin and stdout.
Promises  exactly COUNT messages (or connections) after the warm-up, every reply compared with what was sent; every
          handshake is a full one, in TLS 1.3 with the one cipher; any error, any wrong byte, or SECONDS gone: one
          sentence on stderr and a status that is not 0.
Why       Python, where load.c is C: TLS in C would be a program of its own, and only the server's CPU is counted. A
          slow client would starve a fast server, which then pays a wait for each message, and not a slow one. So
          `echo` goes in rounds: all messages are encrypted first, then sent one after the other, then all replies
          are read. To each server it is the same, and it has always several messages waiting.

echo   CONNECTIONS stay open; IDLE more are opened, echo once and stay silent.
churn  CONNECTIONS loops of: connect, handshake, one message, close_notify and end of stream, wait for the server's.
"""

import contextlib
import os
import select
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

PIECE = 1 << 16
IP_BIND_ADDRESS_NO_PORT = 24  # from linux/in.h
SOURCES = 64  # addresses that churn comes from: closed connections keep their port for a minute
OVER = object()
VERSION, CIPHER = "TLSv1.3", "TLS_AES_256_GCM_SHA384"  # what OpenSSL agrees on unless told otherwise


def fail(sentence: str) -> NoReturn:
    sys.exit(f"tls_load: {sentence}")


def out_of_time(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, b"tls_load: the time limit is over, the server does not keep up or a reply is missing\n")
    os._exit(3)


class Peer:
    """One client, one connection after the other."""

    def __init__(self, number: int, port: int, size: int, context: ssl.SSLContext, source: bool) -> None:
        self.sock: socket.socket
        self._number = number
        self._port = port
        self._filler = (bytes(range(ord("a"), ord("z") + 1)) * (size // 26 + 1))[: size - 19]
        self._context = context
        self._has_source = source
        self._count = 0
        self._expected = b""
        self._got = b""

    def dial(self) -> None:
        """Connect; what is sent and received waits for nothing from then on."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = self._context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.sock = socket.socket()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._has_source:
            self.sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            self.sock.bind((f"127.0.1.{1 + self._count % SOURCES}", 0))
        self.sock.connect(("127.0.0.1", self._port))  # at once: the loopback has no round trip
        self.sock.setblocking(False)

    def shake_hands(self) -> Iterator[None]:
        """Yields whenever more has to come from the server."""
        while True:
            try:
                self._session.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                yield
                self._feed()
        self.flush()
        agreed = (self._session.version(), (self._session.cipher() or ("nothing",))[0])
        if agreed != (VERSION, CIPHER) or self._session.session_reused:
            fail(f"agreed on {agreed}, resumed: {self._session.session_reused}, and not on a new {VERSION}, {CIPHER}")

    def prepare(self) -> None:
        """Encrypt the next message; no two are alike, so a reply to the wrong one shows."""
        self._count += 1
        self._expected, self._got = b"%08x %08x %b\n" % (self._number, self._count, self._filler), b""
        self._session.write(self._expected)

    def flush(self) -> None:
        if (data := self._outgoing.read()) and self.sock.send(data) != len(data):
            fail("a message does not fit into the socket's buffer")

    def receive(self) -> bool:
        """Whether the whole reply is here, and is right."""
        self._feed()
        with contextlib.suppress(ssl.SSLWantReadError):  # what came were tickets, or a part of a record
            while more := self._session.read(PIECE):
                self._got += more
            fail("the server closed a connection in the middle of a reply")
        if not self._expected.startswith(self._got):
            fail("a reply differs from its message")
        return len(self._got) == len(self._expected)

    def must_be_silent(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._feed()
        with contextlib.suppress(ssl.SSLWantReadError):
            fail("surplus bytes after a reply" if self._session.read(1) else "the server closed a connection")

    def visit(self) -> Iterator[None]:
        """A whole connection; yields whenever more has to come from the server."""
        yield from self.shake_hands()
        self.prepare()
        self.flush()
        yield
        while not self.receive():
            yield
        with contextlib.suppress(ssl.SSLWantReadError):
            self._session.unwrap()
        self.flush()
        self.sock.shutdown(socket.SHUT_WR)
        yield
        while self.sock.recv(PIECE):
            yield
        self.sock.close()

    def _feed(self) -> None:
        if data := self.sock.recv(PIECE):
            self._incoming.write(data)
        else:
            fail("the server closed a connection too early")


class Echo:
    """Connections that stay: one after the other they open, then they talk in rounds."""

    def __init__(self, peers: list[Peer], active: int) -> None:
        self._active = peers[:active]
        self._all = peers
        self._epoll = select.epoll()
        for peer in peers:
            peer.dial()
            self._epoll.register(peer.sock.fileno(), select.EPOLLIN)
            for _ in peer.shake_hands():
                self._epoll.poll()
            self._round([peer], {peer.sock.fileno(): peer})
        self._by_fd = {peer.sock.fileno(): peer for peer in self._active}

    def run(self, messages: int) -> None:
        while messages:
            now = self._active[:messages]
            self._round(now, self._by_fd)
            messages -= len(now)

    def end(self) -> None:
        for peer in self._all:
            peer.must_be_silent()

    def _round(self, peers: list[Peer], by_fd: dict[int, Peer]) -> None:
        for peer in peers:
            peer.prepare()
        for peer in peers:
            peer.flush()
        missing = len(peers)
        while missing:
            for fd, _ in self._epoll.poll():
                if fd not in by_fd:
                    fail("the server sends to a connection that has asked for nothing")
                missing -= by_fd[fd].receive()


class Churn:
    """Loops of whole connections, side by side."""

    def __init__(self, peers: list[Peer]) -> None:
        self._peers = peers
        self._epoll = select.epoll()
        self._here: dict[int, tuple[Peer, Iterator[None]]] = {}

    def run(self, connections: int) -> None:
        at_once = self._peers[:connections]
        for peer in at_once:
            self._begin(peer)
        left = connections - len(at_once)
        while self._here:
            for fd, _ in self._epoll.poll():
                peer, visit = self._here[fd]
                if next(visit, OVER) is OVER:
                    del self._here[fd]
                    if left:
                        self._begin(peer)
                        left -= 1

    def end(self) -> None:
        self._epoll.close()

    def _begin(self, peer: Peer) -> None:
        peer.dial()
        visit = peer.visit()
        next(visit)
        self._here[peer.sock.fileno()] = (peer, visit)
        self._epoll.register(peer.sock.fileno(), select.EPOLLIN)


def say(words: str) -> None:
    print(words, flush=True)
    if not sys.stdin.readline():
        sys.exit(2)


def timed(run: Callable[[int], None], messages: int) -> int:
    begun = time.monotonic_ns()
    run(messages)
    return time.monotonic_ns() - begun


def main() -> None:
    port, mode, *numbers, authority = sys.argv[1:]
    connections, idle, size, warmup, count, seconds = map(int, numbers)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(seconds)
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    peers = [Peer(number, int(port), size, context, mode == "churn") for number in range(connections + idle)]
    try:
        load = Churn(peers) if mode == "churn" else Echo(peers, connections)
        say("opened")
        load.run(warmup)
        say("warm")
        nanoseconds = timed(load.run, count)
        load.end()
        say(f"done {nanoseconds} {count}")
    except OSError as error:  # SSLError is one
        fail(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
