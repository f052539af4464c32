"""Watch: what ends its wait and what does not, and sockets that linger; a Hub does all of it, too."""

import gc
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from moorage.hub.hub import Hub
from moorage.watch import LINGER_BYTES, LINGER_LOOKS, LINGER_SECONDS, REST_SECONDS, Watch
from support.clock import FakeClock
from support.sockets import FAMILIES, connect_pair, open_fds, pair, read_all, reset
from support.waiting import Running, eventually, in_thread

LONG = 20.0

Kind = type[Watch]


class EnteredHub(Hub):
    """A hub that whoever turns it has entered."""

    def turn(self, timeout: float | None = None) -> None:
        if self.loop.thread_id != threading.get_ident():
            self.enter()
        super().turn(timeout)


@pytest.fixture(params=[Watch, EnteredHub], ids=["watch", "hub"])
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param
    return made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def watch(kind: Kind, clock: FakeClock) -> Iterator[Watch]:
    watch = kind(clock)
    yield watch
    watch.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


# Calls and wake-ups


def test_call_made_before_the_turn_is_run_in_it(watch: Watch) -> None:
    called: list[int] = []
    watch.call_soon(lambda: called.append(1))
    watch.call_soon(lambda: called.append(2))
    watch.turn(LONG)
    assert called == [1, 2]


def test_call_from_another_thread_ends_the_wait(watch: Watch) -> None:
    called: list[int] = []
    with in_thread(watch.turn) as turning:
        turning.wait_asleep()
        watch.call_soon(lambda: called.append(threading.get_ident()))
        turning.result()
    assert called == [turning.thread.ident]


def test_calls_from_many_threads_are_all_made(watch: Watch) -> None:
    called: list[int] = []
    total = 4 * 2000

    def turn() -> None:
        while len(called) < total:
            watch.turn(LONG)

    def call(number: int) -> None:
        for _ in range(2000):
            watch.call_soon(lambda: called.append(number))

    with in_thread(turn) as turning:
        callers = [Running(lambda number=number: call(number)) for number in range(4)]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        for caller in callers:
            caller.result()
        turning.result()
    assert len(called) == total


def test_call_from_a_signal_handler_ends_the_wait(watch: Watch) -> None:
    """The handler runs in the very thread that waits."""
    called: list[str] = []
    before = signal.signal(signal.SIGALRM, lambda *_: watch.call_soon(lambda: called.append("now")))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        while not called:
            watch.turn(LONG)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert called == ["now"]


def test_call_of_a_call_waits_for_the_next_turn(watch: Watch) -> None:
    """Else a call that calls again would keep listeners waiting for ever."""
    turns: list[int] = []

    def again() -> None:
        turns.append(1)
        watch.call_soon(again)

    watch.call_soon(again)
    watch.turn(0)
    first = len(turns)
    watch.turn(0)
    assert first <= 2
    assert first < len(turns) <= 4


def test_turn_within_a_call_makes_the_other_calls(watch: Watch) -> None:
    """The inline runner's handler turns the Watch that called it."""
    called: list[str] = []

    def turn_within() -> None:
        called.append("first")
        watch.turn(0)
        called.append("first is back")

    watch.call_soon(turn_within)
    watch.call_soon(lambda: called.append("second"))
    watch.call_soon(lambda: called.append("third"))
    watch.turn(0)
    assert called == ["first", "second", "third", "first is back"]


def test_wake_ends_the_next_turn_too(watch: Watch) -> None:
    watch.wake()
    watch.turn(LONG)


@pytest.mark.parametrize("kind", [Watch])
def test_idle_watch_does_not_wake(watch: Watch) -> None:
    """One poll call for the whole wait: no heartbeat, no polling."""
    polls: list[float | None] = []
    poll = watch._poll

    class CountingPoll:
        def poll(self, timeout: float | None) -> list[tuple[int, int]]:
            polls.append(timeout)
            return poll.poll(timeout)

    watch._poll = CountingPoll()  # type: ignore[assignment]
    with in_thread(watch.turn) as turning:
        turning.wait_asleep()
        assert polls == [None]
        watch.wake()
        turning.result()
    assert len(polls) == 1


