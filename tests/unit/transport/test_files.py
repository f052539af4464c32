"""Files: the protocol of `io.BufferedIOBase` over a stream, and no buffer that hides bytes from it."""

import io
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from moorage.errors import TooLarge
from moorage.transport.files import Reader
from support.sockets import read_all, shrink
from support.streams import Ends, ends
from support.waiting import in_thread

SHORT = 0.01


pytestmark = pytest.mark.usefixtures("stream_twin")


@pytest.fixture(params=["tcp", "unix"])
def both(stream_twin: str, request: pytest.FixtureRequest) -> Iterator[Ends]:
    with ends(request.param, message_limit=1000, line_limit=100) as both:
        yield both


def reader_of(both: Ends) -> Reader:
    return both.stream.rfile


# Reading


def test_reader_is_a_buffered_file(both: Ends) -> None:
    reader = reader_of(both)
    assert isinstance(reader, io.BufferedIOBase)
    assert reader.readable()
    assert not reader.writable()
    assert not reader.seekable()
    assert not reader.isatty()
    assert reader.fileno() == both.ours.fileno()
    with pytest.raises(io.UnsupportedOperation):
        reader.write(b"x")
    with pytest.raises(io.UnsupportedOperation):
        reader.seek(0)


def test_read_gives_exactly_so_many_bytes(both: Ends) -> None:
    both.arrive(b"hello")
    assert reader_of(both).read(2) == b"he"
    with in_thread(lambda: reader_of(both).read(5)) as reading:
        reading.wait_asleep()
        both.peer.send(b" you")
        assert reading.result() == b"llo y"


def test_read_of_no_byte_does_not_wait(both: Ends) -> None:
    assert reader_of(both).read(0) == b""
    assert reader_of(both).read1(0) == b""
    assert reader_of(both).readline(0) == b""
    assert reader_of(both).readinto(bytearray()) == 0


def test_read_gives_less_at_the_end_only(both: Ends) -> None:
    both.arrive(b"abc")
    both.peer.close()
    assert reader_of(both).read(10) == b"abc"
    assert reader_of(both).read(10) == b""


@pytest.mark.parametrize("size", [(), (-1,), (None,)])
def test_read_without_a_size_gives_everything(both: Ends, size: tuple[Any, ...]) -> None:
    both.arrive(b"abc\n")
    both.arrive(b"def")
    both.peer.close()
    assert reader_of(both).read(*size) == b"abc\ndef"


def test_read_without_a_size_obeys_the_message_limit(both: Ends) -> None:
    both.arrive(b"x" * 1001)
    with pytest.raises(TooLarge, match="1000 bytes"):
        reader_of(both).read()


def test_size_of_the_caller_wins_over_the_message_limit(both: Ends) -> None:
    with in_thread(lambda: both.peer.sendall(b"x" * 5000)):
        assert reader_of(both).read(5000) == b"x" * 5000


def test_read1_gives_what_is_there(both: Ends) -> None:
    both.arrive(b"abc")
    assert reader_of(both).read1() == b"abc"
    both.arrive(b"def")
    assert reader_of(both).read1(2) == b"de"
    assert reader_of(both).read1(-1) == b"f"


def test_readinto_fills_and_readinto1_takes_what_is_there(both: Ends) -> None:
    both.arrive(b"abc")
    buffer = bytearray(5)
    assert reader_of(both).readinto1(buffer) == 3
    assert buffer == b"abc\0\0"
    both.arrive(b"123")
    both.peer.sendall(b"45678")
    assert reader_of(both).readinto(buffer) == 5
    assert buffer == b"12345"


def test_iteration_gives_lines_until_the_end(both: Ends) -> None:
    both.arrive(b"one\ntwo\nthree")
    both.peer.close()
    assert list(reader_of(both)) == [b"one\n", b"two\n", b"three"]


