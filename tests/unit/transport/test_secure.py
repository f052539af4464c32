"""SecureStream: what holds for plain streams holds over TLS, against a real `ssl` peer, on both twins, in threads and fibers."""

import os
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from moorage.errors import ConnectionEnded, TooLarge
from moorage.events import Cause
from moorage.transport.secure import CHUNK
from moorage.transport.tls import Session
from support.clock import FakeClock
from support.loops import Turned, streams, turned
from support.sockets import connect_pair, shrink
from support.streams import Ends, Limits, PollingWaiter, ScriptedWaiter, ends
from support.tls_pairs import NAME, Peer, client_context, server_context
from support.waiting import Running, eventually, is_asleep
from support.writing import InLine

__all__ = ["turned"]

pytestmark = pytest.mark.usefixtures("stream_twin")

BIG = bytes(range(256)) * 4096  # 1 MiB
PART = BIG[:200_000]  # more than small buffers hold


@contextmanager
def secured(waiter: Any = None, family: str = "tcp", **limits: Any) -> Iterator[Ends]:
    """A stream that speaks TLS, and a peer that is an SSLSocket."""
    ours, theirs = connect_pair(family)
    with ours, theirs:
        peer = Peer(ours, theirs)
        with peer.sock:
            both = Ends.of(ours, peer.sock, waiter or PollingWaiter(), Limits(**limits))
            both.stream._secure(peer.session)
            yield both


@pytest.fixture(params=["at once", "with care"])
def both(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """In a thread, in which nothing is special or everything is."""
    with secured(PollingWaiter(plain=request.param == "at once")) as both:
        yield both


def read_all(peer: Any) -> bytes:
    read = bytearray()
    while data := peer.recv(65536):
        read += data
    return bytes(read)


def receive(peer: Any, size: int) -> bytes:
    read = bytearray()
    while len(read) < size and (data := peer.recv(size - len(read))):
        read += data
    return bytes(read)


def talk(peer: ssl.SSLSocket, message: bytes, size: int) -> bytes:
    """Send this and receive so much, in one thread: an SSLSocket bears no two."""
    got, sent = bytearray(), 0
    peer.setblocking(False)
    while len(got) < size or sent < len(message):
        assert any(select.select([peer], [peer] if sent < len(message) else [], [], 20))
        with suppress(ssl.SSLWantReadError):
            while len(got) < size:
                got += peer.recv(65536)
        with suppress(ssl.SSLWantWriteError):
            if sent < len(message):
                sent += peer.send(message[sent : sent + 16384])
    peer.settimeout(20)
    return bytes(got)


# Receiving


def test_message_comes_back(both: Ends) -> None:
    for size in (1, 128, 16384, 16385, 70_000):
        message = os.urandom(size)
        sending = Running(lambda message=message: both.peer.sendall(message))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        data = b""
        while len(data) < size:
            data += both.stream.recv(100_000)
        sending.result()
        assert data == message
        answering = Running(lambda data=data: both.stream.sendall(data))  # type: ignore[misc]  # the same
        assert receive(both.peer, size) == message
        answering.result()
    assert both.stream.bytes_received == both.stream.bytes_sent == 1 + 128 + 16384 + 16385 + 70_000


def test_recv_gives_no_more_than_asked_for(both: Ends) -> None:
    both.peer.sendall(b"hello")
    assert [both.stream.recv(2), both.stream.recv(2), both.stream.recv(2)] == [b"he", b"ll", b"o"]


def test_recv_of_nothing_does_not_wait(both: Ends) -> None:
    assert both.stream.recv(0) == b""


def test_lines_are_read_whole_and_the_rest_waits(both: Ends) -> None:
    both.peer.sendall(b"one\ntwo\nth")
    both.peer.sendall(b"ree\nrest")
    assert [both.stream.readline() for _ in range(3)] == [b"one\n", b"two\n", b"three\n"]
    assert both.stream.read_exactly(4) == b"rest"


def test_files_read_and_write_the_same_bytes(both: Ends) -> None:
    both.peer.sendall(b"one\ntwo\nrest")
    assert next(iter(both.stream.rfile)) == b"one\n"
    assert both.stream.read_until(b"\n") == b"two\n"
    assert both.stream.rfile.read(4) == b"rest"
    both.stream.wfile.write(b"answer")
    assert receive(both.peer, 6) == b"answer"
    file: Any = both.stream.makefile("rwb")
    file.write(b"buffered")
    file.flush()
    assert receive(both.peer, 8) == b"buffered"


def test_recv_into_fills_the_buffer(both: Ends) -> None:
    both.peer.sendall(b"hello")
    buffer = bytearray(3)
    assert both.stream.recv_into(buffer) == 3
    assert both.stream.recv_into(buffer, 1) == 1
    assert bytes(buffer) == b"lel"


def test_line_above_the_limit_is_too_large() -> None:
    with secured(line_limit=10) as both:
        both.peer.sendall(b"x" * 20)
        with pytest.raises(TooLarge):
            both.stream.readline()


def test_peek_takes_nothing_and_other_flags_are_refused(both: Ends) -> None:
    both.peer.sendall(b"hello")
    assert both.stream.recv(2, socket.MSG_PEEK) == b"he"
    assert both.stream.recv(10, socket.MSG_PEEK) == b"hello"
    assert both.stream.recv(10) == b"hello"
    with pytest.raises(BlockingIOError):
        both.stream.recv(10, socket.MSG_DONTWAIT)
    both.peer.sendall(b"whole")
    assert both.stream.recv(5, socket.MSG_WAITALL) == b"whole"
    with pytest.raises(ValueError, match="mean nothing over TLS"):
        both.stream.recv(10, socket.MSG_OOB)
    for call in (both.stream.send, both.stream.sendall):
        with pytest.raises(ValueError, match="mean nothing over TLS"):
            call(b"x", socket.MSG_OOB)


def test_messages_of_sockets_go_through_tls_and_carry_no_descriptors(both: Ends) -> None:
    assert both.stream.sendmsg([b"one ", b"two"]) == 7
    assert receive(both.peer, 7) == b"one two"
    both.peer.sendall(b"answer")
    assert both.stream.recvmsg(100, 100)[0] == b"answer"
    with pytest.raises(ValueError, match="descriptors"):
        both.stream.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"")])
    with pytest.raises(ValueError, match=r"dup\(\) gives away the socket"):
        both.stream.dup()


