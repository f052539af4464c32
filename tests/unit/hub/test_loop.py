"""Loop: whose turn it is, and that no wake-up is lost."""

import os
import signal
import socket
import threading
from typing import Any

import pytest

from support.loops import Turned, streams
from support.sockets import connect_pair, open_fds, receive, reset
from support.streams import Ends, Limits

MEBIBYTE = bytes(range(256)) * 4096


# Turns


def test_fibers_begin_in_the_order_they_were_made_in(turned: Turned) -> None:
    begun: list[int] = []
    turned.run(*(lambda number=number: begun.append(number) for number in range(5)))
    assert begun == [0, 1, 2, 3, 4]


def test_all_fibers_begin_although_the_first_of_them_waits(turned: Turned) -> None:
    """None of them may be forgotten while the loop sleeps for the first."""
    with streams(turned, 30) as all_streams:
        for both in all_streams[1:]:
            both.peer.sendall(b"x")
        for both in all_streams[1:]:
            both.wait_readable()
        received: list[bytes] = []

        def first() -> bytes:
            return bytes(all_streams[0].stream.recv(1))

        def other(both: Ends) -> None:
            received.append(both.stream.recv(1))
            if len(received) == 29:
                all_streams[0].peer.sendall(b"y")

        assert turned.run(first, *(lambda both=both: other(both) for both in all_streams[1:]))[0] == b"y"


def test_fiber_that_is_made_by_a_fiber_does_not_live_on_its_stack(turned: Turned) -> None:
    inner: list[Any] = []

    def outer() -> None:
        inner.append(turned.start(lambda: inner.append("ran")))
        while len(inner) < 2:
            turned.loop.give_way()

    turned.run(outer)
    assert inner[0].parent is turned.loop.main


def test_thousands_of_fibers_in_a_chain_do_not_grow_the_stack(turned: Turned) -> None:
    made = [0]

    def link() -> None:
        made[0] += 1
        if made[0] < 3000:
            turned.start(link)

    def wait() -> None:
        while made[0] < 3000:
            turned.loop.give_way()

    turned.run(link, wait)
    assert made == [3000]


def test_who_gives_way_goes_after_all_others(turned: Turned) -> None:
    said: list[str] = []

    def polite() -> None:
        turned.loop.give_way()
        said.append("polite")

    turned.run(polite, lambda: said.append("one"), lambda: said.append("two"))
    assert said == ["one", "two", "polite"]


def test_fiber_that_never_waits_for_long_leaves_the_others_their_turn(turned: Turned) -> None:
    """What it receives is always there already."""
    with streams(turned, 2) as (flood, other):
        flood.arrive(b"x" * 10_000)
        other.arrive(b"y")
        taken: list[int] = []

        def greedy() -> None:
            taken.extend(len(flood.stream.recv(1)) for _ in range(10_000))

        def modest() -> int:
            other.stream.recv(1)
            return len(taken)

        assert turned.run(greedy, modest)[1] < 200


def test_main_has_its_turn_however_busy_the_fibers_are(turned: Turned) -> None:
    called: list[int] = []
    turned.wheel.call_at(0.0, lambda: called.append(1))

    def busy() -> None:
        while not called:
            turned.loop.give_way()

    turned.run(busy)
    assert called == [1]


def test_fiber_is_known_by_its_loop(turned: Turned) -> None:
    assert not turned.loop.in_fiber()
    assert turned.run(turned.loop.in_fiber) == [True]
    elsewhere: list[bool] = []
    thread = threading.Thread(target=lambda: elsewhere.append(turned.loop.in_fiber()))
    thread.start()
    thread.join()
    assert elsewhere == [False]
    assert turned.loop.thread_id == threading.get_ident()


def test_switches_are_counted(turned: Turned) -> None:
    before = turned.loop.switches
    turned.run(turned.loop.give_way, turned.loop.give_way)
    assert turned.loop.switches >= before + 2


# Waits of streams


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_conversations_of_many_fibers_do_not_mix(turned: Turned, family: str) -> None:
    with streams(turned, 20, family) as all_streams:

        def echo(both: Ends) -> int:
            count = 0
            while data := both.stream.recv(100):
                both.stream.sendall(data)
                count += 1
            return count

        def talk() -> None:
            for round_ in range(20):
                for number, both in enumerate(all_streams):
                    both.peer.sendall(b"%d.%d" % (round_, number))
                for number, both in enumerate(all_streams):
                    assert receive(both.peer, len(b"%d.%d" % (round_, number))) == b"%d.%d" % (round_, number)
            for both in all_streams:
                both.peer.shutdown(socket.SHUT_WR)

        talking = threading.Thread(target=talk)
        talking.start()
        counts = turned.run(*(lambda both=both: echo(both) for both in all_streams))
        talking.join()
        assert all(count >= 20 for count in counts), counts


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_end_of_the_stream_wakes_who_waits(turned: Turned, family: str) -> None:
    with streams(turned, family=family) as (both,):
        turned.call_soon(both.peer.close)
        assert turned.run(lambda: both.stream.recv(1)) == [b""]


