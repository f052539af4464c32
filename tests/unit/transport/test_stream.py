"""Stream: no byte is lost or counted twice, whatever arrives in whatever pieces; and every deadline is kept."""

import array
import errno
import socket
from collections.abc import Callable, Iterator

import pytest

from moorage.errors import ConnectionEnded, Incomplete, TooLarge
from moorage.events import Cause
from moorage.transport.stream import RECV_SIZE
from support.clock import FakeClock
from support.sockets import read_all, receive, reset, shrink
from support.streams import Ends, PollingWaiter, ScriptedWaiter, ends
from support.waiting import in_thread

BIG = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(params=["tcp", "unix"])
def both(request: pytest.FixtureRequest) -> Iterator[Ends]:
    with ends(request.param) as both:
        yield both


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr("moorage.transport.stream.monotonic", clock)
    monkeypatch.setattr("moorage.transport.socketlike.monotonic", clock)
    return clock


@pytest.fixture
def script(clock: FakeClock) -> ScriptedWaiter:
    return ScriptedWaiter(clock)


# Receiving


def test_recv_gives_what_is_there(both: Ends) -> None:
    both.arrive(b"hello")
    assert both.stream.recv(100) == b"hello"
    assert both.stream.bytes_received == 5


def test_recv_gives_no_more_than_asked_for(both: Ends) -> None:
    both.arrive(b"hello")
    assert [both.stream.recv(2), both.stream.recv(2), both.stream.recv(2)] == [b"he", b"ll", b"o"]


def test_recv_of_nothing_does_not_wait(both: Ends) -> None:
    assert both.stream.recv(0) == b""
    both.stream.settimeout(20)
    assert both.stream.recv(0) == b""
    both.arrive(b"x\ny")
    both.stream.readline()
    assert both.stream.recv(0) == b""
    assert both.stream.recv(5) == b"y"


def test_recv_of_less_than_nothing_is_refused_and_changes_nothing(both: Ends) -> None:
    both.arrive(b"line\nrest")
    with pytest.raises(ValueError, match="negative"):
        both.stream.recv(-1)
    both.stream.readline()
    with pytest.raises(ValueError, match="negative"):
        both.stream.recv(-1)
    assert both.stream.recv(10) == b"rest"


def test_recv_at_the_end_of_the_stream_is_empty_again_and_again(both: Ends) -> None:
    both.peer.close()
    assert both.stream.recv(10) == b""
    assert both.stream.recv(10) == b""
    assert set(both.stream.causes) == {Cause.PEER_CLOSED}


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_recv_waits_for_the_first_byte(timeout: float | None) -> None:
    with ends(waiter=PollingWaiter(plain=True)) as both:
        both.stream.settimeout(timeout)
        with in_thread(lambda: both.stream.recv(10)) as reading:
            reading.wait_asleep()
            both.peer.send(b"now")
            assert reading.result() == b"now"


def test_plain_recv_is_one_system_call_without_a_wait() -> None:
    with ends(waiter=PollingWaiter(plain=True)) as both:
        both.arrive(b"x")
        assert both.stream.recv(1) == b"x"
        both.stream.sendall(b"y")
        assert both.waiter.asked == []


def test_plain_recv_is_no_wait_any_more_when_it_was_interrupted() -> None:
    """A signal handler may raise: the drain must not think that this handler waits for its peer."""
    with ends(waiter=PollingWaiter(plain=True)) as both:

        def interrupt(_: int) -> bytes:
            assert both.stream._waiting_since
            raise KeyboardInterrupt

        both.stream._recv = interrupt  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            both.stream.recv(10)
        assert both.stream._waiting_since == 0.0


def test_reset_by_the_peer_is_recorded_and_raised() -> None:
    with ends() as both:
        both.peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        reset(both.peer)
        with pytest.raises(ConnectionResetError) as caught:
            both.stream.recv(10)
        assert both.stream.causes == [Cause.RESET]
        assert both.stream.is_own(caught.value)


def test_mistake_of_the_handler_is_no_reset(both: Ends) -> None:
    both.ours.close()
    with pytest.raises(OSError) as caught:
        both.stream.recv(10, socket.MSG_DONTWAIT)
    assert caught.value.errno == errno.EBADF
    assert both.stream.causes == []
    assert not both.stream.is_own(caught.value)


# Flags


