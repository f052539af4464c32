"""SocketLike: what code written for `socket.socket` knows."""

import array
import io
import os
import selectors
import socket
import tempfile

import pytest

from support.clock import FakeClock
from support.sockets import read_all
from support.streams import Ends, PollingWaiter, ScriptedWaiter, ends
from support.waiting import in_thread

pytestmark = pytest.mark.usefixtures("stream_twin")


# Timeouts


def test_timeout_is_what_was_set(both: Ends) -> None:
    stream = both.stream
    assert [stream.gettimeout(), stream.timeout, stream.getblocking()] == [None, None, True]
    stream.settimeout(5)
    assert [stream.gettimeout(), stream.timeout, stream.getblocking()] == [5.0, 5.0, True]
    stream.setblocking(False)
    assert [stream.gettimeout(), stream.timeout, stream.getblocking()] == [0.0, 0.0, False]
    stream.setblocking(True)
    assert [stream.gettimeout(), stream.timeout, stream.getblocking()] == [None, None, True]


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
def test_timeout_that_cannot_be_is_refused(both: Ends, seconds: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        both.stream.settimeout(seconds)


def test_plain_calls_come_back_when_the_timeout_goes() -> None:
    with ends(waiter=PollingWaiter(plain=True)) as both:
        plain = [both.stream._special]
        for timeout in (5, None):
            both.stream.settimeout(timeout)
            plain.append(both.stream._special)
        assert plain == [False, True, False]


def test_deadline_is_shared_by_all_calls_within(clock: FakeClock) -> None:
    with ends(waiter=ScriptedWaiter(clock)) as both:
        for _ in range(3):
            both.waiter.then(lambda: both.peer.send(b"x"), after=4)
        with both.stream.deadline(10):
            assert both.stream.recv(1) + both.stream.recv(1) == b"xx"
            with pytest.raises(TimeoutError):
                both.stream.recv(1)
        assert clock.now == 1010
        assert both.stream.causes == []


def test_deadline_that_has_passed_is_not_put_off_by_a_peer_that_floods(clock: FakeClock) -> None:
    with ends(waiter=ScriptedWaiter(clock)) as both, both.stream.deadline(10):
        both.arrive(b"x" * 100)
        assert both.stream.recv(1) == b"x"
        clock.advance(11)
        with pytest.raises(TimeoutError):
            both.stream.recv(1)


@pytest.mark.parametrize(("outer", "inner"), [(5, 10), (10, 5)])
def test_nested_deadlines_end_at_the_earliest(clock: FakeClock, outer: float, inner: float) -> None:
    with ends(waiter=ScriptedWaiter(clock)) as both, both.stream.deadline(outer), both.stream.deadline(inner):
        with pytest.raises(TimeoutError):
            both.stream.recv(1)
        assert clock.now == 1005


def test_outer_deadline_goes_on_after_an_inner_one(clock: FakeClock) -> None:
    with ends(waiter=ScriptedWaiter(clock)) as both:
        with both.stream.deadline(10):
            with both.stream.deadline(2), pytest.raises(TimeoutError):
                both.stream.recv(1)
            with pytest.raises(TimeoutError):
                both.stream.recv(1)
            assert clock.now == 1010
        both.waiter.then(lambda: both.peer.send(b"x"), after=100)
        assert both.stream.recv(1) == b"x"


def test_deadline_and_timeout_end_at_the_earlier(clock: FakeClock) -> None:
    with ends(waiter=ScriptedWaiter(clock)) as both, both.stream.deadline(10):
        both.stream.settimeout(7)
        for moment in (1007, 1010):
            with pytest.raises(TimeoutError):
                both.stream.recv(1)
            assert clock.now == moment


def test_deadline_holds_for_writing_too(clock: FakeClock) -> None:
    with ends(waiter=ScriptedWaiter(clock)) as both:
        both.fill_the_way()
        with both.stream.deadline(3), pytest.raises(TimeoutError):
            both.stream.sendall(b"x")
        assert clock.now == 1003


# The rare ways to receive and send


def test_recvfrom_gives_no_address(both: Ends) -> None:
    both.arrive(b"abcd")
    assert both.stream.recvfrom(2) == (b"ab", None)
    buffer = bytearray(4)
    assert both.stream.recvfrom_into(buffer) == (2, None)
    assert buffer[:2] == b"cd"


def test_recvmsg_gives_what_recv_would(both: Ends) -> None:
    both.arrive(b"line\nabc")
    both.stream.readline()
    assert both.stream.recvmsg(2) == (b"ab", [], 0, None)
    assert both.stream.recvmsg(10, 100)[0] == b"c"


def test_recvmsg_says_end_of_stream(both: Ends) -> None:
    both.peer.close()
    assert both.stream.recvmsg(10, 100)[:2] == (b"", [])


def test_descriptors_travel_over_unix_sockets() -> None:
    with ends("unix") as both, tempfile.TemporaryFile() as file:
        file.write(b"inside")
        file.flush()
        fds = array.array("i", [file.fileno()])
        assert both.peer.sendmsg([b"data"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]) == 4
        data, ancillary, flags, _ = both.stream.recvmsg(100, socket.CMSG_SPACE(4))
        assert data == b"data"
        assert flags & socket.MSG_CTRUNC == 0
        [(level, kind, numbers)] = ancillary
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        received = array.array("i", numbers)[0]
        assert os.pread(received, 100, 0) == b"inside"
        os.close(received)
        assert both.stream.bytes_received == 4


def test_sendmsg_sends_buffers_and_descriptors_from_iterators() -> None:
    with ends("unix") as both, tempfile.TemporaryFile() as file:
        fds = array.array("i", [file.fileno()])
        sent = both.stream.sendmsg(iter((b"one", b"two")), iter([(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]))
        assert sent == 6 == both.stream.bytes_sent
        data, received, _, _ = socket.recv_fds(both.peer, 100, 1)
        assert data == b"onetwo"
        os.close(received[0])


def test_sendmsg_that_has_to_wait_sends_its_descriptors_all_the_same() -> None:
    """Its arguments may be iterators, which are empty at the second try."""
    with ends("unix") as both, tempfile.TemporaryFile() as file:
        before = both.fill_the_way()
        fds = array.array("i", [file.fileno()])
        ancillary = iter([(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        with in_thread(lambda: both.stream.sendmsg(iter([b"last"]), ancillary)) as sending:
            sending.wait_asleep()
            left = before
            while left:
                left -= len(both.peer.recv(left))
            assert sending.result() == 4
        data, received, _, _ = socket.recv_fds(both.peer, 100, 1)
        assert data == b"last"
        assert len(received) == 1
        os.close(received[0])


@pytest.mark.parametrize(
    ("offset", "count", "sent"), [(0, None, b"0123456789"), (3, None, b"3456789"), (2, 4, b"2345"), (8, 100, b"89")]
)
def test_sendfile_sends_a_part_and_leaves_the_file_behind_it(
    both: Ends, offset: int, count: int | None, sent: bytes
) -> None:
    file = io.BytesIO(b"0123456789")
    assert both.stream.sendfile(file, offset, count) == len(sent)
    assert file.tell() == offset + len(sent)
    both.ours.shutdown(socket.SHUT_WR)
    assert read_all(both.peer) == sent


def test_sendfile_sends_a_large_file_whole(both: Ends) -> None:
    data = bytes(range(256)) * 16384  # 4 MiB
    with in_thread(lambda: read_all(both.peer)) as reading:
        assert both.stream.sendfile(io.BytesIO(data)) == len(data)
        both.ours.shutdown(socket.SHUT_WR)
        assert reading.result() == data


def test_sendfile_sends_what_cannot_be_sought(both: Ends) -> None:
    end, begin = os.pipe()
    with open(begin, "wb") as pipe:
        pipe.write(b"through a pipe")
    with open(end, "rb") as file:
        assert both.stream.sendfile(file) == 14
    assert both.peer.recv(100) == b"through a pipe"


# What the socket says of itself


def test_stream_says_what_its_socket_says(both: Ends) -> None:
    stream, ours = both.stream, both.ours
    assert stream.family is ours.family
    assert stream.type is ours.type
    assert stream.proto == ours.proto
    assert stream.fileno() == ours.fileno()
    assert stream.getpeername() == ours.getpeername()
    assert stream.getsockname() == ours.getsockname()
    assert stream.get_inheritable() is False


def test_options_are_set_and_read(both: Ends) -> None:
    both.stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert both.stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    both.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\x02\0\0\0")
    assert both.stream.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == b"\x01\0\0\0\x02\0\0\0"


def test_shutdown_ends_one_direction(both: Ends) -> None:
    both.stream.shutdown(socket.SHUT_WR)
    assert both.peer.recv(10) == b""
    both.peer.send(b"still")
    assert both.stream.recv(10) == b"still"


def test_dup_is_a_socket_of_its_own(both: Ends) -> None:
    with both.stream.dup() as copy:
        assert copy.fileno() != both.stream.fileno()
        assert not copy.get_inheritable()
        copy.sendall(b"x")
        assert both.peer.recv(10) == b"x"
    both.stream.sendall(b"y")
    assert both.peer.recv(10) == b"y"


def test_stream_goes_into_a_selector(both: Ends) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(both.stream, selectors.EVENT_READ)
        assert selector.select(0) == []
        both.peer.send(b"x")
        assert selector.select(20)


def test_files_are_made_once(both: Ends) -> None:
    assert both.stream.rfile is both.stream.rfile
    assert both.stream.wfile is both.stream.wfile