def test_next_gives_lines_one_by_one(both: Ends) -> None:
    both.arrive(b"one\n")
    assert next(reader_of(both)) == b"one\n"
    both.peer.close()
    with pytest.raises(StopIteration):
        next(reader_of(both))


def test_readlines_gives_them_all(both: Ends) -> None:
    both.arrive(b"one\ntwo\n")
    both.peer.close()
    assert reader_of(both).readlines() == [b"one\n", b"two\n"]


def test_iteration_obeys_the_line_limit(both: Ends) -> None:
    both.arrive(b"x" * 200 + b"\n")
    with pytest.raises(TooLarge):
        next(iter(reader_of(both)))


def test_peek_consumes_nothing(both: Ends) -> None:
    both.arrive(b"abc")
    assert reader_of(both).peek(1)[:1] == b"a"
    assert reader_of(both).read(3) == b"abc"


def test_timeout_in_iteration_loses_no_byte(both: Ends) -> None:
    """`socket.makefile()` loses the begun line and then refuses to go on."""
    both.stream.settimeout(SHORT)
    both.arrive(b"half ")
    with pytest.raises(TimeoutError):
        next(iter(reader_of(both)))
    with pytest.raises(TimeoutError):
        reader_of(both).read(100)
    both.arrive(b"a line\n")
    assert next(iter(reader_of(both))) == b"half a line\n"


def test_files_and_the_stream_share_their_bytes(both: Ends) -> None:
    both.arrive(b"one\ntwo\nthree\nfour\n")
    assert both.stream.makefile("rb").readline() == b"one\n"
    assert reader_of(both).readline() == b"two\n"
    assert both.stream.recv(6) == b"three\n"
    assert both.stream.makefile("rwb").readline() == b"four\n"


