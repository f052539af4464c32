"""Connection: its states, the one cause of its end, and who may close what."""

import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from moorage.connection import FAREWELL, READ_SIDE, SWALLOWED
from moorage.errors import ConnectionEnded, HandlerStopped, InternalError
from moorage.events import CAUSES, Cause, Phase, RefusalObserved, SetupFailed, TlsEstablished
from moorage.state import NEXT, State
from moorage.transport.proxy_header import ProxyHeader
from support.clock import FakeClock
from support.guests import Guest, guest
from support.sockets import FAMILIES, pair, read_all
from support.tls_pairs import NAME, Peer, client_context, server_context
from support.twins import clock_of_natives
from support.waiting import Running, eventually, in_thread


@pytest.fixture(params=FAMILIES)
def one(request: pytest.FixtureRequest) -> Iterator[Guest]:
    with guest(request.param) as one:
        yield one


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClock]:
    clock = FakeClock()
    for module in ("connection", "lifecycle", "transport.stream", "transport.careful", "transport.socketlike"):
        monkeypatch.setattr(f"moorage.{module}.monotonic", clock)
    with clock_of_natives(clock):
        yield clock


# States


def bring(one: Guest, state: State) -> None:
    """By the shortest way."""
    ways: dict[State, list[Callable[[], object]]] = {
        State.ACCEPTED: [],
        State.PROXY: [lambda: one.connection._move(State.PROXY)],
        State.TLS: [lambda: one.connection._move(State.TLS)],
        State.WAITING: [one.connection.wait],
        State.QUEUED: [one.connection.queue],
        State.HANDLER: [one.connection.queue, one.begin],
        State.LINGERING: [one.connection.queue, one.begin, one.connection.finish],
        State.DETACHED: [one.connection.queue, one.begin, lambda: os.close(one.connection.detach())],
        State.CLOSED: [one.connection.release],
    }
    for step in ways[state]:
        step()
    assert one.connection.state is state


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("verb", ["wait", "queue", "begin", "detach", "release"])
def test_every_move_is_legal_or_refused_in_one_place(state: State, verb: str) -> None:
    target = {
        "wait": State.WAITING, "queue": State.QUEUED, "begin": State.HANDLER, "detach": State.DETACHED,
        "release": State.CLOSED,
    }[verb]  # fmt: skip
    with guest(begin=False) as one:
        bring(one, state)
        call: Callable[[], Any] = one.begin if verb == "begin" else getattr(one.connection, verb)
        if target in NEXT[state]:
            result = call()
            assert one.connection.state is target
            if verb == "detach":
                os.close(result)
        else:
            with pytest.raises(InternalError, match=f"cannot go from {state.value} to {target.value}"):
                call()
            assert one.connection.state is state


def test_every_state_but_the_last_two_has_a_way_out() -> None:
    assert set(NEXT) == set(State)
    assert {state for state, following in NEXT.items() if not following} == {State.DETACHED, State.CLOSED}


# The end, as the holder makes it


def test_finished_connection_lingers_then_closes_once(one: Guest) -> None:
    one.arrive(b"never read")
    one.connection.sendall(b"reply")
    one.connection.finish()
    states = [one.connection.state]
    assert one.ticket.given_back == 0
    assert read_all(one.peer) == b"reply"
    one.home.watch.release_lingering()
    states.append(one.connection.state)
    assert states == [State.LINGERING, State.CLOSED]
    assert one.connection.fileno() == -1
    assert one.ticket.given_back == 1
    assert one.home.forgotten == [one.connection]
    event = one.closed()
    assert (event.id, event.peer, event.cause, event.phase) == (7, "peer", Cause.HANDLER_DONE, Phase.HANDLER)
    assert (event.bytes_sent, event.bytes_received) == (5, 0)


def test_connection_whose_peer_has_left_does_not_linger(one: Guest) -> None:
    one.peer.close()
    assert one.connection.recv(10) == b""
    one.connection.finish()
    assert one.connection.state is State.CLOSED
    assert one.closed().cause is Cause.PEER_CLOSED
    assert one.ticket.given_back == 1


def test_finish_after_the_end_does_nothing(one: Guest) -> None:
    one.connection.finish()
    one.home.watch.release_lingering()
    one.connection.finish()
    assert one.ticket.given_back == 1
    assert len(one.home.forgotten) == 1