def test_turn_ends_after_its_timeout(kind: Kind) -> None:
    watch = kind()
    watch.turn(0.001)
    watch.close()


# Timers


def test_timer_ends_the_wait_when_it_is_due(watch: Watch, clock: FakeClock) -> None:
    called: list[int] = []
    watch.call_at(clock.now + 0.01, lambda: called.append(1))
    watch.turn(0)
    assert called == []
    clock.advance(1)
    watch.turn(LONG)
    assert called == [1]


def test_turn_waits_for_the_first_of_timeout_and_timer(kind: Kind) -> None:
    watch = kind()
    called: list[int] = []
    watch.call_at(watch._clock() + 0.01, lambda: called.append(1))
    while not called:
        watch.turn(LONG)
    watch.close()


def test_timer_cancelled_by_another_thread_is_not_called(watch: Watch, clock: FakeClock) -> None:
    timer = watch.call_at(clock.now + 1, lambda: pytest.fail("was cancelled"))
    with in_thread(timer.cancel):
        pass
    clock.advance(5)
    watch.turn(0)


# Listeners and parked sockets


def test_listening_descriptor_is_called_as_long_as_it_is_readable(watch: Watch, pipe: tuple[int, int]) -> None:
    called: list[int] = []
    watch.listen(pipe[0], lambda: called.append(1))
    watch.turn(0)
    assert called == []
    os.write(pipe[1], b"x")
    watch.turn(LONG)
    watch.turn(LONG)
    assert called == [1, 1]
    watch.unlisten(pipe[0])
    watch.unlisten(pipe[0])
    watch.turn(0)
    assert called == [1, 1]


def test_listener_taken_out_in_the_same_turn_is_not_called(watch: Watch) -> None:
    with pair() as (a, b), pair() as (c, d):
        called: list[str] = []

        def take_out(name: str, other: socket.socket) -> Callable[[], None]:
            def call() -> None:
                called.append(name)
                watch.unlisten(other.fileno())

            return call

        watch.listen(a.fileno(), take_out("a", c))
        watch.listen(c.fileno(), take_out("c", a))
        b.send(b"x")
        d.send(b"x")
        eventually(lambda: len(select.select([a, c], [], [], 0)[0]) == 2)
        watch.turn(LONG)
        assert len(called) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_parked_socket_is_called_at_its_first_byte(watch: Watch, family: str) -> None:
    with pair(family) as (ours, theirs):
        masks: list[int] = []
        watch.park(ours.fileno(), masks.append)
        watch.turn(0)
        assert masks == []
        theirs.send(b"x")
        watch.turn(LONG)
        assert masks[0] & select.EPOLLIN
        watch.unpark(ours.fileno())
        watch.unpark(ours.fileno())
        count = len(masks)
        watch.turn(0)
        assert len(masks) == count


@pytest.mark.parametrize("family", FAMILIES)
def test_parked_socket_is_called_when_the_peer_leaves(watch: Watch, family: str) -> None:
    with pair(family) as (ours, theirs):
        masks: list[int] = []
        watch.park(ours.fileno(), masks.append)
        theirs.close()
        watch.turn(LONG)
        assert masks[0] & select.EPOLLRDHUP


def test_socket_parked_again_by_its_own_call_waits_again(watch: Watch) -> None:
    with pair() as (ours, theirs):
        seen: list[bytes] = []

        def ready(_: int) -> None:
            watch.unpark(ours.fileno())
            seen.append(ours.recv(10))
            watch.park(ours.fileno(), ready)

        watch.park(ours.fileno(), ready)
        for word in (b"one", b"two"):
            theirs.send(word)
            watch.turn(LONG)
        assert seen == [b"one", b"two"]