def test_closed_reader_refuses_and_the_connection_stays(both: Ends) -> None:
    reader: Any = both.stream.makefile("rb")
    both.arrive(b"abc\n")
    with reader:
        pass
    assert reader.closed
    calls = [
        reader.read,
        reader.read1,
        reader.readline,
        reader.peek,
        lambda: iter(reader),
        lambda: reader.readinto(bytearray(1)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
    assert both.stream.recv(10) == b"abc\n"


# Writing


def test_writer_is_a_buffered_file(both: Ends) -> None:
    writer = both.stream.wfile
    assert isinstance(writer, io.BufferedIOBase)
    assert writer.writable()
    assert not writer.readable()
    assert writer.fileno() == both.ours.fileno()
    with pytest.raises(io.UnsupportedOperation):
        writer.read()


@pytest.mark.parametrize("data", [b"bytes", bytearray(b"bytes"), memoryview(b"bytes")])
def test_write_sends_at_once_and_whole(both: Ends, data: bytes) -> None:
    assert both.stream.wfile.write(data) == 5
    assert both.peer.recv(10) == b"bytes"


def test_write_says_its_length_in_bytes(both: Ends) -> None:
    numbers = memoryview(b"12345678").cast("I")
    assert both.stream.wfile.write(numbers) == 8


def test_writelines_sends_them_all(both: Ends) -> None:
    both.stream.wfile.writelines([b"one\n", b"two\n"])
    both.ours.shutdown(socket.SHUT_WR)
    assert read_all(both.peer) == b"one\ntwo\n"


def test_closed_writer_refuses_and_the_connection_stays(both: Ends) -> None:
    writer = both.stream.wfile
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"x")
    both.stream.sendall(b"y")
    assert both.peer.recv(10) == b"y"


# makefile


@pytest.mark.parametrize("mode", ["a", "x", "rt+", "", "b", "rz"])
def test_makefile_refuses_other_modes(both: Ends, mode: str) -> None:
    with pytest.raises(ValueError, match="invalid mode"):
        both.stream.makefile(mode)


@pytest.mark.parametrize("mode", ["r", "w", "rw"])
def test_makefile_refuses_unbuffered_text(both: Ends, mode: str) -> None:
    with pytest.raises(ValueError, match="must be binary"):
        both.stream.makefile(mode, 0)


@pytest.mark.parametrize("buffering", [None, -1, 0, 1, 512, 100_000])
@pytest.mark.parametrize("mode", ["rb", "rwb", "br"])
def test_makefile_reads_lines_as_they_come(both: Ends, mode: str, buffering: int | None) -> None:
    """A second buffer would wait for more than the line."""
    file: Any = both.stream.makefile(mode, buffering)
    assert file.readable()
    assert file.writable() is ("w" in mode)
    both.arrive(b"one\ntwo\nth")
    assert [file.readline(), file.readline()] == [b"one\n", b"two\n"]
    assert both.stream.recv(10) == b"th"


@pytest.mark.parametrize("buffering", [None, -1, 1, 512])
@pytest.mark.parametrize("mode", ["wb", "rwb"])
def test_makefile_buffers_writes_until_flush(both: Ends, mode: str, buffering: int | None) -> None:
    file: Any = both.stream.makefile(mode, buffering)
    assert file.write(b"hello") == 5
    assert both.stream.bytes_sent == 0
    file.flush()
    assert both.peer.recv(10) == b"hello"
    file.write(b"bye")
    file.close()
    assert both.peer.recv(10) == b"bye"
    assert file.closed
    both.stream.sendall(b"open")
    assert both.peer.recv(10) == b"open"


@pytest.mark.parametrize("mode", ["wb", "rwb"])
def test_makefile_without_buffer_writes_at_once(both: Ends, mode: str) -> None:
    file: Any = both.stream.makefile(mode, 0)
    file.write(b"hello")
    assert both.peer.recv(10) == b"hello"


def test_closed_pair_refuses(both: Ends) -> None:
    file: Any = both.stream.makefile("rwb")
    file.close()
    for call in (lambda: file.write(b"x"), file.readline):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_buffered_write_after_a_timeout_sends_each_byte_once() -> None:
    """What was sent before the timeout must not be sent again with the next flush."""
    data = bytes(range(256)) * 8192  # 2 MiB
    with ends() as both:
        shrink(both.ours, both.peer)
        file: Any = both.stream.makefile("wb", len(data))
        both.stream.settimeout(SHORT)
        file.write(data)
        with pytest.raises(TimeoutError):
            file.flush()
        assert 0 < both.stream.bytes_sent < len(data)
        both.stream.settimeout(None)
        with in_thread(lambda: read_all(both.peer)) as reading:
            file.close()
            both.ours.shutdown(socket.SHUT_WR)
            assert reading.result() == data


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_text_file_reads_and_writes(both: Ends, encoding: str) -> None:
    file: Any = both.stream.makefile("rw", encoding=encoding, newline="\n")
    assert isinstance(file, io.TextIOWrapper)
    both.arrive("grüß\ngott\n".encode(encoding))
    assert [file.readline(), file.readline()] == ["grüß\n", "gott\n"]
    file.write("zurück\n")
    file.flush()
    assert both.peer.recv(100) == "zurück\n".encode(encoding)


def test_text_file_reads_a_line_before_more_comes(both: Ends) -> None:
    file: Any = both.stream.makefile("r", encoding="ascii")
    both.arrive(b"one\n")
    assert file.readline() == "one\n"
    both.peer.close()
    assert file.read() == ""


def test_text_wrapper_of_our_binary_file_works(both: Ends) -> None:
    both.arrive(b"one\r\ntwo\r\n")
    both.peer.close()
    file: Any = both.stream.makefile("rb")
    assert list(io.TextIOWrapper(file, "ascii")) == ["one\n", "two\n"]


def test_buffered_reader_of_the_standard_library_works_on_ours(both: Ends) -> None:
    both.arrive(b"abc\ndef")
    both.peer.close()
    file: Any = both.stream.makefile("rb")
    assert io.BufferedReader(file).read() == b"abc\ndef"