def test_ticket_is_back_when_the_socket_is_closed_and_not_before(one: Guest) -> None:
    fds: list[int] = []
    one.home.watch.lingering.clear()
    give_back = one.ticket.give_back
    one.ticket.give_back = lambda: (fds.append(one.sock.fileno()), give_back())[1]  # type: ignore[method-assign, func-returns-value]
    one.connection.finish()
    one.home.watch.release_lingering()
    assert fds == [-1]


def test_closed_connection_keeps_nothing_alive(one: Guest) -> None:
    one.connection.on_drain = lambda: None
    _ = one.connection.rfile, one.connection.wfile
    one.connection.finish()
    one.home.watch.release_lingering()
    connection = one.connection
    assert (connection._rfile, connection._wfile, connection.on_drain) == (None,) * 3


@pytest.mark.parametrize("direct", [True, False])
def test_close_by_the_handler_says_end_of_stream_and_keeps_the_descriptor(one: Guest, direct: bool) -> None:
    """Others may be about to look at the number; it is closed when the handler has returned."""
    if direct:
        one.connection.close()
        one.connection.close()
    else:
        with one.connection:
            pass
    assert read_all(one.peer) == b""
    assert one.connection.fileno() == one.fd
    assert one.connection.state is State.HANDLER
    one.arrive(b"still heard")
    assert one.connection.recv(100) == b"still heard"
    one.connection.finish()
    one.home.watch.release_lingering()
    one.connection.close()
    assert one.closed().cause is Cause.HANDLER_DONE


def test_detached_socket_belongs_to_the_caller(one: Guest) -> None:
    fd = one.connection.detach()
    assert fd == one.fd
    assert one.connection.fileno() == -1
    assert one.ticket.given_back == 1
    assert one.closed().cause is Cause.DETACHED
    with socket.socket(fileno=fd) as mine:
        one.connection.end(Cause.CLOSED_BY_OPERATOR)
        one.connection.close()
        one.connection.finish()
        mine.sendall(b"mine")
        assert one.peer.recv(10) == b"mine"
    assert one.ticket.given_back == 1
    assert one.home.watch.lingering == []
    with pytest.raises(OSError):
        one.connection.recv(10)


def test_detach_with_bytes_read_ahead_is_refused(one: Guest) -> None:
    """They would be lost; after a STARTTLS they would be somebody's injected plain text."""
    one.arrive(b"STARTTLS\r\nQUIT\r\n")
    one.connection.readline()
    with pytest.raises(ValueError, match="6 bytes have been read ahead"):
        one.connection.detach()
    assert one.connection.readline() == b"QUIT\r\n"
    os.close(one.connection.detach())


# The end, as others make it


@pytest.mark.parametrize("timeout", [None, 20.0])
@pytest.mark.parametrize("cause", [Cause.CLOSED_BY_OPERATOR, Cause.IDLE, "lifetime"])
def test_end_wakes_the_reader(one: Guest, cause: Cause | str, timeout: float | None) -> None:
    one.connection.settimeout(timeout)
    with in_thread(lambda: one.connection.recv(10)) as reading:
        reading.wait_asleep()
        one.connection.end(cause)
        error = reading.error()
    assert isinstance(error, ConnectionEnded)
    assert error.cause == cause
    assert one.connection.is_own(error)
    assert one.connection.cause == cause


def test_end_wakes_the_writer(one: Guest) -> None:
    with in_thread(lambda: one.connection.sendall(b"x" * 50_000_000)) as writing:
        writing.wait_asleep()
        one.connection.end()
        assert isinstance(writing.error(), ConnectionEnded)
    assert one.connection.fileno() == one.fd


def test_end_from_a_signal_handler_reaches_the_reader_in_that_thread(one: Guest) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: one.connection.end())
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(ConnectionEnded):
            one.connection.recv(10)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_end_with_an_unknown_cause_is_refused(one: Guest) -> None:
    with pytest.raises(ValueError, match="boredom"):
        one.connection.end("boredom")
    assert one.connection.cause is None


