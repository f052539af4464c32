"""Unit tests of `moorage.socketserver.rfile`."""

import io
import socket
from collections.abc import Callable, Iterator

import pytest

from moorage.errors import TooLarge
from moorage.socketserver.rfile import Limits, Reader, UnbufferedReader
from support.clock import FakeClock
from support.sockets import pair

LIMITS = Limits(line=100)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    with pair() as (ours, theirs):
        ours.settimeout(0.01)
        yield ours, theirs


@pytest.fixture
def rfile(ends: Pair) -> Iterator[Reader]:
    with Reader(ends[0], -1, LIMITS) as rfile:
        yield rfile


def times_out(call: Callable[[], object]) -> None:
    with pytest.raises(TimeoutError):
        call()


def test_reader_is_the_file_that_programs_expect(ends: Pair, rfile: Reader) -> None:
    assert isinstance(rfile, io.BufferedReader)
    assert rfile.readable()
    assert rfile.fileno() == ends[0].fileno()
    assert rfile.raw._sock is ends[0]  # type: ignore[attr-defined]
    ends[1].sendall("grüße\n".encode())
    assert io.TextIOWrapper(rfile).readline() == "grüße\n"


def test_iteration_gives_lines_and_the_last_one_without_newline(ends: Pair, rfile: Reader) -> None:
    ends[1].sendall(b"one\ntwo\nthree")
    ends[1].close()
    assert list(rfile) == [b"one\n", b"two\n", b"three"]
    assert rfile.readline() == b""


def test_timeout_in_a_line_loses_no_byte(ends: Pair, rfile: Reader) -> None:
    ends[1].sendall(b"HE")
    times_out(rfile.readline)
    ends[1].sendall(b"L")
    times_out(rfile.readline)
    ends[1].sendall(b"LO\nnext\n")
    assert rfile.readline() == b"HELLO\n"
    assert rfile.readline() == b"next\n"


def test_timeout_in_iteration_loses_no_byte(ends: Pair, rfile: Reader) -> None:
    ends[1].sendall(b"one\ntw")
    lines = iter(rfile)
    assert next(lines) == b"one\n"
    times_out(lambda: next(lines))
    ends[1].sendall(b"o\n")
    assert next(lines) == b"two\n"


@pytest.mark.parametrize("method", ["read", "readinto"])
def test_timeout_in_a_block_loses_no_byte(ends: Pair, rfile: Reader, method: str) -> None:
    def read() -> bytes:
        if method == "read":
            return rfile.read(6)
        buffer = bytearray(6)
        return bytes(buffer[: rfile.readinto(buffer)])

    ends[1].sendall(b"abc")
    times_out(read)
    ends[1].sendall(b"defg")
    assert read() == b"abcdef"
    assert rfile.read1() == b"g"


def test_timeout_before_the_end_of_the_stream_loses_no_byte(ends: Pair, rfile: Reader) -> None:
    ends[1].sendall(b"abc")
    times_out(rfile.read)
    ends[1].close()
    assert rfile.read() == b"abc"


def test_what_a_timeout_kept_is_read_by_every_method(ends: Pair, rfile: Reader) -> None:
    ends[1].sendall(b"abcdefgh")
    times_out(rfile.readline)
    assert rfile.peek(1)[:1] == b"a"
    assert rfile.read(2) == b"ab"
    assert rfile.read1(2) == b"cd"
    buffer = bytearray(2)
    assert rfile.readinto1(buffer) == 2
    assert rfile.readline(1) == b"g"
    assert rfile.read1(100) == b"h"
    times_out(lambda: rfile.read1(1))
    times_out(lambda: rfile.peek(1))


def test_line_within_the_limit_is_delivered(ends: Pair, rfile: Reader) -> None:
    line = b"x" * 99 + b"\n"
    ends[1].sendall(line)
    assert rfile.readline() == line