def test_peeked_bytes_come_again(both: Ends) -> None:
    both.arrive(b"hello")
    assert both.stream.recv(3, socket.MSG_PEEK) == b"hel"
    assert both.stream.bytes_received == 0
    assert both.stream.recv(10) == b"hello"
    assert both.stream.bytes_received == 5


def test_peek_flag_shows_what_was_read_ahead(both: Ends) -> None:
    both.arrive(b"one\ntwo")
    both.stream.readline()
    assert both.stream.recv(10, socket.MSG_PEEK) == b"two"
    assert both.stream.recv(10) == b"two"


def test_dontwait_raises_when_nothing_is_there(both: Ends) -> None:
    with pytest.raises(BlockingIOError):
        both.stream.recv(10, socket.MSG_DONTWAIT)
    both.arrive(b"x")
    assert both.stream.recv(10, socket.MSG_DONTWAIT) == b"x"


@pytest.mark.parametrize("ahead", [b"", b"a line\n12"])
def test_waitall_waits_for_all(both: Ends, ahead: bytes) -> None:
    if ahead:
        both.arrive(ahead)
        both.stream.readline()
    both.arrive(b"abc")
    wanted = (ahead[-2:] if ahead else b"") + b"abc" + b"def"
    with in_thread(lambda: both.stream.recv(len(wanted), socket.MSG_WAITALL)) as reading:
        reading.wait_asleep()
        both.peer.send(b"defg")
        assert reading.result() == wanted
    assert both.stream.recv(10) == b"g"


def test_waitall_gives_less_at_the_end_of_the_stream(both: Ends) -> None:
    both.arrive(b"abc")
    both.peer.close()
    assert both.stream.recv(10, socket.MSG_WAITALL) == b"abc"


# Into buffers


def test_recv_into_fills_a_buffer_and_counts(both: Ends) -> None:
    both.arrive(b"hello")
    buffer = bytearray(b"........")
    assert both.stream.recv_into(buffer) == 5
    assert buffer == b"hello..."


def test_recv_into_obeys_nbytes(both: Ends) -> None:
    both.arrive(b"hello")
    buffer = bytearray(8)
    assert both.stream.recv_into(buffer, 2) == 2
    assert both.stream.recv_into(memoryview(buffer)[2:], 6) == 3
    assert buffer == b"hello\0\0\0"


def test_recv_into_takes_arrays_of_anything(both: Ends) -> None:
    both.arrive(array.array("i", [1, 2]).tobytes())
    numbers = array.array("i", [0, 0])
    assert both.stream.recv_into(numbers) == numbers.itemsize * 2
    assert list(numbers) == [1, 2]


# Lines


def test_lines_come_one_by_one_however_they_arrive(both: Ends) -> None:
    both.arrive(b"one\ntwo\nthr")
    assert [both.stream.readline(), both.stream.readline()] == [b"one\n", b"two\n"]
    both.arrive(b"ee\n\nlast")
    both.peer.close()
    lines = [both.stream.readline() for _ in range(5)]
    assert lines == [b"three\n", b"\n", b"last", b"", b""]
    assert both.stream.bytes_received == 19


def test_single_line_in_one_receive_comes_whole(both: Ends) -> None:
    both.arrive(b"alone\n")
    assert both.stream.readline() == b"alone\n"
    assert both.stream._buffer == b""


def test_line_longer_than_a_receive_comes_whole(both: Ends) -> None:
    line = b"x" * (3 * RECV_SIZE) + b"\n"
    with in_thread(lambda: both.peer.sendall(line + b"next\n")):
        assert both.stream.readline() == line
    assert both.stream.readline() == b"next\n"


@pytest.mark.parametrize("extra", [b"", b"and more\n"])
def test_line_at_the_limit_is_taken_and_one_above_is_not(extra: bytes) -> None:
    with ends(line_limit=10) as both:
        both.arrive(b"123456789\n" + extra)
        assert both.stream.readline() == b"123456789\n"
    with ends(line_limit=10) as both:
        both.arrive(b"1234567890\n" + extra)
        with pytest.raises(TooLarge, match="within 10 bytes"):
            both.stream.readline()
        assert both.stream.causes == [Cause.TOO_LARGE]


def test_line_without_end_is_refused_at_the_limit() -> None:
    with ends(line_limit=1000) as both:
        with in_thread(lambda: both.peer.sendall(b"x" * 100_000)), pytest.raises(TooLarge):
            both.stream.readline()
        assert len(both.stream._buffer) <= 1000 + RECV_SIZE