def test_reset_wakes_who_waits(turned: Turned) -> None:
    with streams(turned) as (both,):
        turned.call_soon(lambda: reset(both.peer))
        [error] = turned.run(lambda: both.stream.recv(1))
        assert isinstance(error, ConnectionResetError)


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_end_of_the_stream_is_seen_after_the_bytes_before_it(turned: Turned, family: str) -> None:
    """Even when both were there before the first wait, of which the short read then says nothing."""
    with streams(turned, family=family) as (both,):

        def read() -> list[bytes]:
            both.peer.sendall(b"x")
            first = both.stream.recv(100)
            both.peer.sendall(b"yz")
            both.peer.close()
            return [first, *iter(lambda: both.stream.recv(100), b"")]

        assert b"".join(turned.run(read)[0]) == b"xyz"


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_reply_larger_than_all_buffers_waits_for_its_reader(turned: Turned, family: str) -> None:
    with streams(turned, family=family) as (both,):
        received: list[bytes] = []
        reading = threading.Thread(target=lambda: received.append(receive(both.peer, 8 * len(MEBIBYTE))))
        turned.call_soon(reading.start)
        assert turned.run(lambda: both.stream.sendall(8 * MEBIBYTE)) == [None]
        reading.join()
        assert received == [8 * MEBIBYTE]


def test_one_fiber_reads_while_another_writes(turned: Turned) -> None:
    with streams(turned) as (both,):
        received: list[bytes] = []

        def peer() -> None:
            both.peer.sendall(b"hello")
            received.append(receive(both.peer, 4 * len(MEBIBYTE)))
            both.peer.sendall(b"!")

        talking = threading.Thread(target=peer)
        turned.call_soon(talking.start)

        def read() -> bytes:
            return bytes(both.stream.read_exactly(6))

        assert turned.run(read, lambda: both.stream.sendall(4 * MEBIBYTE)) == [b"hello!", None]
        talking.join()
        assert received == [4 * MEBIBYTE]


def test_messages_of_several_fibers_never_interleave(turned: Turned) -> None:
    with streams(turned) as (both,):
        messages = [bytes([number]) * 300_000 for number in range(8)]
        received: list[bytes] = []
        reading = threading.Thread(target=lambda: received.append(receive(both.peer, 8 * 300_000)))
        turned.call_soon(reading.start)
        turned.run(*(lambda message=message: both.stream.sendall(message) for message in messages))
        reading.join()
        pieces = [received[0][start : start + 300_000] for start in range(0, 8 * 300_000, 300_000)]
        assert sorted(pieces) == messages


def test_second_reader_is_refused(turned: Turned) -> None:
    with streams(turned) as (both,):

        def second() -> object:
            try:
                return both.stream.recv(1)
            finally:
                both.peer.sendall(b"x")

        first_result, error = turned.run(lambda: both.stream.recv(1), second)
        assert first_result == b"x"
        assert isinstance(error, RuntimeError)
        assert "another fiber is reading" in str(error)


def test_fiber_that_is_woken_without_a_reason_waits_on(turned: Turned) -> None:
    with streams(turned) as (both,):
        fibers: list[Any] = []

        def disturb() -> None:
            for _ in range(5):
                turned.loop.ready(fibers[0])
                turned.loop.give_way()
            both.peer.sendall(b"x")

        def read() -> bytes:
            fibers.append(turned.loop._current())
            return bytes(both.stream.recv(1))

        assert turned.run(read, disturb)[0] == b"x"


def test_number_of_a_forgotten_stream_may_be_used_again(turned: Turned) -> None:
    with streams(turned) as (old,):

        def first() -> object:
            old.arrive(b"x")
            old.stream.recv(10)
            old.stream._readable = False
            old.peer.sendall(b"of the old one")  # an event that nobody waits for
            number = old.ours.fileno()
            old.stream._let_go(False)
            old.ours.close()
            return number

        def second() -> tuple[set[int], bytes]:
            ours, peer = connect_pair("tcp")
            numbers = {ours.fileno(), peer.fileno()}
            with ours, peer:
                both = Ends.of(ours, peer, turned.loop, Limits())
                turned.call_soon(lambda: peer.sendall(b"of the new one"))
                data = both.stream.recv(100)
                both.stream._let_go(False)
            return numbers, data

        [number] = turned.run(first)
        [(numbers, data)] = turned.run(second)
        assert number in numbers
        assert data == b"of the new one"


# Main


def test_descriptor_of_main_ends_its_wait_as_long_as_it_is_readable(turned: Turned) -> None:
    read, write = os.pipe()
    turned.loop.listen(read)
    os.write(write, b"x")
    assert turned.loop.run() == [read]
    assert turned.loop.run() == [read]
    turned.loop.unlisten(read)
    turned.call_soon(lambda: None)
    turned.turn()
    assert turned.heard == [turned.bell]
    os.close(read)
    os.close(write)


def test_error_is_raised_by_main(turned: Turned) -> None:
    turned.loop.error = LookupError("of somebody")
    with pytest.raises(LookupError, match="of somebody"):
        turned.loop.run()
    assert turned.loop.error is None


def test_signal_that_raises_while_a_fiber_waits_for_all_is_raised_by_main(turned: Turned) -> None:
    """It is not meant for the fiber that happens to make the wait."""
    raised: list[BaseException] = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with streams(turned) as (both,):

        def read() -> None:
            try:
                both.stream.recv(1)
            except BaseException as error:
                raised.append(error)

        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            with pytest.raises(KeyboardInterrupt):
                turned.run(read)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert raised == []
        assert not turned.loop.asleep
        both.peer.close()
        while turned.running:
            turned.turn()


def test_bell_rings_when_the_loop_has_slept(turned: Turned) -> None:
    class Bell:
        rung = 0

        def release(self) -> None:
            self.rung += 1
            assert not turned.loop.asleep

    bell = turned.loop.bell = Bell()
    turned.run(lambda: None)
    assert bell.rung == 1
    assert turned.loop.bell is None


def test_closed_loop_leaves_no_descriptor(stream_twin: str) -> None:
    before = open_fds()
    turned = Turned(stream_twin)
    turned.run(lambda: None)
    turned.close()
    assert turned.loop.fileno() == -1
    assert open_fds() == before
