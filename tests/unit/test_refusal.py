"""Refusal: a message and an orderly end, a reset, and the descriptor in reserve."""

import _socket
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from moorage.events import Cause, ConnectionRefused, Event, Events
from moorage.refusal import LINGERING_REFUSED, RESERVE_AT_ONCE, LateRefusal, Overflow, Refusal
from support.fake_watch import FakeWatch
from support.guests import Guest
from support.sockets import reset

ADDR = ("192.0.2.1", 4000)


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, _socket.socket]]:
    """A client, and the server's side as a listener hands it out."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=10) as client,
    ):
        fd, _ = listener._accept()  # type: ignore[attr-defined]
        sock = _socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
        yield client, sock
        sock.close()


@pytest.fixture
def watch() -> FakeWatch:
    return FakeWatch()


def make(watch: FakeWatch, overflow: Overflow, message: bytes = b"", said: list[Event] | None = None) -> Refusal:
    events = Events()
    if said is not None:
        events.subscribe(said.append)
    return Refusal(overflow, message, watch, events)


def test_refusal_sends_message_and_end_of_stream(watch: FakeWatch) -> None:
    with tcp_pair() as (client, sock):
        make(watch, "refuse", b"busy\r\n").refuse(sock, ADDR)
        assert client.recv(100) == b"busy\r\n"
        assert client.recv(100) == b""
        assert [one for one, _ in watch.lingering] == [sock]
        watch.release_lingering()


def test_refusal_without_a_message_is_end_of_stream(watch: FakeWatch) -> None:
    with tcp_pair() as (client, sock):
        make(watch, "refuse").refuse(sock, ADDR)
        assert client.recv(100) == b""
        watch.release_lingering()


def test_refusal_by_reset_resets(watch: FakeWatch) -> None:
    with tcp_pair() as (client, sock):
        make(watch, "reset", b"not sent").refuse(sock, ADDR)
        assert sock.fileno() == -1
        with pytest.raises(ConnectionResetError):
            client.recv(100)


@pytest.mark.parametrize("overflow", ["wait", "refuse", "reset"])
def test_refusal_of_whom_a_rule_denies_is_a_close_at_once_without_a_word(watch: FakeWatch, overflow: Overflow) -> None:
    said: list[Event] = []
    with tcp_pair() as (client, sock):
        make(watch, overflow, b"busy", said).refuse(sock, ADDR, Cause.DENIED)
        assert sock.fileno() == -1
        assert client.recv(100) == b""
    assert watch.lingering == []
    assert said == [ConnectionRefused(ADDR, Cause.DENIED)]


def test_refusal_is_an_event(watch: FakeWatch) -> None:
    said: list[Event] = []
    with tcp_pair() as (_, sock):
        make(watch, "reset", said=said).refuse(sock, ADDR)
    assert said == [ConnectionRefused(ADDR, Cause.REFUSED_TOTAL)]


def test_refusal_says_the_cause_it_was_given(watch: FakeWatch) -> None:
    said: list[Event] = []
    with tcp_pair() as (_, sock):
        make(watch, "reset", said=said).refuse(sock, ADDR, Cause.REFUSED_CLIENT)
    assert said == [ConnectionRefused(ADDR, Cause.REFUSED_CLIENT)]


def test_refusal_where_others_wait_sends_message_and_end_of_stream(watch: FakeWatch) -> None:
    with tcp_pair() as (client, sock):
        make(watch, "wait", b"busy\r\n").refuse(sock, ADDR, Cause.REFUSED_CLIENT)
        assert client.recv(100) == b"busy\r\n"
        assert client.recv(100) == b""
        assert [one for one, _ in watch.lingering] == [sock]
        watch.release_lingering()


def test_refusal_of_a_client_that_is_gone_is_quiet(watch: FakeWatch) -> None:
    with tcp_pair() as (client, sock):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        make(watch, "refuse", b"busy").refuse(sock, ADDR)
        watch.release_lingering()


def test_refusal_to_a_full_pipe_does_not_wait(watch: FakeWatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        make(watch, "refuse", b"x" * 10_000_000).refuse(ours, "")  # returns, or the test times out
        watch.release_lingering()


def test_refusal_flood_lets_a_bounded_number_linger(watch: FakeWatch) -> None:
    refusal = make(watch, "refuse", b"busy")
    pairs = [socket.socketpair() for _ in range(LINGERING_REFUSED + 3)]
    for ours, _ in pairs:
        refusal.refuse(ours, "")
    assert len(watch.lingering) == LINGERING_REFUSED
    assert [ours.fileno() for ours, _ in pairs[-3:]] == [-1, -1, -1]
    assert pairs[-1][1].recv(100) == b"busy"
    watch.release_lingering()
    ours, theirs = socket.socketpair()
    refusal.refuse(ours, "")
    assert len(watch.lingering) == 1
    watch.release_lingering()
    for sock in (theirs, *(theirs for _, theirs in pairs)):
        sock.close()


# Connections that were admitted


@contextmanager
def admitted(count: int = 1) -> Iterator[list[Guest]]:
    guests = [Guest(begin=False) for _ in range(count)]
    yield guests
    for one in guests:
        one.home.watch.release_lingering()
        one.close()


def test_late_refusal_gives_the_ticket_back_before_it_lingers() -> None:
    with admitted() as [one]:
        order: list[str] = []
        one.ticket.give_back = lambda: order.append("ticket")  # type: ignore[method-assign]  # the order is what we look at
        one.home.watch.linger = lambda *_: order.append("linger")  # type: ignore[method-assign]  # the same
        LateRefusal("refuse", b"busy").refuse(one.connection, Cause.REFUSED_RATE)
        assert order == ["ticket", "linger"]
        assert one.peer.recv(100) == b"busy"
        assert one.peer.recv(100) == b""


def test_late_refusal_is_closed_once_and_gives_one_ticket_back() -> None:
    with admitted() as [one]:
        LateRefusal("refuse", b"busy").refuse(one.connection, Cause.REFUSED_RATE)
        assert (one.ticket.given_back, one.home.forgotten) == (1, [])
        one.home.watch.release_lingering()
        assert (one.ticket.given_back, one.home.forgotten) == (1, [one.connection])
        assert one.closed().cause is Cause.REFUSED_RATE


def test_late_refusal_flood_lets_a_bounded_number_linger() -> None:
    refusal = LateRefusal("refuse", b"busy")
    with admitted(LINGERING_REFUSED + 4) as guests:
        for one in guests[:-1]:
            refusal.refuse(one.connection, Cause.REFUSED_CLIENT)
        lingering = [len(one.home.watch.lingering) for one in guests]
        assert lingering == [1] * LINGERING_REFUSED + [0] * 4
        assert [one.ticket.given_back for one in guests] == [1] * (len(guests) - 1) + [0]
        for one in guests[LINGERING_REFUSED:-1]:
            assert one.closed().cause is Cause.REFUSED_CLIENT
            assert one.peer.recv(100) == b"busy"
        guests[0].home.watch.release_lingering()
        refusal.refuse(guests[-1].connection, Cause.REFUSED_CLIENT)
        assert len(guests[-1].home.watch.lingering) == 1


def test_late_refusal_of_a_client_that_is_gone_is_quiet_and_does_not_count_as_lingering() -> None:
    refusal = LateRefusal("refuse", b"busy")
    with admitted(LINGERING_REFUSED + 1) as guests:
        for one in guests[:-1]:
            reset(one.peer)
            refusal.refuse(one.connection, Cause.REFUSED_RATE)
            assert (one.closed().cause, one.ticket.given_back) == (Cause.REFUSED_RATE, 1)
        refusal.refuse(guests[-1].connection, Cause.REFUSED_RATE)
        assert len(guests[-1].home.watch.lingering) == 1


def test_late_refusal_of_a_connection_that_was_ended_keeps_the_first_cause() -> None:
    with admitted() as [one]:
        one.connection.end(Cause.LIFETIME)
        LateRefusal("refuse", b"busy").refuse(one.connection, Cause.REFUSED_RATE)
        one.home.watch.release_lingering()
        assert (one.closed().cause, one.ticket.given_back) == (Cause.LIFETIME, 1)


@pytest.mark.parametrize(
    ("overflow", "message", "cause"),
    [
        ("refuse", b"", Cause.REFUSED_RATE),
        ("wait", b"", Cause.REFUSED_CLIENT),
        ("refuse", b"busy", Cause.DENIED),
        ("reset", b"", Cause.DENIED),
    ],
)
def test_late_refusal_without_a_word_is_a_close_at_once(overflow: Overflow, message: bytes, cause: Cause) -> None:
    with admitted() as [one]:
        LateRefusal(overflow, message).refuse(one.connection, cause)
        assert (one.closed().cause, one.ticket.given_back) == (cause, 1)
        assert one.home.watch.lingering == []
        assert one.peer.recv(100) == b""


def test_late_refusal_by_reset_resets() -> None:
    with admitted() as [one]:
        LateRefusal("reset", b"not sent").refuse(one.connection, Cause.REFUSED_RATE)
        assert (one.closed().cause, one.ticket.given_back) == (Cause.REFUSED_RATE, 1)
        with pytest.raises(ConnectionResetError):
            one.peer.recv(100)


# The reserve


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(("overflow", "held"), [("wait", 0), ("refuse", 1), ("reset", 1)])
def test_reserve_is_held_only_where_it_is_used(watch: FakeWatch, overflow: Overflow, held: int) -> None:
    before = open_fds()
    refusal = make(watch, overflow)
    refusal.open()
    refusal.open()
    assert open_fds() - before == held
    refusal.close()
    refusal.close()
    assert open_fds() == before


@pytest.mark.parametrize("overflow", ["refuse", "reset"])
def test_reserve_is_free_while_clients_are_refused_on_it_and_held_again_after(
    watch: FakeWatch, overflow: Overflow
) -> None:
    refusal = make(watch, overflow, b"busy")
    refusal.open()
    held = open_fds()
    waiting = [socket.socketpair() for _ in range(3)]
    clients = [theirs for _, theirs in waiting]
    free: list[int] = []

    def accept() -> tuple[_socket.socket, str]:
        if not waiting:
            raise BlockingIOError(errno.EAGAIN, "nobody")
        free.append(held + 2 * len(waiting) - open_fds() + (len(clients) - len(waiting)))
        return waiting.pop(0)[0], ""

    refusal.use_reserve(accept)
    assert free == [1, 1, 1]  # each is closed before the next is accepted
    assert watch.lingering == []
    assert open_fds() == held + len(clients)
    if overflow == "refuse":
        assert [client.recv(100) for client in clients] == [b"busy"] * 3
    refusal.close()
    for client in clients:
        client.close()


def test_reserve_refuses_a_bounded_number(watch: FakeWatch) -> None:
    refusal = make(watch, "reset")
    refusal.open()
    peers: list[socket.socket] = []

    def accept() -> tuple[_socket.socket, str]:
        ours, theirs = socket.socketpair()
        peers.append(theirs)
        return ours, ""

    refusal.use_reserve(accept)
    assert len(peers) == RESERVE_AT_ONCE
    refusal.close()
    for peer in peers:
        peer.close()


def test_reserve_lost_is_made_up_for_at_the_next_chance(watch: FakeWatch) -> None:
    refusal = make(watch, "reset")  # never opened: as if there had been no descriptor
    before = open_fds()

    def accept() -> tuple[_socket.socket, str]:
        raise AssertionError("without a reserve there is nothing to accept on")

    refusal.use_reserve(accept)
    assert open_fds() == before + 1
    refusal.close()