def test_last_line_at_the_limit_may_lack_its_newline() -> None:
    with ends(line_limit=5) as both:
        both.arrive(b"12345")
        both.peer.close()
        assert both.stream.readline() == b"12345"


def test_size_of_the_caller_wins_over_the_limit() -> None:
    """`http.server` calls readline(65537) and looks at the length itself."""
    with ends(line_limit=5) as both:
        both.arrive(b"1234567890abc\nx\n")
        assert both.stream.readline(8) == b"12345678"
        assert both.stream.readline(100) == b"90abc\n"
        assert both.stream.readline(1) == b"x"
        assert both.stream.readline(1) == b"\n"


def test_readline_of_no_byte_does_not_wait(both: Ends) -> None:
    assert both.stream.readline(0) == b""


@pytest.mark.parametrize("size", [None, -1])
def test_readline_without_a_size_is_a_whole_line(both: Ends, size: int | None) -> None:
    both.arrive(b"one\ntwo\n")
    assert both.stream.readline(size) == b"one\n"


# Blocks


def test_read_exactly_gives_a_mebibyte(both: Ends) -> None:
    with in_thread(lambda: both.peer.sendall(BIG + b"rest")):
        assert both.stream.read_exactly(len(BIG)) == BIG
    assert both.stream.recv(10) == b"rest"
    assert both.stream.bytes_received == len(BIG) + 4


def test_read_exactly_mixes_with_lines(both: Ends) -> None:
    both.arrive(b"head\n12345tail\n")
    assert both.stream.readline() == b"head\n"
    assert both.stream.read_exactly(5) == b"12345"
    assert both.stream.readline() == b"tail\n"


def test_read_exactly_of_nothing_is_empty_and_less_is_refused(both: Ends) -> None:
    assert both.stream.read_exactly(0) == b""
    both.arrive(b"a\nb")
    both.stream.readline()
    with pytest.raises(ValueError, match="not -1"):
        both.stream.read_exactly(-1)
    assert both.stream.recv(5) == b"b"


def test_block_that_the_stream_cuts_is_incomplete(both: Ends) -> None:
    both.arrive(b"abc")
    both.peer.close()
    with pytest.raises(Incomplete) as caught:
        both.stream.read_exactly(5)
    assert caught.value.partial == b"abc"
    assert both.stream.is_own(caught.value)


def test_block_above_the_limit_is_refused_before_a_byte_is_read() -> None:
    with ends(message_limit=100) as both:
        with pytest.raises(TooLarge, match="101 bytes"):
            both.stream.read_exactly(101)
        assert both.stream.bytes_received == 0


@pytest.mark.parametrize(
    "pieces", [[b"head\r\n\r\nbody"], [b"head\r", b"\n", b"\r", b"\nbody"], [b"head\r\n\r", b"\nbody"]]
)
def test_delimiter_is_found_across_receives(both: Ends, pieces: list[bytes]) -> None:
    both.arrive(pieces[0])
    with in_thread(lambda: both.stream.read_until(b"\r\n\r\n")) as reading:
        for piece in pieces[1:]:
            reading.wait_asleep()
            both.peer.sendall(piece)
        assert reading.result() == b"head\r\n\r\n"
    assert both.stream.recv(10) == b"body"


def test_read_until_obeys_its_limit_with_the_delimiter_included(both: Ends) -> None:
    both.arrive(b"12345;12345;")
    assert both.stream.read_until(b";", 6) == b"12345;"
    with pytest.raises(TooLarge, match="within 5 bytes"):
        both.stream.read_until(b";", 5)
    assert both.stream.read_until(b";") == b"12345;"


def test_read_until_has_message_limit_without_a_limit_of_its_own() -> None:
    with ends(message_limit=10) as both:
        both.arrive(b"12345678901")
        with pytest.raises(TooLarge, match="within 10 bytes"):
            both.stream.read_until(b";")


def test_read_until_without_the_delimiter_is_incomplete(both: Ends) -> None:
    both.arrive(b"abc")
    both.peer.close()
    with pytest.raises(Incomplete, match="3 bytes of a message that ends in b';'"):
        both.stream.read_until(b";")


def test_read_until_nothing_is_refused(both: Ends) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        both.stream.read_until(b"")


def test_peek_shows_bytes_and_consumes_none(both: Ends) -> None:
    both.arrive(b"abc")
    assert both.stream.peek()[:3] == b"abc"
    assert both.stream.peek() == b"abc"
    assert both.stream.readline(3) == b"abc"


