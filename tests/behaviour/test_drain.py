"""Drain: live conversations end in good order, idle ones are told, the rest is cut at the deadline."""

import itertools
import threading
import time

import pytest

from moorage import BaseRequestHandler, Connection, ConnectionEnded
from moorage.events import Cause
from support.client import SOON, Client
from support.house import Background, House, Journal, Latch, Open, connected

QUIET = 0.4


def echo_lines(conn: Connection) -> None:
    for line in conn.rfile:
        conn.sendall(line)


def ask(client: Client) -> bytes:
    """The line that comes back for a question."""
    client.sendall(b"?\n")
    return client.line()


# Half a line


def test_half_a_line_at_the_drain_gets_its_reply_when_the_other_half_comes(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        for line in conn.rfile:
            journal.write(line)
            conn.sendall(line)

    opened = house(handle)
    client = opened.client()
    client.sendall(b"half a ")
    drain = opened.drain()
    assert client.hears_nothing(3 * 0.1)  # well beyond drain_quiet
    client.sendall(b"line\n")
    assert client.rest() == b"half a line\n"
    assert drain.result()
    assert journal.read() == "b'half a line\\n'"
    assert journal.is_empty()


@pytest.mark.tls_families("tcp4", "unix")  # there are two ways to wait
def test_half_a_line_without_its_other_half_is_never_a_line(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        try:
            for line in conn.rfile:
                journal.write(line)
        except ConnectionEnded as error:
            journal.write(error.cause)
            raise

    opened = house(handle)
    client = opened.client()
    client.sendall(b"whole\nhalf")
    assert journal.read() == "b'whole\\n'"
    begun = time.monotonic()
    drain = opened.drain(0.3)
    assert client.is_cut()
    drain.result()
    assert 0.25 < time.monotonic() - begun < 2.5
    assert journal.read() in ("drained", "drain_deadline")
    assert journal.is_empty()
    assert opened.is_quiet()


def test_half_a_block_without_its_other_half_is_never_a_block(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        try:
            journal.write(conn.read_exactly(10))
        except ConnectionEnded:
            journal.write("ended")

    opened = house(handle)
    client = opened.client()
    client.sendall(b"12345")
    drain = opened.drain(0.3)
    assert journal.read() == "ended"
    assert client.is_cut()
    drain.result()


@pytest.mark.runners("threads", "fibers", "forks")  # a handler that waits elsewhere holds up `inline`
def test_input_that_nobody_has_read_is_served_before_the_end(house: Open, latch: Latch) -> None:
    def handle(conn: Connection) -> None:
        conn.sendall(conn.readline())
        latch.wait()
        for line in conn.rfile:
            conn.sendall(line)

    opened = house(handle)
    client = opened.client()
    assert client.ask(b"first\n") == b"first\n"
    client.sendall(b"second\nthird\n")
    drain = opened.drain()
    latch.open()
    assert client.rest() == b"second\nthird\n"
    assert drain.result()


# Conversations


def converse(client: Client, pause: float, until: threading.Event, hasty: bool = False) -> int:
    """Requests and replies until the stream ends; every request begun must be answered whole.

    A hasty end may cross a request on its way; even then there is no half of a reply.
    """
    replies = 0
    while True:
        request = b"request %d\n" % replies
        try:
            client.sendall(request)
        except ConnectionError:
            return replies
        reply = client.line()
        if hasty and not reply:
            return replies
        assert reply == request, f"broken reply {reply!r} to {request!r} after {replies}"
        replies += 1
        if not client.hears_nothing(pause):
            assert client.rest() == b""
            return replies
        if until.is_set():
            client.say_no_more()
            assert client.rest() == b""
            return replies


@pytest.mark.runners("threads", "fibers", "forks")
def test_live_conversations_are_not_broken_and_idle_ones_are_told(house: Open) -> None:
    opened = house(echo_lines, drain_quiet=QUIET)
    over = threading.Event()
    with connected(opened, 12) as idle, connected(opened, 12) as busy:
        for client in (*idle, *busy):
            assert client.ask(b"hello\n") == b"hello\n"
        pauses = [0.01 * number for number in range(12)]
        talks = [Background(lambda c=c, p=p: converse(c, p, over)) for c, p in zip(busy, pauses, strict=True)]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        begun = time.monotonic()
        drain = opened.drain()
        for client in idle:
            assert client.rest() == b""
        assert time.monotonic() - begun < 5 * QUIET
        assert not any(talk.is_over() for talk in talks), "a live conversation was told to end"
        over.set()
        assert all(talk.result() >= 1 for talk in talks)
        assert drain.result()
    causes = [opened.cause() for _ in range(24)]
    assert causes.count(Cause.DRAINED) == 12
    assert causes.count(Cause.PEER_CLOSED) == 12


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.runners("threads", "fibers", "forks")
@pytest.mark.families("tcp4")
def test_conversations_that_never_pause_end_between_two_requests(house: Open) -> None:
    """In the last tenth of the window nobody need be quiet any more: end of stream comes instead of a cut."""
    opened = house(echo_lines, drain_quiet=QUIET)
    with connected(opened, 6) as busy:
        for client in busy:
            assert client.ask(b"hello\n") == b"hello\n"
        talks = [Background(lambda c=c: converse(c, 0.02, threading.Event(), hasty=True)) for c in busy]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        drain = opened.drain(3.0)
        assert all(talk.result() > 10 for talk in talks)
        assert drain.result()
    assert {opened.cause() for _ in range(6)} == {Cause.DRAINED}


@pytest.mark.tls_families("tcp4", "unix")
def test_long_reply_is_sent_whole(house: Open) -> None:
    def handle(conn: Connection) -> None:
        conn.readline()
        conn.sendall(b"x" * 8_000_000)

    opened = house(handle)
    client = opened.client()
    client.sendall(b"go\n")
    first = client.receive(1000)
    drain = opened.drain()
    assert len(first + client.rest()) == 8_000_000
    assert drain.result()


def test_draining_is_what_the_handler_sees(house: Open, journal: Journal) -> None:
    def handle(conn: Connection) -> None:
        for _line in conn.rfile:
            conn.sendall(b"draining\n" if conn.draining else b"open\n")

    opened = house(handle, drain_quiet=0.2)
    client = opened.client()
    assert ask(client) == b"open\n"
    drain = opened.drain()
    deadline = time.monotonic() + SOON
    while ask(client) == b"open\n":  # until the news has reached the handler
        assert time.monotonic() < deadline
    assert client.rest() == b""
    assert drain.result()


def test_handle_shutdown_runs_once_for_each_connection(house: Open, journal: Journal) -> None:
    class Polite(BaseRequestHandler):
        def handle(self) -> None:
            while self.request.readline():
                self.request.sendall(b"ok\n")

        def handle_shutdown(self) -> None:
            journal.write("goodbye")
            self.request.sendall(b"goodbye\n")

    opened = house(Polite)
    client = opened.client()
    assert ask(client) == b"ok\n"
    drain = opened.drain()
    opened.server.watch.wake()
    assert client.rest() == b"goodbye\n"
    assert drain.result()
    assert opened.server.drain()
    assert journal.read() == "goodbye"
    assert journal.is_empty()


# The backlog


def test_clients_in_the_backlog_are_served(house: Open) -> None:
    opened = house(echo_lines)
    opened.server.suspend()
    with connected(opened, 5) as waiting:
        for number, client in enumerate(waiting):
            client.sendall(b"%d\n" % number)
            client.say_no_more()
        drain = opened.drain()
        assert [client.rest() for client in waiting] == [b"%d\n" % number for number in range(5)]
    assert drain.result()


def test_clients_in_the_backlog_wait_for_the_gate(house: Open) -> None:
    opened = house(echo_lines, max_connections=1)
    first = opened.client()
    assert first.ask(b"first\n") == b"first\n"
    with connected(opened, 4) as waiting:
        for client in waiting:
            client.sendall(b"later\n")
            client.say_no_more()
        drain = opened.drain()
        first.say_no_more()
        assert first.rest() == b""
        assert [client.rest() for client in waiting] == [b"later\n"] * 4
    assert drain.result()


def test_clients_who_come_after_the_drain_are_refused(house: Open) -> None:
    opened = house(echo_lines)
    address = opened.server.address
    assert opened.server.drain()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)), Client(address):
        pass


def test_delay_goes_on_accepting(house: Open) -> None:
    opened = house(echo_lines, drain_delay=0.3)
    begun = time.monotonic()
    drain = Background(opened.server.drain)
    with opened.client() as late:
        assert late.ask(b"late\n") == b"late\n"
    assert drain.result()
    assert time.monotonic() - begun >= 0.3


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@pytest.mark.runners("threads", "fibers", "forks")
@pytest.mark.families("tcp4")
def test_spread_tells_one_after_the_other(house: Open) -> None:
    opened = house(echo_lines, drain_spread=0.8, drain_quiet=0.0)
    with connected(opened, 10) as clients:
        for client in clients:
            assert client.ask(b"x\n") == b"x\n"
        begun = time.monotonic()
        drain = opened.drain()
        ends = [Background(lambda c=c: (c.rest(), time.monotonic() - begun)[1]) for c in clients]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        moments = sorted(end.result() for end in ends)
    assert drain.result()
    assert moments[-1] - moments[0] > 0.4
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 0.4


# The deadline


def hold(house: Open, handler: object) -> tuple[House, Client]:
    opened = house(handler)
    client = opened.client()
    assert client.ask(b"x") == b"x"
    return opened, client


@pytest.mark.security("plain")  # the handler does not look at its connection
@pytest.mark.runners("threads")
@pytest.mark.families("tcp4")
def test_deadline_logs_the_stack_of_a_handler_that_does_not_return(house: Open, latch: Latch) -> None:
    def stuck_in_here(conn: Connection) -> None:
        conn.sendall(conn.recv(1))
        latch.wait()

    opened, client = hold(house, stuck_in_here)
    begun = time.monotonic()
    assert opened.server.drain(0.2) is False
    assert time.monotonic() - begun < 5.0
    assert client.is_cut()
    assert "stuck_in_here" in opened.stacks()[0]
    latch.open()
    assert opened.cause() is Cause.DRAIN_DEADLINE


@pytest.mark.security("plain")  # the handler does not look at its connection
@pytest.mark.runners("forks")
@pytest.mark.families("tcp4")
def test_deadline_kills_a_child_that_does_not_return(house: Open, latch: Latch) -> None:
    def stuck(conn: Connection) -> None:
        conn.sendall(conn.recv(1))
        while True:
            try:
                latch.wait()
            except BaseException:
                continue

    opened, client = hold(house, stuck)
    begun = time.monotonic()
    assert opened.server.drain(0.2) is False
    assert time.monotonic() - begun < 6.0
    assert client.is_cut()


def test_deadline_cuts_a_client_that_never_stops_sending(house: Open) -> None:
    def discard(conn: Connection) -> None:
        conn.sendall(b"x")
        while conn.recv(65536):
            pass

    opened = house(discard)
    client = opened.client()
    assert client.receive(1) == b"x"
    client.settimeout(0.5)
    drain = opened.drain(0.3)
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < SOON:
            client.sendall(b"y" * 1000)
    except OSError:
        pass
    assert time.monotonic() - begun < 4.0
    drain.result()
    client.close()
    assert opened.cause() in (Cause.DRAIN_DEADLINE, Cause.DRAINED)


@pytest.mark.runners("threads", "fibers", "forks")
def test_second_drain_can_only_bring_the_deadline_nearer(house: Open, latch: Latch) -> None:
    def stuck(conn: Connection) -> None:
        conn.sendall(conn.recv(1))
        conn.read_exactly(10)

    opened, client = hold(house, stuck)
    client.sendall(b"half")
    begun = time.monotonic()
    drains = [opened.drain(SOON)]
    drains += [Background(lambda seconds=seconds: opened.server.drain(seconds)) for seconds in (10 * SOON, 0.2, None)]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    assert client.is_cut()
    assert [drain.result() for drain in drains] == [False] * 4
    assert time.monotonic() - begun < 3.0
