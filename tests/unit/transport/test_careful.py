"""CarefulStream: flags, blocks in pieces, several writers; and every deadline is kept."""

import socket
import threading
from collections import deque
from collections.abc import Callable

import pytest

from moorage.errors import ConnectionEnded, Incomplete, TooLarge
from moorage.events import Cause
from moorage.runners.waiters import PlainWaiter
from moorage.transport.careful import FIRST_LOOK
from support.clock import FakeClock
from support.sockets import PATIENCE, read_all, receive, shrink
from support.streams import Ends, ScriptedWaiter, ends
from support.waiting import Running, in_thread
from support.writing import InLine

pytestmark = pytest.mark.usefixtures("stream_twin")

BIG = bytes(range(256)) * 4096  # 1 MiB


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


def test_peer_whose_kernel_takes_a_little_more_at_first_does_not_get_the_time_twice(
    clock: FakeClock, script: ScriptedWaiter
) -> None:
    with ends(waiter=script, write_timeout=30) as both:
        shrink(both.peer)
        both.fill_the_way()
        script.then(lambda: receive(both.peer, 56 * 1024), after=0.25)
        with pytest.raises(ConnectionEnded):
            both.stream.sendall(BIG)
        assert clock.now == 1030.25


def test_peer_that_reads_slowly_is_not_cut(clock: FakeClock, script: ScriptedWaiter) -> None:
    """Three times the deadline in all, and far too little each time for `poll` to say writable."""
    with ends(waiter=script, write_timeout=30) as both:
        shrink(both.peer)  # so that most of it waits on our side
        both.fill_the_way()
        steps = 3
        script.then(after=FIRST_LOOK)
        for _ in range(steps):
            script.then(lambda: receive(both.peer, 56 * 1024), after=20)
            script.then(after=10)
        with pytest.raises(ConnectionEnded) as caught:
            both.stream.sendall(BIG)
        assert caught.value.cause is Cause.WRITE_STALLED
        assert clock.now == 1000 + FIRST_LOOK + 20 + 30 * steps
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


# Several writers


def test_messages_of_several_threads_never_interleave() -> None:
    with ends(waiter=PlainWaiter()) as both:
        messages = [bytes([number]) * 300_000 for number in range(8)]
        writers = [threading.Thread(target=both.stream.sendall, args=(message,)) for message in messages]
        for writer in writers:
            writer.start()
        received = receive(both.peer, 8 * 300_000)
        for writer in writers:
            writer.join()
    pieces = [received[start : start + 300_000] for start in range(0, 8 * 300_000, 300_000)]
    assert sorted(pieces) == messages


def test_writer_that_waits_for_its_turn_obeys_its_timeout() -> None:
    with ends(waiter=PlainWaiter()) as both:
        both.stream.settimeout(0.05)
        both.stream._writing = True
        with pytest.raises(TimeoutError):
            both.stream.sendall(b"x")
        both.stream._end_turn()
        both.stream.sendall(b"y")
        assert receive(both.peer, 1) == b"y"


def test_two_writers_that_are_the_first_to_wait_both_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with ends(waiter=PlainWaiter()) as both:
        both.stream._writing = True
        to_come = [lambda: both.stream.sendall(b"second")]
        came: list[Running] = []
        both_came = threading.Event()

        class Meanwhile(deque):  # type: ignore[type-arg]  # of anything
            def __init__(self) -> None:
                if to_come:  # while the first makes its line, a second one comes to wait
                    came.append(Running(to_come.pop()))
                    came[0].wait_asleep()
                    both_came.set()

        monkeypatch.setitem(both.stream._take_turn.__globals__, "deque", Meanwhile)
        with in_thread(lambda: both.stream.sendall(b"first ")) as first:
            assert both_came.wait(PATIENCE)
            first.wait_asleep()
            both.stream._end_turn()
            first.result()
            came[0].result()
        assert sorted(receive(both.peer, 12)) == sorted(b"first second")


def test_turn_of_a_writer_ends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended twice, it would be that of the next one the second time, and somebody would write into its message."""
    with ends(waiter=PlainWaiter()) as both:
        shrink(both.ours, both.peer)
        next_one = InLine(both.stream, monkeypatch)
        with in_thread(lambda: both.stream.sendall(b"x" * 300_000)) as writer:
            receive(both.peer, 300_000)
            writer.result()
        assert (next_one.seen, next_one.released) == ([True], 1)
        assert not both.stream._writing


def test_turn_ends_when_a_writer_fails() -> None:
    with ends(waiter=PlainWaiter()) as both:
        both.stream.settimeout(0.05)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                both.stream.sendall(b"x" * 50_000_000)
            assert not both.stream._writing