# Sending


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("data", [b"bytes", bytearray(b"bytes"), memoryview(b"bytes"), array.array("b", b"bytes")])
def test_sendall_takes_whatever_a_socket_takes(plain: bool, data: bytes) -> None:
    with ends(waiter=PollingWaiter(plain=plain)) as both:
        both.stream.sendall(data)
        assert both.stream.send(data) == 5
        assert both.stream.bytes_sent == 10
        both.ours.shutdown(socket.SHUT_WR)
        assert read_all(both.peer) == b"bytesbytes"


def test_sendall_sends_wide_arrays_whole(both: Ends) -> None:
    numbers = array.array("q", range(1000))
    both.stream.sendall(numbers)
    both.stream.sendall(memoryview(numbers))
    both.ours.shutdown(socket.SHUT_WR)
    assert read_all(both.peer) == numbers.tobytes() * 2


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_reply_larger_than_all_buffers_arrives_whole(family: str, plain: bool) -> None:
    with ends(family, PollingWaiter(plain=plain)) as both:
        shrink(both.ours, both.peer)
        with in_thread(lambda: read_all(both.peer)) as reading:
            both.stream.sendall(BIG)
            both.ours.shutdown(socket.SHUT_WR)
            assert reading.result() == BIG
        assert both.stream.bytes_sent == len(BIG)


def test_sendall_of_nothing_sends_nothing(both: Ends) -> None:
    both.stream.sendall(b"")
    assert both.stream.bytes_sent == 0


def test_send_takes_part_of_much(both: Ends) -> None:
    count = both.stream.send(b"x" * 50_000_000)
    assert 0 < count < 50_000_000
    assert both.stream.bytes_sent == count


def test_sending_to_who_left_is_a_reset() -> None:
    with ends("unix") as both:
        both.peer.close()
        with pytest.raises(BrokenPipeError) as caught:
            both.stream.sendall(b"x")
        assert both.stream.causes == [Cause.RESET]
        assert both.stream.is_own(caught.value)


def test_flags_of_the_caller_are_obeyed_in_sending(both: Ends) -> None:
    both.fill_the_way()
    with pytest.raises(BlockingIOError):
        both.stream.send(b"x", socket.MSG_DONTWAIT)


# Recoverable timeouts


def test_timeout_in_mid_line_loses_no_byte(both: Ends) -> None:
    both.stream.settimeout(0.01)
    both.arrive(b"half a ")
    for _ in range(3):
        with pytest.raises(TimeoutError) as caught:
            both.stream.readline()
        assert not isinstance(caught.value, ConnectionEnded)
        assert both.stream.is_own(caught.value)
    both.arrive(b"line\nnext\n")
    assert [both.stream.readline(), both.stream.readline()] == [b"half a line\n", b"next\n"]


def test_timeout_in_mid_block_loses_no_byte(both: Ends) -> None:
    both.stream.settimeout(0.01)
    both.arrive(b"12")
    with pytest.raises(TimeoutError):
        both.stream.read_exactly(4)
    with pytest.raises(TimeoutError):
        both.stream.read_until(b";")
    with pytest.raises(TimeoutError):
        both.stream.recv(4, socket.MSG_WAITALL)
    assert both.stream.recv(1) == b"1"
    both.arrive(b"34;")
    assert both.stream.read_until(b";") == b"234;"


def test_timeout_counts_for_each_wait(script: ScriptedWaiter) -> None:
    with ends(waiter=script) as both:
        both.stream.settimeout(5)
        for piece in (b"a", b"b", b"c\n"):
            script.then(lambda piece=piece: both.peer.send(piece), after=4)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        assert both.stream.readline() == b"abc\n"
        assert script.asked == [5, 5, 5]


def test_timeout_of_sending_is_recoverable(clock: FakeClock, script: ScriptedWaiter) -> None:
    with ends(waiter=script) as both:
        both.fill_the_way()
        both.stream.settimeout(5)
        with pytest.raises(TimeoutError):
            both.stream.send(b"x")
        assert both.stream.causes == []


