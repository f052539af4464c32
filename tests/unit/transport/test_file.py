"""File, on both twins: the calls of `rfile` and `wfile`; the rest of the protocol is in test_files."""

import io
from collections.abc import Iterator
from typing import Any

import pytest

from support.streams import Ends, ends


@pytest.fixture(params=["tcp", "unix"])
def both(stream_twin: str, request: pytest.FixtureRequest) -> Iterator[Ends]:
    with ends(request.param) as both:
        yield both


def file_of(ends: Ends, reads: bool, writes: bool) -> Any:
    base = type(ends.stream.rfile).__mro__[2]
    assert base.__name__ == "File"
    return base(ends.stream, reads, writes)


def test_lines_are_iterated_to_the_end_of_the_stream(both: Ends) -> None:
    both.peer.sendall(b"one\ntwo\nrest")
    both.peer.shutdown(1)
    assert list(file_of(both, True, False)) == [b"one\n", b"two\n", b"rest"]


def test_line_obeys_the_size_that_is_asked_for(both: Ends) -> None:
    both.peer.sendall(b"12345\n")
    file = file_of(both, True, False)
    assert [file.readline(2), file.readline(), file.readline(0)] == [b"12", b"345\n", b""]


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_write_sends_all_and_returns_the_length(both: Ends, data: Any) -> None:
    assert file_of(both, False, True).write(data) == 3
    assert both.peer.recv(10) == b"abc"


def test_wrong_side_is_refused(both: Ends) -> None:
    with pytest.raises(io.UnsupportedOperation, match="not readable"):
        file_of(both, False, True).readline()
    with pytest.raises(io.UnsupportedOperation, match="not writable"):
        file_of(both, True, False).write(b"x")


def test_closed_file_refuses_everything(both: Ends) -> None:
    file = file_of(both, True, True)
    file.closed = True
    for call in (file.readline, lambda: file.write(b"x"), lambda: next(file), lambda: iter(file)):
        with pytest.raises(ValueError, match="closed file"):
            call()
