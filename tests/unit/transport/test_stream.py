"""Stream: no byte is lost or counted twice, whatever arrives in whatever pieces."""

import array
import errno
import signal
import socket

import pytest

from moorage.errors import TooLarge
from moorage.events import Cause
from moorage.transport.stream import RECV_SIZE
from support.sockets import read_all, reset, shrink
from support.streams import Ends, PollingWaiter, ends
from support.waiting import in_thread

pytestmark = pytest.mark.usefixtures("stream_twin")

BIG = bytes(range(256)) * 4096  # 1 MiB


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

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ends(waiter=PollingWaiter(plain=True)) as both:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(KeyboardInterrupt):
                both.stream.recv(10)
            assert both.stream._waiting_since == 0.0
    finally:
        signal.signal(signal.SIGALRM, before)


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