def test_many_parked_sockets_leave_listeners_their_turn(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.watch.PARKED_BATCH", 2)
    with pair() as (a, b), pair() as (c, d), pair() as (e, f), pair() as (ours, theirs):
        parked: list[int] = []
        heard: list[int] = []
        for mine, peer in ((a, b), (c, d), (e, f)):
            watch.park(mine.fileno(), parked.append)
            peer.send(b"x")
        watch.listen(ours.fileno(), lambda: heard.append(len(parked)))
        theirs.send(b"x")
        eventually(lambda: len(select.select([a, c, e, ours], [], [], 0)[0]) == 4)
        watch.turn(LONG)
        assert len(parked) == 2
        assert len(heard) == 1


def test_turn_within_a_turn_hears_what_the_outer_one_has_not_yet(watch: Watch) -> None:
    with pair() as (ours, theirs), pair() as (a, b):
        seen: list[str] = []

        def outer() -> None:
            seen.append("outer")
            watch.unlisten(ours.fileno())
            theirs.send(b"y")
            watch.wake()
            watch.turn(LONG)
            seen.append("outer is back")

        watch.listen(ours.fileno(), outer)

        def parked(_: int) -> None:
            seen.append("parked")
            watch.unpark(a.fileno())

        watch.park(a.fileno(), parked)
        theirs.send(b"x")
        b.send(b"x")
        eventually(lambda: len(select.select([ours, a], [], [], 0)[0]) == 2)
        watch.wake()
        watch.turn(LONG)
        watch.turn(0)
        assert sorted(seen) == ["outer", "outer is back", "parked"]


# Lingering


class Lingering:
    """One socket that lingers, with its peer."""

    def __init__(self, watch: Watch, family: str = "tcp", unread: bytes = b"") -> None:
        self.ours, self.theirs = connect_pair(family)
        self.fd = self.ours.fileno()
        self.released: list[bool] = []
        if unread:
            self.theirs.sendall(unread)
            eventually(lambda: select.select([self.ours], [], [], 0)[0])
        self.ours.sendall(b"reply")
        self.ours.shutdown(socket.SHUT_WR)
        self.watch = watch

    def begin(self) -> "Lingering":
        self.watch.linger(self.ours, lambda: self.released.append(self.is_open()))
        return self

    def is_open(self) -> bool:
        try:
            os.fstat(self.fd)
        except OSError:
            return False
        return self.ours.fileno() >= 0

    def is_over(self) -> bool:
        return bool(self.released)

    def close(self) -> None:
        self.theirs.close()  # the Watch closes ours


@pytest.fixture
def lingering(watch: Watch) -> Iterator[Callable[..., Lingering]]:
    made: list[Lingering] = []

    def make(family: str = "tcp", unread: bytes = b"") -> Lingering:
        made.append(Lingering(watch, family, unread))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_lingering_socket_is_closed_when_the_peer_closes(
    watch: Watch, lingering: Callable[..., Lingering], family: str
) -> None:
    one = lingering(family, b"not read").begin()
    watch.turn(0)
    assert one.ours.fileno() == one.fd
    assert watch.is_lingering()
    one.theirs.close()
    while not one.is_over():
        watch.turn(LONG)
    assert one.ours.fileno() == -1
    assert not watch.is_lingering()
    assert len(one.released) == 1


def test_reply_arrives_although_input_was_not_read(watch: Watch, lingering: Callable[..., Lingering]) -> None:
    one = lingering("tcp", b"x" * 20000).begin()
    watch.turn(0)
    one.theirs.sendall(b"even more")
    watch.turn(LONG)
    assert one.theirs.recv(100) == b"reply"
    assert one.theirs.recv(100) == b""
    one.theirs.close()
    while not one.is_over():
        watch.turn(LONG)


def test_lingering_begun_by_another_thread_wakes_the_watch(watch: Watch, lingering: Callable[..., Lingering]) -> None:
    one = lingering()
    one.theirs.close()

    def turn() -> None:
        while not one.is_over():
            watch.turn(LONG)

    with in_thread(turn) as turning:
        turning.wait_asleep()
        one.begin()
        turning.result()


def test_lingering_ends_at_once_when_the_peer_has_closed_before(
    watch: Watch, lingering: Callable[..., Lingering]
) -> None:
    one = lingering()
    one.theirs.close()
    eventually(lambda: select.select([one.ours], [], [], 0)[0])
    one.begin()
    watch.turn(0)
    assert one.is_over()


def test_lingering_ends_after_its_time(watch: Watch, clock: FakeClock, lingering: Callable[..., Lingering]) -> None:
    one = lingering().begin()
    watch.turn(0)
    clock.advance(LINGER_SECONDS - 0.1)
    watch.turn(0)
    assert not one.is_over()
    clock.advance(0.2)
    watch.turn(0)
    assert one.is_over()


def test_lingering_time_does_not_start_again_with_each_byte(
    watch: Watch, clock: FakeClock, lingering: Callable[..., Lingering]
) -> None:
    one = lingering().begin()
    watch.turn(0)
    for _ in range(5):
        clock.advance(LINGER_SECONDS / 4)
        if not one.is_over():
            one.theirs.send(b"x")
            watch.turn(LONG)
    assert one.is_over()


def test_lingering_ends_after_too_many_bytes(watch: Watch, lingering: Callable[..., Lingering]) -> None:
    one = lingering().begin()
    watch.turn(0)
    sent = 0
    one.theirs.setblocking(False)
    while not one.is_over():
        try:
            sent += one.theirs.send(b"x" * 4096)
        except BlockingIOError:
            pass
        watch.turn(0)
    assert sent >= LINGER_BYTES
    assert one.ours.fileno() == -1


def test_lingering_ends_at_a_reset(watch: Watch, lingering: Callable[..., Lingering]) -> None:
    one = lingering().begin()
    watch.turn(0)
    one.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    one.theirs.close()
    while not one.is_over():
        watch.turn(LONG)


def test_lingering_after_our_own_end_of_reading_does_not_spin(
    watch: Watch, clock: FakeClock, lingering: Callable[..., Lingering]
) -> None:
    """After SHUT_RD the descriptor is always readable; it is looked at a few times a second instead."""
    one = lingering()
    one.ours.shutdown(socket.SHUT_RD)
    one.begin()
    watch.turn(0)
    assert not one.is_over()
    assert watch._epoll.poll(0) == []
    looks = 0
    while not one.is_over():
        looks += 1
        assert looks < 2 * LINGER_SECONDS / LINGER_LOOKS
        clock.advance(LINGER_LOOKS)
        watch.turn(0)
    assert looks >= LINGER_SECONDS / LINGER_LOOKS


def test_lingering_after_our_own_end_of_reading_sees_the_peer_close(
    watch: Watch, clock: FakeClock, lingering: Callable[..., Lingering]
) -> None:
    one = lingering()
    one.ours.shutdown(socket.SHUT_RD)
    one.begin()
    watch.turn(0)
    assert one.theirs.recv(10) == b"reply"
    one.theirs.close()
    clock.advance(LINGER_LOOKS * 2)
    watch.turn(0)
    assert one.is_over()


def test_lingering_after_our_own_end_of_reading_ends_although_bytes_come(
    watch: Watch, clock: FakeClock, lingering: Callable[..., Lingering]
) -> None:
    """The kernel takes input after SHUT_RD too; a peer that goes on sending must not be kept for ever."""
    one = lingering()
    one.ours.shutdown(socket.SHUT_RD)
    one.begin()
    watch.turn(0)
    looks = 0
    while not one.is_over():
        one.theirs.sendall(b"still here")
        looks += 1
        assert looks < 2 * LINGER_SECONDS / LINGER_LOOKS, "nobody looks after it any more"
        clock.advance(LINGER_LOOKS * 1.5)
        watch.turn(0)
    assert one.ours.fileno() == -1


def test_close_finishes_those_who_linger(watch: Watch, lingering: Callable[..., Lingering]) -> None:
    one, other = lingering().begin(), lingering().begin()
    watch.turn(0)
    watch.close()
    assert one.is_over()
    assert other.is_over()
    assert one.ours.fileno() == other.ours.fileno() == -1


def test_close_finishes_those_who_are_about_to_linger(watch: Watch, lingering: Callable[..., Lingering]) -> None:
    one = lingering().begin()
    watch.close()
    assert one.is_over()


def test_lingering_on_a_closed_watch_is_over_at_once(watch: Watch, lingering: Callable[..., Lingering]) -> None:
    watch.close()
    one = lingering().begin()
    assert one.is_over()
    assert one.ours.fileno() == -1


def test_lingering_that_races_with_close_is_never_lost(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler's thread asks for it at the moment at which the server's thread closes the Watch."""
    watch = kind()
    call_soon = watch.call_soon

    def close_first(call: Callable[[], None]) -> None:
        watch.close()
        call_soon(call)

    monkeypatch.setattr(watch, "call_soon", close_first)
    one = Lingering(watch).begin()
    assert one.is_over()
    one.close()


# The end


def test_close_leaves_no_descriptor_and_may_be_called_twice(kind: Kind) -> None:
    before = open_fds()
    watch = kind()
    watch.close()
    watch.close()
    assert open_fds() == before


def test_dropped_watch_leaves_no_descriptor(kind: Kind) -> None:
    gc.collect()
    before = open_fds()
    kind()
    gc.collect()  # it holds calls of its own
    assert open_fds() == before


def test_call_and_wake_after_close_do_no_harm(watch: Watch) -> None:
    watch.close()
    watch.wake()
    watch.call_soon(lambda: pytest.fail("nobody turns it any more"))


def test_own_descriptors_are_all_that_a_child_has_to_close(watch: Watch, lingering: Callable[..., Lingering]) -> None:
    one = lingering().begin()
    watch.turn(0)
    of_the_loop = {watch.loop.fileno()} if isinstance(watch, Hub) else set()
    assert set(watch.own_fds()) == {watch._waker, watch._epoll.fileno(), one.fd} | of_the_loop


def test_child_that_begins_anew_leaves_the_parents_watch_alone(
    watch: Watch, lingering: Callable[..., Lingering]
) -> None:
    """Both share the epoll: what the child forgets there is forgotten for the parent."""
    one = lingering().begin()
    watch.turn(0)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            watch.begin_anew()
            called: list[int] = []
            watch.call_soon(lambda: called.append(1))
            watch.turn(0)
            status = 0 if called and not watch.is_lingering() and one.ours.fileno() == -1 else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    one.theirs.close()
    while not one.is_over():
        watch.turn(LONG)


# A rest that is still to be written


def full_pair() -> tuple[socket.socket, socket.socket, int]:
    """Two sockets, of which ours takes no more; and how much it took."""
    ours, theirs = connect_pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    sent = 0
    while select.select([], [ours], [], 0.02)[1]:
        with suppress(BlockingIOError):
            while True:
                sent += ours.send(b"x" * 65536, socket.MSG_DONTWAIT)
    return ours, theirs, sent


def test_rest_is_written_before_the_end_of_the_stream(watch: Watch) -> None:
    ours, theirs, sent = full_pair()
    over: list[bool] = []
    with theirs:
        watch.linger(ours, lambda: over.append(True), b"rest")
        reading = Running(lambda: read_all(theirs))
        while reading.thread.is_alive():
            watch.turn(0)
        assert reading.result() == b"x" * sent + b"rest"
        theirs.close()
        while not over:
            watch.turn(0)


def test_rest_that_nobody_reads_is_given_up(watch: Watch, clock: FakeClock) -> None:
    ours, theirs, _ = full_pair()
    over: list[bool] = []
    with theirs:
        watch.linger(ours, lambda: over.append(True), b"rest")
        watch.turn(0)
        clock.advance(REST_SECONDS + 0.1)
        watch.turn(0)
        assert not over  # it lingers as every other now
        clock.advance(LINGER_SECONDS + 0.1)
        watch.turn(0)
        assert over


def test_rest_for_a_peer_that_has_gone_is_dropped(watch: Watch) -> None:
    ours, theirs = connect_pair()
    over: list[bool] = []
    reset(theirs)
    watch.linger(ours, lambda: over.append(True), b"rest")
    while not over:
        watch.turn(0)
    assert not watch.is_lingering()