def test_nonblocking_stream_never_waits(script: ScriptedWaiter) -> None:
    with ends(waiter=script) as both:
        both.stream.settimeout(0)
        with pytest.raises(BlockingIOError):
            both.stream.recv(10)
        with pytest.raises(BlockingIOError):
            both.stream.readline()
        with pytest.raises(BlockingIOError):
            both.stream.read_exactly(5)
        both.arrive(b"half")
        with pytest.raises(BlockingIOError):
            both.stream.readline()
        both.arrive(b" a line\n")
        assert both.stream.readline() == b"half a line\n"
        both.fill_the_way()
        with pytest.raises(BlockingIOError):
            both.stream.sendall(b"x")
        assert script.asked == []


# Final deadlines


def insist(call: Callable[[], object]) -> tuple[ConnectionEnded, int]:
    """Call and swallow timeouts until the server ends it, as careless handlers do; how often it took."""
    for swallowed in range(100):
        try:
            call()
        except ConnectionEnded as ended:
            return ended, swallowed
        except TimeoutError:
            continue
    raise AssertionError("held for ever")


def test_idle_stream_is_ended(script: ScriptedWaiter) -> None:
    with ends(waiter=script, idle_timeout=60) as both:
        with pytest.raises(ConnectionEnded) as caught:
            both.stream.recv(10)
        assert caught.value.cause is Cause.IDLE
        assert script.asked == [60]


def test_idle_deadline_starts_again_with_each_byte(script: ScriptedWaiter) -> None:
    with ends(waiter=script, idle_timeout=60) as both:
        for _ in range(3):
            script.then(lambda: both.peer.send(b"x"), after=59)
            assert both.stream.recv(10) == b"x"
        assert both.stream.causes == []


def test_idle_deadline_counts_from_what_another_thread_sends(clock: FakeClock, script: ScriptedWaiter) -> None:
    with ends(waiter=script, idle_timeout=60) as both:
        script.then(lambda: both.stream.sendall(b"tick"), after=50)
        with pytest.raises(ConnectionEnded):
            both.stream.recv(10)
        assert clock.now == 1000 + 50 + 60


def test_swallowed_timeout_does_not_outlive_the_idle_deadline(clock: FakeClock, script: ScriptedWaiter) -> None:
    """`except TimeoutError: continue` around a read must not hold a mute client for ever."""
    with ends(waiter=script, idle_timeout=60) as both:
        both.stream.settimeout(5)
        ended, _ = insist(lambda: both.stream.recv(10))
        assert ended.cause is Cause.IDLE
        assert clock.now == pytest.approx(1060, abs=5)


def test_work_between_swallowed_timeouts_is_not_idle_waiting(clock: FakeClock, script: ScriptedWaiter) -> None:
    """A handler that waits a second for its client and then works for a minute does not let it idle."""
    with ends(waiter=script, idle_timeout=60) as both:
        both.stream.settimeout(1)
        for _ in range(10):
            with pytest.raises(TimeoutError):
                both.stream.recv(10)
            clock.advance(70)
        assert both.stream.causes == []


def test_byte_after_swallowed_timeouts_begins_the_idle_deadline_anew(script: ScriptedWaiter) -> None:
    with ends(waiter=script, idle_timeout=60) as both:
        both.stream.settimeout(50)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                both.stream.recv(10)
            script.then(lambda: both.peer.send(b"x"), after=5)
            assert both.stream.recv(10) == b"x"
        assert both.stream.causes == []


def test_dripped_message_is_ended_at_its_deadline(clock: FakeClock, script: ScriptedWaiter) -> None:
    """A byte every 29 s never trips a timeout of one receive."""
    with ends(waiter=script, message_timeout=30, idle_timeout=60) as both:
        for _ in range(10):
            script.then(lambda: both.peer.send(b"x"), after=29)
        with pytest.raises(ConnectionEnded) as caught:
            both.stream.readline()
        assert caught.value.cause is Cause.MESSAGE_DEADLINE
        assert clock.now == 1000 + 29 + 30


@pytest.mark.parametrize("read", ["read_exactly", "read_until"])
def test_message_deadline_holds_for_every_kind_of_block(read: str, clock: FakeClock, script: ScriptedWaiter) -> None:
    with ends(waiter=script, message_timeout=30) as both:
        script.then(lambda: both.peer.send(b"x"), after=100)
        with pytest.raises(ConnectionEnded):
            getattr(both.stream, read)(1000 if read == "read_exactly" else b";")
        assert clock.now == 1130