def test_line_beyond_the_limit_is_too_large_for_good(ends: Pair, rfile: Reader) -> None:
    ends[1].sendall(b"x" * 101 + b"\nnext\n")
    reads: list[Callable[[], bytes]] = [rfile.readline, rfile.readline, rfile.read1, lambda: rfile.read(1)]
    for read in reads:
        with pytest.raises(TooLarge):
            read()


def test_size_of_the_caller_wins_over_the_limit(ends: Pair, rfile: Reader) -> None:
    line = b"x" * 500 + b"\n"
    ends[1].sendall(line)
    assert rfile.readline(65537) == line
    ends[1].sendall(line)
    assert rfile.readline(5) == b"xxxxx"


def test_block_beyond_the_message_limit_is_too_large(ends: Pair) -> None:
    with Reader(ends[0], -1, LIMITS._replace(message=10)) as rfile:
        ends[1].sendall(b"x" * 30)
        assert rfile.read(10) == b"x" * 10
        with pytest.raises(TooLarge):
            rfile.read()


def test_block_within_the_message_limit_is_delivered(ends: Pair) -> None:
    with Reader(ends[0], -1, LIMITS._replace(message=10)) as rfile:
        ends[1].sendall(b"x" * 10)
        times_out(rfile.read)
        ends[1].close()
        assert rfile.read() == b"x" * 10
        assert rfile.read() == b""


@pytest.mark.parametrize("kind", ["buffered", "unbuffered"])
def test_line_that_drips_ends_at_the_message_timeout(ends: Pair, kind: str) -> None:
    clock = FakeClock()
    limits = LIMITS._replace(message_timeout=5)
    rfile = Reader(ends[0], -1, limits, clock) if kind == "buffered" else UnbufferedReader(ends[0], limits, clock)
    with rfile:
        for _ in range(3):
            ends[1].sendall(b"x")
            times_out(rfile.readline)
            clock.advance(2)
        ends[1].sendall(b"x\n")
        with pytest.raises(TimeoutError, match="did not end within 5 s"):
            rfile.readline()


def test_message_timeout_begins_anew_with_each_line(ends: Pair) -> None:
    clock = FakeClock()
    with Reader(ends[0], -1, LIMITS._replace(message_timeout=5), clock) as rfile:
        for _ in range(3):
            ends[1].sendall(b"line\n")
            assert rfile.readline() == b"line\n"
            clock.advance(4)


def test_idle_client_ends_at_the_idle_timeout(ends: Pair) -> None:
    ends[0].settimeout(None)
    with Reader(ends[0], -1, LIMITS._replace(idle_timeout=0.01)) as rfile:
        with pytest.raises(TimeoutError, match="no byte came"):
            rfile.readline()
        ends[1].sendall(b"x\n")
        assert rfile.readline() == b"x\n"


def test_file_keeps_the_socket_open_until_both_are_closed(ends: Pair) -> None:
    rfile = Reader(ends[0], -1, LIMITS)
    ends[0].close()
    ends[1].sendall(b"x\n")
    assert rfile.readline() == b"x\n"
    rfile.close()
    assert ends[0].fileno() == -1


def test_reset_is_raised(ends: Pair, rfile: Reader) -> None:
    ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    ends[1].close()
    with pytest.raises(ConnectionResetError):
        rfile.readline()


def test_unbuffered_reader_takes_no_more_than_was_asked_for(ends: Pair) -> None:
    with UnbufferedReader(ends[0], LIMITS) as rfile:
        ends[1].sendall(b"line\nrest")
        assert rfile.readline() == b"line\n"
        assert rfile.read(100) == b"rest"
        assert ends[1].send(b"more") == 4
        assert rfile.read(2) == b"mo"
        assert ends[0].recv(10) == b"re"


def test_unbuffered_reader_loses_no_byte_and_has_the_limit(ends: Pair) -> None:
    with UnbufferedReader(ends[0], LIMITS) as rfile:
        ends[1].sendall(b"HEL")
        times_out(rfile.readline)
        ends[1].sendall(b"LO\n")
        assert rfile.readline() == b"HELLO\n"
        ends[1].sendall(b"x" * 101)
        with pytest.raises(TooLarge):
            rfile.readline()