def test_blocking_recv_wakes_for_the_whole_record_only(both: Ends) -> None:
    reading = Running(lambda: both.stream.recv(100))
    eventually(lambda: is_asleep(reading.thread))
    both.peer.sendall(b"hello")
    assert reading.result() == b"hello"


# Timeouts


def test_timeout_loses_no_byte(both: Ends) -> None:
    plain, cipher = capture(both, b"a whole line\n")
    with plain:
        both.stream.settimeout(0.02)
        for piece in (cipher[:3], cipher[3:20]):
            plain.sendall(piece)
            with pytest.raises(TimeoutError):
                both.stream.readline()
        plain.sendall(cipher[20:])
        both.stream.settimeout(20)
        assert both.stream.readline() == b"a whole line\n"


def capture(both: Ends, data: bytes) -> tuple[socket.socket, bytes]:
    """The plain socket of the peer, and ciphertext that it can send on its own."""
    plain = socket.socket(fileno=os.dup(both.peer.fileno()))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.dup2(theirs.fileno(), both.peer.fileno())
        both.peer.sendall(data)
        cipher = ours.recv(100_000)
        os.dup2(plain.fileno(), both.peer.fileno())
    return plain, cipher


def test_nonblocking_recv_says_that_there_is_nothing(both: Ends) -> None:
    both.stream.setblocking(False)
    with pytest.raises(BlockingIOError):
        both.stream.recv(10)
    both.peer.sendall(b"hello")
    both.wait_readable()
    assert both.stream.recv(2) == b"he"
    assert both.stream.recv(10) == b"llo"
    with pytest.raises(BlockingIOError):
        both.stream.recv(10)