def test_first_cause_wins(one: Guest) -> None:
    one.connection.end(Cause.LIFETIME)
    one.connection.end(Cause.CLOSED_BY_OPERATOR)
    one.connection.record(Cause.HANDLER_ERROR)
    one.connection.finish()
    one.home.watch.release_lingering()
    assert one.closed().cause is Cause.LIFETIME


def test_first_cause_wins_between_threads() -> None:
    for _ in range(50):
        with guest() as one:
            barrier = threading.Barrier(2)
            causes = [Cause.LIFETIME, Cause.SHED]

            def end(cause: Cause, one: Guest = one, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                one.connection.end(cause)

            threads = [threading.Thread(target=end, args=(cause,)) for cause in causes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with pytest.raises(ConnectionEnded) as caught:
                one.connection.recv(1)
            assert caught.value.cause is one.connection.cause
            assert one.connection.cause in causes


def test_foreign_end_never_reaches_the_client_that_got_the_number() -> None:
    """After the holder closed, the number is the next client's at once."""
    with guest() as one, pair() as (next_client, its_peer):
        connection = one.connection
        connection.release()
        os.dup2(next_client.fileno(), one.fd)
        connection.end()
        connection.close()
        connection.finish()
        connection.tell()
        with pytest.raises(OSError):
            connection.recv(10)
        assert connection.quiet_since() is None
        its_peer.send(b"for the new one")
        assert next_client.recv(100) == b"for the new one"
        next_client.send(b"reply")
        assert its_peer.recv(100) == b"reply"
        os.close(one.fd)


def test_end_races_with_the_holders_close_without_harm() -> None:
    for _ in range(200):
        with guest() as one:
            with in_thread(one.connection.end):
                one.connection.release()
            assert one.ticket.given_back == 1
            assert one.sock.fileno() == -1


@pytest.mark.parametrize("cause", sorted(READ_SIDE))
def test_farewell_may_be_said_for_a_second_after_a_read_side_end(one: Guest, clock: FakeClock, cause: Cause) -> None:
    connection = one.connection
    connection.end(cause)
    with pytest.raises(ConnectionEnded):
        connection.recv(1)
    connection.sendall(b"bye")
    clock.advance(FAREWELL - 0.01)
    assert connection.send(b"!") == 1
    clock.advance(0.02)
    with pytest.raises(ConnectionEnded):
        connection.sendall(b"too late")
    connection.finish()
    assert read_all(one.peer) == b"bye!"


@pytest.mark.parametrize("cause", sorted(set(Cause) - READ_SIDE))
def test_no_farewell_after_any_other_end(one: Guest, cause: Cause) -> None:
    one.connection.end(cause)
    with pytest.raises(ConnectionEnded):
        one.connection.sendall(b"bye")
    assert read_all(one.peer) == b""


def test_farewell_is_over_by_the_watch_when_the_writer_waits(clock: FakeClock) -> None:
    with guest() as one:
        one.connection.open()
        one.connection.end(Cause.IDLE)
        one.home.watch.run_calls()
        one.home.watch.now = clock.now
        with in_thread(lambda: one.connection.sendall(b"x" * 50_000_000)) as writing:
            writing.wait_asleep()
            clock.advance(FAREWELL)
            one.home.watch.pass_time(FAREWELL)
            assert isinstance(writing.error(), ConnectionEnded)


def test_every_later_call_raises_and_then_the_handler_is_stopped(one: Guest) -> None:
    one.connection.end(Cause.LIFETIME)
    calls: list[Callable[[], object]] = [
        lambda: one.connection.recv(1), one.connection.readline, lambda: one.connection.sendall(b"x"),
        lambda: one.connection.read_exactly(3), lambda: one.connection.recv_into(bytearray(3)), one.connection.rfile.read,
    ]  # fmt: skip
    for number in range(SWALLOWED):
        with pytest.raises(ConnectionEnded) as caught:
            calls[number % len(calls)]()
        assert one.connection.is_own(caught.value)
    for call in calls:
        with pytest.raises(HandlerStopped) as stopped:
            call()
        assert one.connection.is_own(stopped.value)
        assert stopped.value.cause is Cause.LIFETIME


def test_bytes_read_ahead_are_not_delivered_after_the_end(one: Guest) -> None:
    one.arrive(b"one\ntwo\n")
    assert one.connection.readline() == b"one\n"
    one.connection.end()
    with pytest.raises(ConnectionEnded):
        one.connection.recv(10)


def test_connection_ended_before_its_handler_raises_in_its_first_call(one: Guest) -> None:
    with guest(begin=False) as early:
        early.connection.queue()
        early.connection.end()
        assert early.connection.is_over
        early.begin()
        with pytest.raises(ConnectionEnded):
            early.connection.recv(1)


def test_error_of_another_is_not_its_own(one: Guest) -> None:
    one.connection.settimeout(0.001)
    with pytest.raises(TimeoutError) as caught:
        one.connection.recv(1)
    assert one.connection.is_own(caught.value)
    assert not one.connection.is_own(TimeoutError("timed out"))
    assert not one.connection.is_own(ConnectionEnded(Cause.IDLE))


@pytest.mark.parametrize(
    ("state", "phase"),
    [(State.ACCEPTED, Phase.ACCEPTED), (State.WAITING, Phase.WAITING), (State.QUEUED, Phase.WAITING), (State.HANDLER, Phase.HANDLER)],
)  # fmt: skip
def test_phase_is_the_one_in_which_the_cause_was_recorded(state: State, phase: Phase) -> None:
    with guest(begin=False) as one:
        bring(one, state)
        one.connection.end(Cause.LIFETIME)
        one.connection.finish()
        one.home.watch.release_lingering()
        assert one.closed().phase is phase
        assert phase in CAUSES[Cause.LIFETIME].phases


# Told by a drain


def test_told_reader_gets_end_of_stream(one: Guest) -> None:
    with in_thread(lambda: one.connection.recv(10)) as reading:
        reading.wait_asleep()
        one.connection.tell()
        assert reading.result() == b""
    assert one.connection.recv(10) == b""
    assert one.connection.readline() == b""
    one.connection.sendall(b"goodbye")
    one.connection.finish()
    assert read_all(one.peer) == b"goodbye"
    one.home.watch.release_lingering()
    assert one.closed().cause is Cause.DRAINED


def test_told_reader_still_gets_what_had_arrived(one: Guest) -> None:
    one.arrive(b"one\ntwo\nthree\n")
    assert one.connection.readline() == b"one\n"
    one.connection.tell()
    assert list(one.connection.rfile) == [b"two\n", b"three\n"]


@pytest.mark.parametrize("read", ["readline", "read_exactly", "read"])
def test_told_reader_never_gets_a_begun_block_as_if_it_were_whole(one: Guest, read: str) -> None:
    one.arrive(b"half a li")
    one.connection.tell()
    calls: dict[str, Callable[[], object]] = {
        "readline": one.connection.readline,
        "read_exactly": lambda: one.connection.read_exactly(20),
        "read": one.connection.rfile.read,
    }
    with pytest.raises(ConnectionEnded) as caught:
        calls[read]()
    assert caught.value.cause is Cause.DRAINED
    assert one.connection.is_own(caught.value)


def test_told_handler_that_swallows_everything_is_stopped(one: Guest) -> None:
    one.arrive(b"half")
    one.connection.tell()
    for _ in range(SWALLOWED):
        with pytest.raises(ConnectionEnded):
            one.connection.readline()
    with pytest.raises(HandlerStopped):
        one.connection.readline()


def test_connection_told_while_it_is_parked_is_over(one: Guest) -> None:
    with guest(begin=False) as parked:
        parked.connection.wait()
        parked.connection.tell()
        assert parked.connection.is_over
        assert read_all(parked.peer) == b""


def test_draining_says_what_its_home_says(one: Guest) -> None:
    assert not one.connection.draining
    one.home.draining = True
    assert one.connection.draining


# Quiet


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_reader_that_waits_is_quiet_since_then(one: Guest, timeout: float | None) -> None:
    assert one.connection.quiet_since() is None
    one.connection.settimeout(timeout)
    with in_thread(lambda: one.connection.recv(10)) as reading:
        reading.wait_asleep()
        since = one.connection.quiet_since()
        assert since is not None
        assert since >= one.connection._handled_at
        one.peer.send(b"x")
    assert one.connection.quiet_since() is None


def test_reader_with_a_begun_line_is_busy(one: Guest) -> None:
    with in_thread(one.connection.readline) as reading:
        one.peer.send(b"half")
        eventually(lambda: one.connection._buffer)
        reading.wait_asleep()
        assert one.connection.quiet_since() is None
        one.peer.send(b"\n")


def test_unread_bytes_make_it_busy(one: Guest) -> None:
    one.connection._waiting_since = 1.0
    assert one.connection.quiet_since() == 1.0
    one.arrive(b"x")
    assert one.connection.quiet_since() is None
    assert one.connection.recv(10) == b"x"


def test_quiet_counts_from_the_last_byte_sent(one: Guest) -> None:
    one.connection._waiting_since = 1.0
    one.connection._moved_at = 2.0
    assert one.connection.quiet_since() == 2.0


def test_ended_or_told_connection_is_not_quiet(one: Guest) -> None:
    one.connection._waiting_since = 1.0
    one.connection.tell()
    assert one.connection.quiet_since() is None


def test_queued_connection_is_busy_however_long_it_was_parked() -> None:
    with guest(begin=False) as one:
        one.connection.wait()
        assert one.connection.quiet_since() is not None
        one.connection.queue()
        assert one.connection.quiet_since() is None


# Deadlines by the Watch


def watched(clock: FakeClock, **settings: Any) -> Guest:
    one = Guest(**settings)
    one.home.watch.now = clock.now
    one.connection.open()
    return one


def pass_time(one: Guest, clock: FakeClock, seconds: float) -> None:
    """In steps, since the connection looks at the clock too."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now = min(end, min((t.when for t in one.home.watch.timers if not t.is_cancelled), default=end))
        one.home.watch.pass_time(clock.now - one.home.watch.now)


def test_idle_reader_in_a_plain_call_is_ended(clock: FakeClock) -> None:
    one = watched(clock, idle_timeout=60)
    with in_thread(lambda: one.connection.recv(10)) as reading:
        reading.wait_asleep()
        pass_time(one, clock, 59)
        assert not one.connection.is_over
        pass_time(one, clock, 60)
        error = reading.error()
    assert isinstance(error, ConnectionEnded)
    assert error.cause is Cause.IDLE
    one.close()


def test_handler_that_computes_is_not_idle(clock: FakeClock) -> None:
    one = watched(clock, idle_timeout=60)
    pass_time(one, clock, 600)
    assert one.connection.cause is None
    one.close()


def test_connection_that_waits_for_a_thread_is_not_idle(clock: FakeClock) -> None:
    with guest(begin=False, idle_timeout=60) as one:
        one.home.watch.now = clock.now
        one.connection.open()
        one.connection.wait()
        pass_time(one, clock, 50)
        one.connection.queue()
        pass_time(one, clock, 500)
        assert one.connection.cause is None


@pytest.mark.parametrize("idle", [None, 50.0])
def test_lifetime_ends_whoever_is_busy(clock: FakeClock, idle: float | None) -> None:
    with guest(lifetime=100, idle_timeout=idle) as one:
        one.home.watch.now = clock.now
        one.connection.open()
        pass_time(one, clock, 99)
        assert one.connection.cause is None
        pass_time(one, clock, 1)
        assert one.connection.cause is Cause.LIFETIME


def test_timers_are_gone_with_the_connection(clock: FakeClock) -> None:
    one = watched(clock, idle_timeout=60, lifetime=100)
    one.connection.finish()
    one.home.watch.release_lingering()
    assert all(timer.is_cancelled for timer in one.home.watch.timers)
    one.close()


def test_event_tells_how_long_each_part_took(clock: FakeClock) -> None:
    with guest(begin=False) as one:
        clock.advance(2)
        one.connection.queue()
        one.begin()
        clock.advance(5)
        one.connection.finish()
        clock.advance(1)
        one.home.watch.release_lingering()
        event = one.closed()
        assert (event.queued, event.handled, event.seconds) == (2, 5, 8)


def test_repr_says_who_and_where(one: Guest) -> None:
    assert repr(one.connection) == "<Connection 7 'peer' handler>"
    one.connection.end(Cause.LIFETIME)
    assert repr(one.connection) == "<Connection 7 'peer' handler lifetime>"


# TLS


@contextmanager
def secured(begin: bool = True, **settings: Any) -> Iterator[Guest]:
    """A connection that speaks TLS; its peer is an SSLSocket."""
    with guest(begin=False, **settings) as one:
        peer = Peer(one.sock, one.peer)
        one.peer = peer.sock
        one.connection._secure(peer.session)
        if begin:
            one.connection.queue()
            one.begin()
        yield one


def release(one: Guest) -> None:
    """What the Watch does with a connection that lingers; its rest is still to be written."""
    for rest in filter(None, one.home.watch.rests):
        one.sock.sendall(rest)
    one.home.watch.release_lingering()


class Listed:
    """The certificates of a listener."""

    def context(self) -> ssl.SSLContext:
        return server_context()


def test_plain_connection_has_no_tls(one: Guest) -> None:
    assert one.connection.tls is None


def test_connection_says_what_tls_says_of_its_peer() -> None:
    with secured() as one:
        assert one.connection.tls is not None
        assert (one.connection.tls.version, one.connection.tls.server_name) == ("TLSv1.3", NAME)


def test_peer_is_told_the_end_by_close_notify() -> None:
    with secured() as one:
        one.connection.sendall(b"reply")
        one.connection.finish()
        assert one.connection.state is State.LINGERING
        assert read_all(one.peer) == b"reply"  # SSLEOFError without
        release(one)
        assert one.closed().cause is Cause.HANDLER_DONE


def test_peer_that_has_said_its_end_gets_ours() -> None:
    with secured() as one:
        peer: Any = one.peer
        leaving = Running(peer.unwrap)  # waits for our close_notify
        assert one.connection.recv(10) == b""
        one.connection.finish()
        leaving.result()
        assert one.closed().cause is Cause.PEER_CLOSED


def test_close_says_the_end_at_once_and_reading_goes_on() -> None:
    with secured() as one:
        one.connection.close()
        assert read_all(one.peer) == b""
        one.peer.sendall(b"late")
        assert one.connection.recv(10) == b"late"


def test_end_that_the_kernel_does_not_take_is_given_to_the_watch() -> None:
    with secured() as one:
        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        one.connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                one.connection.sendall(b"x" * 10_000)
        sent = one.connection.bytes_sent
        one.connection.close()
        one.connection.finish()
        assert one.connection.state is State.LINGERING
        [rest] = one.home.watch.rests
        assert rest
        reading = Running(lambda: read_all(one.peer))
        one.sock.setblocking(True)
        release(one)
        assert reading.result() == b"x" * sent


def test_connection_cut_by_the_server_does_not_pretend_to_be_whole() -> None:
    with secured() as one:
        one.connection.sendall(b"half a rep")
        one.connection.end(Cause.DRAIN_DEADLINE)
        one.connection.finish()
        with pytest.raises(ssl.SSLEOFError):
            read_all(one.peer)


@pytest.mark.parametrize("by", ["tell", "end"])
def test_end_before_the_handler_is_said_by_close_notify(by: str) -> None:
    with secured(begin=False) as one:
        one.connection.wait()
        one.connection.tell() if by == "tell" else one.connection.end(Cause.SHED)
        assert read_all(one.peer) == b""


def test_handler_may_say_goodbye_after_a_read_side_deadline() -> None:
    with secured() as one:
        one.connection.end(Cause.IDLE)
        with pytest.raises(ConnectionEnded):
            one.connection.recv(10)
        one.connection.sendall(b"goodbye")
        one.connection.finish()
        assert read_all(one.peer) == b"goodbye"


def test_quiet_is_who_has_no_part_of_a_record_either() -> None:
    with secured() as one:
        one.connection._waiting_since = 5.0
        assert one.connection.quiet_since() is not None
        one.connection._tls.feed(b"\x17\x03\x03")
        assert one.connection.quiet_since() is None


@pytest.mark.parametrize("verb", ["detach", "dup"])
def test_socket_of_a_tls_connection_is_not_given_away(verb: str) -> None:
    with secured() as one, pytest.raises(ValueError, match="but not the TLS conversation on it"):
        getattr(one.connection, verb)()


def test_garbage_ends_the_connection_with_its_cause() -> None:
    with secured() as one:
        os.write(one.peer.fileno(), b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionEnded) as raised:
            one.connection.recv(10)
        assert one.connection.is_own(raised.value)
        assert one.connection.cause is Cause.TLS_ERROR
        with pytest.raises(ConnectionEnded):
            one.connection.sendall(b"x")


def test_peer_that_read_nothing_is_reset() -> None:
    with guest() as one:
        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        one.connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                one.connection.sendall(b"x" * 100_000)
        one.connection.end(Cause.WRITE_STALLED)
        one.connection.finish()
        with pytest.raises(ConnectionResetError):
            read_all(one.peer)


# start_tls


def test_start_tls_goes_on_in_tls() -> None:
    with guest() as one:
        one.connection._certificates = Listed()
        one.peer.sendall(b"STARTTLS\n")
        assert one.connection.readline() == b"STARTTLS\n"
        with client_context().wrap_socket(one.peer, server_hostname=NAME, do_handshake_on_connect=False) as peer:
            shaking = Running(peer.do_handshake)
            one.connection.start_tls()
            shaking.result()
            peer.sendall(b"secret\n")
            assert one.connection.rfile.readline() == b"secret\n"
            one.connection.wfile.write(b"answer")
            assert peer.recv(100) == b"answer"
        [event] = one.home.sink.of(TlsEstablished)
        assert (event.id, event.version) == (7, "TLSv1.3")
        with pytest.raises(ValueError, match="speaks TLS already"):
            one.connection.start_tls()


def test_start_tls_after_plain_text_that_came_too_early_ends_the_connection(one: Guest) -> None:
    one.arrive(b"STARTTLS\nRCPT TO: somebody\n")
    assert one.connection.readline() == b"STARTTLS\n"
    with pytest.raises(ConnectionEnded) as raised:
        one.connection.start_tls(server_context())
    assert raised.value.cause == Cause.TLS_ERROR
    assert one.connection.is_own(raised.value)
    [event] = one.home.sink.of(SetupFailed)
    assert (event.cause, "plain text" in event.reason) == (Cause.TLS_ERROR, True)
    with pytest.raises(ConnectionEnded):
        one.connection.recv(100)


def test_start_tls_with_garbage_tells_why(one: Guest) -> None:
    one.arrive(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionEnded) as raised:
        one.connection.start_tls(server_context())
    assert raised.value.cause == Cause.TLS_ERROR
    [event] = one.home.sink.of(SetupFailed)
    assert "HTTP" in event.reason


def test_start_tls_has_its_time(one: Guest) -> None:
    one.home.settings = replace(one.home.settings, setup_timeout=0.05)
    with pytest.raises(ConnectionEnded) as raised:
        one.connection.start_tls(server_context())
    assert raised.value.cause == Cause.SETUP_DEADLINE
    assert one.home.sink.of(SetupFailed)


def test_start_tls_with_a_peer_that_leaves_says_so_quietly(one: Guest) -> None:
    one.peer.close()
    with pytest.raises(ConnectionEnded) as raised:
        one.connection.start_tls(server_context())
    assert raised.value.cause == Cause.PEER_CLOSED
    assert not one.home.sink.of(SetupFailed)


def test_start_tls_without_a_certificate_says_what_is_missing(one: Guest) -> None:
    with pytest.raises(ValueError, match="tls_cert"):
        one.connection.start_tls()


# Behind a load balancer


def test_local_address_is_what_the_client_connected_to(one: Guest) -> None:
    own = one.connection.local
    one.connection.proxy = ProxyHeader(
        version=2, command="PROXY", family="tcp4", source=("192.0.2.1", 5), destination=("192.0.2.9", 443), tlvs=()
    )
    assert one.connection.local == ("192.0.2.9", 443)
    one.connection.proxy = replace(one.connection.proxy, destination=None)
    assert one.connection.local == own


# Rates that are only observed


def test_slow_message_that_is_only_observed_is_told_once() -> None:
    with guest(min_rate=1000, observe_only=("min_rate",)) as one:
        assert one.connection._only_observes()
        assert one.connection._limits.min_rate is None
        [event] = one.home.sink.of(RefusalObserved)
        assert event.cause is Cause.MIN_RATE
    with guest(min_rate=1000) as one:
        assert not one.connection._only_observes()