def test_message_deadline_begins_with_the_first_byte_and_ends_with_the_last(
    clock: FakeClock, script: ScriptedWaiter
) -> None:
    with ends(waiter=script, message_timeout=30) as both:
        for _ in range(3):
            script.then(lambda: both.peer.send(b"be"), after=1000)
            script.then(lambda: both.peer.send(b"gun\n"), after=29)
            assert both.stream.readline() == b"begun\n"
        assert both.stream.causes == []


def test_message_deadline_does_not_begin_anew_after_a_swallowed_timeout(
    clock: FakeClock, script: ScriptedWaiter
) -> None:
    with ends(waiter=script, message_timeout=30) as both:
        both.arrive(b"half")
        both.stream.settimeout(7)
        ended, swallowed = insist(both.stream.readline)
        assert ended.cause is Cause.MESSAGE_DEADLINE
        assert swallowed == 4
        assert clock.now == 1030


def test_final_deadline_wins_over_a_recoverable_one_at_the_same_moment(script: ScriptedWaiter) -> None:
    with ends(waiter=script, idle_timeout=10) as both:
        both.stream.settimeout(10)
        with pytest.raises(ConnectionEnded):
            both.stream.recv(1)


def test_peer_that_stops_reading_is_ended(clock: FakeClock, script: ScriptedWaiter) -> None:
    with ends(waiter=script, write_timeout=30) as both:
        both.fill_the_way()
        with pytest.raises(ConnectionEnded) as caught:
            both.stream.sendall(BIG)
        assert caught.value.cause is Cause.WRITE_STALLED
        assert clock.now == 1030


def test_peer_that_reads_slowly_is_not_cut(clock: FakeClock, script: ScriptedWaiter) -> None:
    """Three times the deadline in all, and far too little each time for `poll` to say writable."""
    with ends(waiter=script, write_timeout=30) as both:
        shrink(both.peer)  # so that most of it waits on our side
        both.fill_the_way()
        steps = 3
        for _ in range(steps):
            script.then(lambda: receive(both.peer, 56 * 1024), after=20)
            script.then(after=10)
        with pytest.raises(ConnectionEnded) as caught:
            both.stream.sendall(BIG)
        assert caught.value.cause is Cause.WRITE_STALLED
        assert clock.now == 1000 + 30 * (steps + 1)
        assert both.stream.bytes_sent == 0, "this peer was to read too little for `poll`"


def test_write_deadline_is_on_progress_and_not_on_the_whole_reply(clock: FakeClock, script: ScriptedWaiter) -> None:
    with ends("unix", script, write_timeout=30) as both:
        shrink(both.ours, both.peer)
        received = bytearray()
        for _ in range(2000):
            script.then(lambda: received.extend(both.peer.recv(65536)), after=20)
        both.stream.sendall(BIG)
        both.ours.shutdown(socket.SHUT_WR)
        received += read_all(both.peer)
        assert received == BIG
        assert clock.now > 1000 + 300


def test_swallowed_timeout_does_not_outlive_the_write_deadline(clock: FakeClock, script: ScriptedWaiter) -> None:
    with ends(waiter=script, write_timeout=30) as both:
        both.fill_the_way()
        both.stream.settimeout(4)
        ended, _ = insist(lambda: both.stream.send(b"x"))
        assert ended.cause is Cause.WRITE_STALLED
        assert clock.now == pytest.approx(1030, abs=4)


def test_idle_deadline_is_not_on_writes(script: ScriptedWaiter) -> None:
    with ends(waiter=script, idle_timeout=10, write_timeout=100) as both:
        both.fill_the_way()
        with pytest.raises(ConnectionEnded) as caught:
            both.stream.sendall(b"x")
        assert caught.value.cause is Cause.WRITE_STALLED


def test_wait_of_a_reader_is_known_from_outside(clock: FakeClock, script: ScriptedWaiter) -> None:
    with ends(waiter=script) as both:
        seen: list[float] = []

        def look() -> None:
            seen.append(both.stream._waiting_since)
            both.peer.send(b"x")

        script.then(look, after=5)
        assert both.stream._waiting_since == 0.0
        both.stream.recv(10)
        assert seen == [1000.0]
        assert both.stream._waiting_since == 0.0


def test_waiter_that_was_woken_for_nothing_waits_on(clock: FakeClock, script: ScriptedWaiter) -> None:
    with ends(waiter=script) as both:
        both.stream.settimeout(10)
        script.then(after=4)
        script.then(lambda: both.peer.send(b"x"), after=3)
        assert both.stream.recv(10) == b"x"
        assert script.asked == [10, 6]