def test_text_that_was_decrypted_is_read_without_a_wait() -> None:
    with secured(waiter := PollingWaiter()) as both:
        both.peer.sendall(b"hello")
        assert both.stream.recv(1) == b"h"
        del waiter.asked[:]
        assert both.stream.recv(10) == b"ello"
        assert waiter.asked == []


def test_record_that_comes_byte_by_byte_has_the_time_of_a_message(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.deadline.monotonic", clock)
    waiter = ScriptedWaiter(clock)
    with secured(waiter, message_timeout=30.0, idle_timeout=60.0) as both:
        plain, cipher = capture(both, b"x" * 100)
        with plain:
            for at in range(10):
                waiter.then(lambda at=at: plain.sendall(cipher[at : at + 1]), after=10.0)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            with pytest.raises(ConnectionEnded):
                both.stream.recv(100)
    assert both.stream.causes == [Cause.MESSAGE_DEADLINE]
    assert len(waiter.steps) == 6


# Sending


def test_large_data_arrives_at_a_slow_reader(both: Ends) -> None:
    shrink(both.ours, both.peer)
    sending = Running(lambda: both.stream.sendall(PART))
    assert receive(both.peer, len(PART)) == PART
    sending.result()
    assert both.stream.bytes_sent == len(PART)


@pytest.mark.parametrize("data", [bytearray(b"hello"), memoryview(b"hello"), b""])
def test_every_buffer_is_sent(both: Ends, data: Any) -> None:
    both.stream.sendall(data)
    assert both.stream.wfile.write(data) == len(data)
    both.stream.sendall(b"!")
    assert receive(both.peer, 2 * len(data) + 1) == bytes(data) * 2 + b"!"


def test_turn_of_a_writer_ends_once(both: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    next_one = InLine(both.stream, monkeypatch)
    both.stream.sendall(b"hello")
    assert (next_one.seen, next_one.released) == ([True], 1)
    assert not both.stream._writing
    assert receive(both.peer, 5) == b"hello"


def test_what_send_took_arrives_although_the_kernel_was_full(both: Ends) -> None:
    shrink(both.ours, both.peer)
    both.stream.setblocking(False)
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            sent += both.stream.send(BIG[sent : sent + 30_000])
    assert both.stream._outbox
    assert len(both.stream._outbox) < CHUNK + 1000
    both.stream.setblocking(True)
    reading = Running(lambda: receive(both.peer, sent + 4))
    both.stream.sendall(b"more")
    assert reading.result() == BIG[:sent] + b"more"
    assert not both.stream._outbox


def test_sendall_that_timed_out_leaves_a_stream_that_goes_on(both: Ends) -> None:
    shrink(both.ours, both.peer)
    both.stream.settimeout(0.02)
    with pytest.raises(TimeoutError):
        both.stream.sendall(BIG)
    sent = both.stream.bytes_sent
    both.stream.settimeout(20)
    reading = Running(lambda: receive(both.peer, sent + 4))
    both.stream.sendall(b"more")
    assert reading.result() == BIG[:sent] + b"more"


def test_what_waits_to_be_sent_goes_before_a_wait_for_the_answer(both: Ends) -> None:
    shrink(both.ours, both.peer)
    both.stream.settimeout(0.02)
    with pytest.raises(TimeoutError):
        both.stream.sendall(BIG)
    sent = both.stream.bytes_sent
    both.stream.settimeout(None)

    def answer() -> bytes:
        read = receive(both.peer, sent)
        both.peer.sendall(b"answer")
        return read

    answering = Running(answer)
    assert both.stream.recv(100) == b"answer"
    assert answering.result() == BIG[:sent]


def test_read_goes_on_although_something_waits_to_be_sent(both: Ends) -> None:
    """As in plain text: this peer speaks first, and reads later."""
    shrink(both.ours, both.peer)
    both.stream.settimeout(0.02)
    with pytest.raises(TimeoutError):
        both.stream.sendall(BIG)
    both.stream.settimeout(None)
    both.peer.sendall(b"speaks first")
    assert both.stream.recv(100) == b"speaks first"


def test_write_deadline_is_on_progress(clock: FakeClock) -> None:
    waiter = ScriptedWaiter(clock)
    with secured(waiter, write_timeout=30.0) as both:
        shrink(both.ours, both.peer)
        both.peer.setblocking(False)

        def read() -> None:
            with suppress(ssl.SSLWantReadError):
                while both.peer.recv(65536):
                    pass

        begun = clock()
        for _ in range(5):
            waiter.then(read, after=20.0)
        with pytest.raises(ConnectionEnded):
            both.stream.sendall(BIG * 4)
        assert clock() - begun > 60
    assert both.stream.causes == [Cause.WRITE_STALLED]


def test_messages_of_several_writers_are_not_mixed(both: Ends) -> None:
    shrink(both.ours, both.peer)
    letters = [b"a", b"b", b"c", b"d"]
    size = 70_000
    writers = [Running(lambda letter=letter: both.stream.sendall(letter * size)) for letter in letters]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    got = [receive(both.peer, size) for _ in letters]
    for writer in writers:
        writer.result()
    assert sorted(message[:1] for message in got) == letters
    assert all(message == message[:1] * size for message in got)


def test_reader_and_writer_work_at_once(both: Ends) -> None:
    sending = Running(lambda: both.stream.sendall(BIG))
    writing = Running(lambda: both.stream.read_exactly(len(BIG)))
    assert talk(both.peer, BIG, len(BIG)) == BIG
    sending.result()
    assert writing.result() == BIG


# The end


def test_close_notify_of_the_peer_is_the_end_and_the_reply_still_arrives(both: Ends) -> None:
    def leave() -> None:
        both.peer.settimeout(20)
        plain = both.peer.unwrap()  # which waits for ours
        plain.close()

    both.peer.sendall(b"request")
    assert both.stream.recv(100) == b"request"
    leaving = Running(leave)
    assert both.stream.recv(100) == b""
    assert both.stream.recv(100) == b""
    assert set(both.stream.causes) == {Cause.PEER_CLOSED}
    both.stream.shutdown(socket.SHUT_WR)
    leaving.result()


def test_peer_that_is_told_the_end_can_go_on_writing(both: Ends) -> None:
    both.stream.sendall(b"reply")
    both.stream.shutdown(socket.SHUT_WR)
    assert read_all(both.peer) == b"reply"  # SSLEOFError without close_notify
    both.peer.sendall(b"still here")
    assert both.stream.recv(100) == b"still here"


def test_nothing_can_be_written_after_the_end(both: Ends) -> None:
    both.stream.shutdown(socket.SHUT_WR)
    for call in (both.stream.send, both.stream.sendall):
        with pytest.raises(BrokenPipeError):
            call(b"x")
    both.peer.sendall(b"still here")
    assert both.stream.recv(100) == b"still here"


def test_end_without_close_notify_is_the_end_of_the_stream(both: Ends) -> None:
    both.peer.sendall(b"last")
    socket.socket.shutdown(both.peer, socket.SHUT_WR)
    assert both.stream.recv(100) == b"last"
    assert both.stream.recv(100) == b""
    both.stream.sendall(b"reply")
    assert receive(both.peer, 5) == b"reply"


@pytest.mark.parametrize("kept", [3, 20])
def test_end_in_the_middle_of_a_record_is_a_reset(both: Ends, kept: int) -> None:
    plain, cipher = capture(both, b"never whole")
    with plain:
        plain.sendall(cipher[:kept])
        plain.shutdown(socket.SHUT_WR)
        for _ in range(2):
            with pytest.raises(ConnectionResetError) as raised:
                both.stream.recv(100)
            assert both.stream.is_own(raised.value)
    assert set(both.stream.causes) == {Cause.RESET}


def test_reset_of_the_peer_is_one(both: Ends) -> None:
    both.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    both.peer.close()
    with pytest.raises(ConnectionResetError) as raised:
        both.stream.recv(100)
    assert both.stream.is_own(raised.value)
    assert both.stream.causes == [Cause.RESET]


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.0\r\n\r\n", b"\x17\x03\x03\x00\x20" + b"x" * 32])
def test_garbage_ends_the_stream_with_an_alert(both: Ends, garbage: bytes) -> None:
    both.peer.settimeout(20)
    os.write(both.peer.fileno(), garbage)
    with pytest.raises(ConnectionEnded) as raised:
        both.stream.recv(100)
    assert raised.value.cause == Cause.TLS_ERROR
    assert both.stream.causes == [Cause.TLS_ERROR]
    with pytest.raises(ssl.SSLError, match="ALERT"):
        both.peer.recv(100)


def test_stream_told_by_a_drain_still_writes_its_goodbye() -> None:
    with secured() as both:
        reading = Running(lambda: both.stream.recv(100))
        eventually(lambda: is_asleep(reading.thread))
        both.stream._told = True
        both.ours.shutdown(socket.SHUT_RD)
        assert reading.result() == b""
        both.stream.sendall(b"bye")
        assert both.stream._say_end() == b""
        assert read_all(both.peer) == b"bye"


def test_end_in_the_middle_of_a_message_is_not_said() -> None:
    with secured() as both:
        both.stream._writing = True
        assert both.stream._say_end() == b""
        assert not both.stream._tls.is_closed


def test_end_that_the_kernel_does_not_take_is_left_over() -> None:
    with secured() as both:
        both.fill_the_way()
        left = both.stream._say_end()
        assert left
        assert both.stream._say_end() == left


# The handshake


def test_handshake_over_the_stream() -> None:
    with ends(waiter=PollingWaiter(plain=True)) as both:
        sock = client_context().wrap_socket(both.peer, server_hostname=NAME, do_handshake_on_connect=False)
        with sock:
            shaking = Running(sock.do_handshake)
            session = Session(server_context())
            both.stream._shake_hands(session, 20)
            both.stream._secure(session)
            shaking.result()
            sock.sendall(b"hello")
            assert both.stream.recv(100) == b"hello"
            assert both.stream.timeout is None


def test_handshake_that_takes_too_long_is_late() -> None:
    with ends() as both:
        both.stream.settimeout(7)
        with pytest.raises(TimeoutError):
            both.stream._shake_hands(Session(server_context()), 0.02)
        assert both.stream.timeout == 7
        both.peer.sendall(b"no TLS\r\n")
        with pytest.raises(ssl.SSLError):
            both.stream._shake_hands(Session(server_context()), 20)


# Fibers


@contextmanager
def in_loop(turned: Turned, family: str = "tcp", **limits: Any) -> Iterator[Ends]:
    with streams(turned, 1, family, **limits) as [both], ExitStack() as stack:
        peer = Peer(both.ours, both.peer)
        both.peer = stack.enter_context(peer.sock)
        both.stream._secure(peer.session)
        yield both


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_fiber_echoes_every_size(turned: Turned, family: str) -> None:
    sizes = [1, 128, 16384, 16385, 200_000]
    with in_loop(turned, family) as both:

        def echo() -> str:
            while data := both.stream.recv(8192):
                both.stream.sendall(data)
            both.stream.shutdown(socket.SHUT_WR)
            return "done"

        def ask() -> None:
            for size in sizes:
                message = os.urandom(size)
                assert talk(both.peer, message, size) == message
            both.peer.unwrap().close()

        asking = Running(ask)
        assert turned.run(echo) == ["done"]
        asking.result()
        assert both.stream.bytes_received == sum(sizes)


def test_fibers_that_read_and_write_take_turns(turned: Turned) -> None:
    with in_loop(turned) as both:
        shrink(both.ours, both.peer)

        size = len(PART)
        talking = Running(lambda: receive(both.peer, 2 * size))
        results = turned.run(lambda: both.stream.sendall(b"a" * size), lambda: both.stream.sendall(b"b" * size))
        assert results == [None, None]
        assert talking.result() in (b"a" * size + b"b" * size, b"b" * size + b"a" * size)


def test_fiber_that_times_out_loses_no_byte(turned: Turned) -> None:
    with in_loop(turned) as both:
        plain, cipher = capture(both, b"a line\n")

        def read() -> bytes:
            both.stream.settimeout(0.05)
            plain.sendall(cipher[:9])
            with pytest.raises(TimeoutError):
                both.stream.readline()
            plain.sendall(cipher[9:])
            both.stream.settimeout(None)
            line: bytes = both.stream.readline()
            return line

        with plain:
            assert turned.run(read) == [b"a line\n"]


def test_fiber_reads_and_sends_what_waits_whichever_comes_first(turned: Turned) -> None:
    with in_loop(turned) as both:
        shrink(both.ours, both.peer)

        def serve() -> tuple[bytes, bytes]:
            both.stream.settimeout(0.05)
            with pytest.raises(TimeoutError):
                both.stream.sendall(BIG)
            both.stream.settimeout(20)
            both.peer.sendall(b"first")
            first = both.stream.recv(100)
            asking = Running(lambda: (receive(both.peer, both.stream.bytes_sent), both.peer.sendall(b"second")))
            second = both.stream.recv(100)
            asking.result()
            return first, second

        assert turned.run(serve) == [(b"first", b"second")]


def test_fiber_that_writes_takes_over_from_one_that_reads_and_sends_what_waits(turned: Turned) -> None:
    with in_loop(turned) as both:
        shrink(both.ours, both.peer)

        def give_up() -> None:
            both.stream.settimeout(0.05)
            with pytest.raises(TimeoutError):
                both.stream.sendall(BIG)
            both.stream.settimeout(20)

        def read() -> bytes:
            data: bytes = both.stream.recv(100)
            return data

        def answer(size: int) -> None:
            assert receive(both.peer, size).endswith(PART)
            both.peer.sendall(b"answer")

        talking: list[Running] = []

        def write() -> bytes:
            is_shared = both.stream._writer is both.stream._reader is not None
            size = both.stream.bytes_sent + len(PART)
            talking.append(Running(lambda: answer(size)))
            both.stream.sendall(PART)
            assert is_shared  # what this is about
            return b"sent"

        assert turned.run(give_up) == [None]
        assert turned.run(read, write) == [b"answer", b"sent"]
        talking[0].result()


def test_message_in_a_fiber_costs_no_receive_in_vain(turned: Turned, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_loop(turned) as both:
        reads: list[object] = []
        read = both.stream._tls._read

        def count(size: int) -> Any:
            try:
                reads.append(data := read(size))
            except ssl.SSLError as error:
                reads.append(error)
                raise
            return data

        both.stream._tls._read = count

        def echo() -> None:
            for _ in range(10):
                both.stream.sendall(both.stream.recv(8192))

        def ask() -> None:
            for _ in range(10):
                both.peer.sendall(b"hello")
                receive(both.peer, 5)

        asking = Running(ask)
        turned.run(echo)
        asking.result()
        assert reads == [b"hello"] * 10


def test_fiber_is_told_of_garbage(turned: Turned) -> None:
    with in_loop(turned) as both:
        os.write(both.peer.fileno(), b"GET / HTTP/1.0\r\n\r\n")
        [error] = turned.run(lambda: both.stream.recv(100))
        assert isinstance(error, ConnectionEnded)
        assert error.cause == Cause.TLS_ERROR


def test_lines_in_a_fiber(turned: Turned) -> None:
    lines = [b"%d" % number * 50 + b"\n" for number in range(1000)]
    with in_loop(turned) as both:

        def say() -> None:
            for line in lines:
                both.peer.sendall(line)
            socket.socket.shutdown(both.peer, socket.SHUT_WR)

        saying = Running(say)
        assert turned.run(lambda: list(both.stream.rfile)) == [lines]
        saying.result()
