"""Acceptor: the loop and its answers to every accept error, on fakes; test_listeners.py has the real sockets."""

import _socket
import errno
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from moorage.accepting import State
from moorage.acceptor import AT_ONCE, ODD_IN_A_ROW, SPREAD_SECONDS, UNLOOKED, Acceptor
from moorage.admission import ClientLimit, Gate, Ticket, client_key
from moorage.config import ListenerSettings
from moorage.deadline import monotonic
from moorage.door import Door
from moorage.errors import InternalError
from moorage.events import (
    AcceptFailed,
    AcceptPaused,
    AcceptResumed,
    Cause,
    ConnectionRefused,
    Event,
    Events,
    RefusalObserved,
)
from moorage.hub.hub import Hub
from moorage.listener import open_listeners
from moorage.pace import Pace
from moorage.rates import Memory
from moorage.verdict import VERDICTS, Verdict
from moorage.watch import Watch
from support.fake_watch import FakeWatch

FD = 7


class FakeListener:
    """Clients and errors in the order the test puts them in; counts the calls."""

    def __init__(self) -> None:
        self.waiting: deque[int | BaseException] = deque()
        self.sticky: BaseException | None = None  # raised at every accept, whoever waits
        self.tells = True
        self.backlog = 100
        self.accepts = 0
        self.looks = 0
        self.peers: list[socket.socket] = []

    def arrive(self, *clients: int | BaseException) -> None:
        self.waiting.extend(clients)

    def accept(self) -> tuple[_socket.socket, int]:
        self.accepts += 1
        if self.sticky is not None:
            raise self.sticky
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "nobody")
        client = self.waiting.popleft()
        if isinstance(client, BaseException):
            raise client
        ours, theirs = socket.socketpair()
        self.peers.append(theirs)
        return ours, client

    def backlog_length(self) -> int | None:
        self.looks += 1
        return len(self.waiting) if self.tells else None

    def fileno(self) -> int:
        return FD


class House:
    """An acceptor and its neighbours."""

    def __init__(self, limit: int = 1000, **settings: Any) -> None:
        self.listener = FakeListener()
        self.gate = Gate(limit)
        self.watch = FakeWatch()
        self.said: list[Event] = []
        self.served: list[int] = []
        self.tickets: deque[Ticket] = deque()
        self.failures: list[OSError] = []
        self.on_admit: Callable[[], None] = lambda: None
        events = Events()
        events.subscribe(self.said.append)
        self.acceptor = Acceptor(
            self.listener, self.gate, self.watch, self.admit, events,
            failed=self.failures.append, clock=self.watch.clock, **settings,
        )  # fmt: skip

    def admit(self, sock: _socket.socket, addr: int, ticket: Ticket, listener: FakeListener) -> None:
        assert listener is self.listener
        sock.close()
        self.served.append(addr)
        self.tickets.append(ticket)
        self.on_admit()

    def poll(self, turns: int = 1) -> int:
        """So many turns of the Watch, as long as a client waits; returns how many it took."""
        taken = 0
        while taken < turns and FD in self.watch.listening and self.listener.waiting:
            self.watch.listening[FD]()
            taken += 1
        self.watch.run_calls()
        return taken

    def leave(self) -> None:
        """The client served longest goes."""
        self.tickets.popleft().give_back()
        self.watch.run_calls()

    def close(self) -> None:
        self.acceptor.stop()
        self.watch.release_lingering()
        for peer in self.listener.peers:
            peer.close()


Build = Callable[..., House]


@pytest.fixture
def build() -> Iterator[Build]:
    houses: list[House] = []

    def build(limit: int = 1000, **settings: Any) -> House:
        houses.append(House(limit, **settings))
        return houses[-1]

    yield build
    for house in houses:
        house.close()


@pytest.fixture
def house(build: Build) -> House:
    house = build()
    house.acceptor.start()
    return house


# The loop


def test_acceptor_admits_in_order_with_a_ticket_each(house: House) -> None:
    house.listener.arrive(1, 2, 3)
    house.poll(3)
    assert house.served == [1, 2, 3]
    assert house.gate.taken == 3


def test_acceptor_lone_clients_cost_one_accept_and_hardly_a_look(house: House) -> None:
    for client in range(80):
        house.listener.arrive(client)
        assert house.poll(10) == 1
    assert house.listener.accepts == 80
    assert house.listener.looks == 80 // (UNLOOKED + 1)


def test_acceptor_crowd_is_taken_in_large_bites_without_a_vain_accept(house: House) -> None:
    house.listener.arrive(*range(500))
    turns = house.poll(1000)
    assert house.served == list(range(500))
    assert house.listener.accepts == 500
    assert turns <= UNLOOKED + 500 // AT_ONCE + 1


def test_acceptor_crowd_does_not_keep_the_watch_for_itself(house: House) -> None:
    house.listener.arrive(*range(1000))
    house.poll(UNLOOKED)
    before = len(house.served)
    house.poll(1)
    assert len(house.served) - before == AT_ONCE


def test_acceptor_crowd_where_the_kernel_does_not_tell_is_taken_in_large_bites(house: House) -> None:
    house.listener.tells = False
    house.listener.arrive(*range(500))
    assert house.poll(1000) <= UNLOOKED + 500 // AT_ONCE + 1
    assert house.served == list(range(500))


def test_acceptor_vain_readiness_gives_the_ticket_back(house: House) -> None:
    for _ in range(20):
        house.watch.listening[FD]()
    assert house.gate.taken == 0
    assert house.acceptor.state is State.OPEN


def test_acceptor_at_once_one_takes_one_a_turn(build: Build) -> None:
    house = build(at_once=1)
    house.acceptor.start()
    house.listener.arrive(*range(20))
    assert house.poll(100) == 20


def test_acceptor_stopped_by_a_handler_takes_nobody_more(house: House) -> None:
    house.listener.arrive(*range(200))
    house.poll(UNLOOKED)
    house.on_admit = house.acceptor.stop
    house.poll(10)
    assert len(house.served) == UNLOOKED + 1
    assert house.acceptor.is_stopped


def test_acceptor_interrupted_accept_gives_the_ticket_back(house: House) -> None:
    house.listener.arrive(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        house.poll()
    assert house.gate.taken == 0


# The limit


def test_acceptor_full_leaves_the_next_in_the_backlog(build: Build) -> None:
    house = build(limit=2)
    house.acceptor.start()
    house.listener.arrive(1, 2, 3, 4)
    house.poll(10)
    assert house.served == [1, 2]
    assert FD not in house.watch.listening
    assert house.acceptor.state is State.FULL
    assert list(house.listener.waiting) == [3, 4]


def test_acceptor_full_takes_one_for_each_that_leaves(build: Build) -> None:
    house = build(limit=2)
    house.acceptor.start()
    house.listener.arrive(*range(6))
    house.poll(10)
    for served in (3, 4, 5, 6):
        house.leave()
        assert len(house.served) == served
        assert house.gate.taken == 2
    house.leave()
    assert house.acceptor.state is State.OPEN
    assert house.listener.accepts == 6  # with nobody left, the poll set waits, no accept in vain
    house.listener.arrive(6)
    house.poll()
    assert house.served[-1] == 6


def test_acceptor_ticket_given_back_in_the_same_moment_is_not_missed(build: Build) -> None:
    house = build(limit=1)
    house.acceptor.start()
    house.listener.arrive(1, 2)
    house.poll(1)
    real = house.gate.when_free

    def late(callback: Callable[[], None]) -> None:
        house.tickets.popleft().give_back()
        real(callback)

    house.acceptor._gate = SimpleNamespace(take=house.gate.take, when_free=late)
    house.poll(10)
    assert house.served == [1, 2]


def test_acceptor_two_listeners_share_one_gate(build: Build) -> None:
    one, two = build(limit=1), build(limit=1)
    two.acceptor._gate, two.acceptor._take = one.gate, one.gate.take
    one.acceptor.start()
    two.acceptor.start()
    one.listener.arrive(1)
    two.listener.arrive(2)
    one.poll()
    two.poll()
    assert (one.served, two.served) == ([1], [])
    one.leave()
    two.watch.run_calls()
    assert two.served == [2]


def test_acceptor_refuse_tells_those_above_the_limit(build: Build) -> None:
    house = build(limit=1, overflow="refuse", overflow_message=b"busy")
    house.acceptor.start()
    house.listener.arrive(1, 2, 3)
    house.poll(10)
    assert house.served == [1]
    assert [event.peer for event in house.said if isinstance(event, ConnectionRefused)] == [2, 3]
    assert [peer.recv(100) for peer in house.listener.peers[1:]] == [b"busy"] * 2
    assert house.acceptor.state is State.OPEN


def test_acceptor_reset_closes_those_above_the_limit(build: Build) -> None:
    house = build(limit=1, overflow="reset", overflow_message=b"busy")
    house.acceptor.start()
    house.listener.arrive(1, 2)
    house.poll(10)
    assert house.listener.peers[1].recv(100) == b""
    assert house.watch.lingering == []


# The limit of each client


class FakeDoor:
    """The clients, which here are their addresses; one of each may come."""

    def __init__(self) -> None:
        self.here: list[int] = []

    def enter(self, ticket: Any, addr: int) -> Any:
        if addr in self.here:
            return Cause.REFUSED_CLIENT
        self.here.append(addr)
        return ticket


@pytest.mark.parametrize(("overflow", "told"), [("wait", b"busy"), ("refuse", b"busy"), ("reset", b"")])
def test_acceptor_client_above_its_limit_is_refused_whatever_the_overflow(
    build: Build, overflow: str, told: bytes
) -> None:
    house = build(overflow=overflow, overflow_message=b"busy", door=FakeDoor())
    house.acceptor.start()
    house.listener.arrive(1, 1, 2)
    house.poll(10)
    assert house.served == [1, 2]
    assert house.said == [ConnectionRefused(1, Cause.REFUSED_CLIENT)]
    assert house.listener.peers[1].recv(100) == told
    assert house.gate.taken == 2
    assert house.acceptor.state is State.OPEN


def test_acceptor_client_above_its_limit_does_not_wait_for_a_ticket_twice(build: Build) -> None:
    house = build(limit=1, door=FakeDoor())
    house.acceptor.start()
    house.listener.arrive(1, 1, 2)
    house.poll(10)
    house.leave()
    house.poll(10)
    assert house.served == [1, 2]
    assert house.gate.taken == 1


def test_acceptor_hands_on_the_ticket_that_gives_both_rights_back(build: Build) -> None:
    class Counts:
        here = 0

        def count(self, _key: int) -> int:
            return self.here

        def add(self, _key: int) -> None:
            self.here += 1

        def drop(self, _key: int) -> None:
            self.here -= 1

    counts = Counts()
    house = build(door=Door(Events(), limit=ClientLimit(1, counts), client_key=client_key))
    house.listener.arrive(("192.0.2.1", 1), ("192.0.2.1", 2))  # type: ignore[arg-type]  # here the limit looks at them
    house.acceptor.start()
    house.poll(10)
    assert (house.gate.taken, counts.here) == (1, 1)
    house.leave()
    assert (house.gate.taken, counts.here) == (0, 0)


def test_finish_counts_those_above_their_limit_too(build: Build) -> None:
    house = build(door=FakeDoor())
    house.acceptor.start()
    house.listener.arrive(1, 1, 2)
    house.on_admit = lambda: house.listener.arrive(99)
    done = finish(house)
    assert house.served == [1, 2]
    assert done == [2]


# Beside other workers


class FakeShare:
    """Answers as the test says; keeps what it was asked."""

    def __init__(self, *answers: int) -> None:
        self.answers = deque(answers)
        self.asked: list[int | None] = []

    def __call__(self, waiting: int | None) -> int:
        self.asked.append(waiting)
        return self.answers.popleft()


def test_acceptor_with_a_share_takes_no_more_than_it_says(build: Build) -> None:
    share = FakeShare(2, 3)
    house = build(share=share)
    house.acceptor.start()
    house.listener.arrive(*range(10))
    house.poll(1)
    assert house.served == [0, 1]
    house.poll(1)
    assert len(house.served) == 5
    assert share.asked == [10, 8]


def test_acceptor_with_a_share_of_many_does_not_keep_the_watch_for_itself(build: Build) -> None:
    house = build(share=FakeShare(1000))
    house.acceptor.start()
    house.listener.arrive(*range(1000))
    house.poll(1)
    assert len(house.served) == AT_ONCE


def test_acceptor_with_a_share_asks_nobody_where_others_were_faster(build: Build) -> None:
    share = FakeShare(0)
    house = build(share=share)
    house.acceptor.start()
    house.watch.listening[FD]()
    assert (share.asked, house.listener.accepts) == ([0], 0)
    assert house.acceptor.state is State.OPEN


def test_acceptor_with_a_share_where_the_kernel_does_not_tell_goes_on_to_the_last(build: Build) -> None:
    share = FakeShare(8)
    house = build(share=share)
    house.listener.tells = False
    house.acceptor.start()
    house.listener.arrive(1, 2)
    house.poll(1)
    assert (share.asked, house.served) == ([None], [1, 2])


def test_acceptor_without_a_share_steps_aside_and_then_takes_whatever_is_left(build: Build) -> None:
    share = FakeShare(0, 0, 0)
    house = build(share=share)
    house.acceptor.start()
    house.listener.arrive(*range(3))
    house.poll(1)
    assert (house.served, house.acceptor.state) == ([], State.ASIDE)
    assert FD not in house.watch.listening
    house.watch.pass_time(SPREAD_SECONDS)
    assert (house.served, house.acceptor.state) == ([0, 1, 2], State.OPEN)
    house.listener.arrive(3)
    house.poll(1)
    assert (house.served, house.acceptor.state) == ([0, 1, 2], State.ASIDE)  # it was whatever it says once
    assert share.asked == [3, 3, 1]


def test_acceptor_back_from_aside_finds_nobody_left_and_listens(build: Build) -> None:
    share = FakeShare(0, 0)
    house = build(share=share)
    house.acceptor.start()
    house.listener.arrive(1)
    house.poll(1)
    house.listener.waiting.clear()  # the less busy worker
    house.watch.pass_time(SPREAD_SECONDS)
    assert (house.acceptor.state, house.listener.accepts) == (State.OPEN, 0)
    assert FD in house.watch.listening
    assert house.watch.timers == []
    assert share.asked == [1, 0]  # so it knows that we are back


def test_acceptor_full_asks_for_its_share_when_a_ticket_comes_free(build: Build) -> None:
    share = FakeShare(2, 1, 0, 0)
    house = build(limit=1, share=share)
    house.acceptor.start()
    house.listener.arrive(1, 2, 3)
    house.poll(1)
    assert (house.served, house.acceptor.state) == ([1], State.FULL)
    house.leave()
    assert house.served == [1, 2]
    house.poll(1)
    house.leave()
    assert (house.served, house.acceptor.state) == ([1, 2], State.ASIDE)
    house.watch.pass_time(SPREAD_SECONDS)
    assert house.served == [1, 2, 3]


def test_acceptor_with_a_share_and_a_useless_listener_fails(build: Build) -> None:
    house = build(share=FakeShare(1))
    house.acceptor.start()

    def closed() -> int:
        raise OSError(errno.EBADF, "closed by somebody")

    house.listener.backlog_length = closed  # type: ignore[method-assign]
    house.listener.sticky = OSError(errno.EBADF, "closed by somebody")
    house.watch.listening[FD]()
    assert house.failures == [house.listener.sticky]


def aside(build: Build) -> House:
    """Stepped aside, with one client waiting."""
    house = build(share=FakeShare(0, 1))
    house.acceptor.start()
    house.listener.arrive(1)
    house.poll(1)
    assert house.acceptor.state is State.ASIDE
    return house


def test_acceptor_suspended_while_aside_stays_suspended(build: Build) -> None:
    house = aside(build)
    house.acceptor.suspend()
    house.watch.pass_time(1.0)
    assert house.served == []
    house.acceptor.resume()
    house.poll(1)
    assert house.served == [1]


def test_acceptor_stopped_while_aside_takes_nobody(build: Build) -> None:
    house = aside(build)
    house.acceptor.stop()
    house.watch.pass_time(1.0)
    assert (house.served, house.listener.accepts) == ([], 0)


def test_finish_while_aside_takes_the_backlog_whatever_the_share(build: Build) -> None:
    house = aside(build)
    house.listener.arrive(2, 3)
    done = finish(house)
    house.watch.pass_time(SPREAD_SECONDS)
    assert (house.served, done) == ([1, 2, 3], [3])


@pytest.mark.parametrize("kind", [Watch, Hub])
def test_acceptor_aside_in_a_real_watch_leaves_clients_alone_for_one_pause(kind: type[Watch]) -> None:
    """In `poll`, and in the `epoll` of a hub: no turn in vain meanwhile, and then all that wait."""
    watch, events, share = kind(), Events(), FakeShare(0, 0)
    if isinstance(watch, Hub):
        watch.enter()
    [listener] = open_listeners([ListenerSettings(bind="127.0.0.1:0")])
    served: list[Any] = []

    def admit(sock: Any, addr: Any, ticket: Any, _listener: Any) -> None:
        sock.close()
        ticket.give_back()
        served.append(addr)

    acceptor = Acceptor(listener, Gate(5), watch, admit, events, failed=lambda _: None, share=share)
    acceptor.start()
    with ExitStack() as clients:
        names = [clients.enter_context(socket.create_connection(listener.address)).getsockname() for _ in range(2)]
        began, turns = monotonic(), 0
        while not served:
            watch.turn(20.0)
            turns += 1
            assert turns <= 4, "the listener is still in the poll set"
        assert monotonic() - began >= SPREAD_SECONDS
        assert (sorted(served), share.asked) == (sorted(names), [2, 2])
    acceptor.stop()
    listener.close()
    watch.close()


# Errors


@pytest.mark.parametrize("number", sorted(VERDICTS[Verdict.GO_ON]), ids=errno.errorcode.get)
def test_acceptor_error_of_one_client_is_passed_over(house: House, number: int) -> None:
    house.listener.arrive(1, OSError(number, "gone"), 2)
    house.poll(10)
    assert house.served == [1, 2]
    assert house.gate.taken == 2
    assert house.said == []


def test_acceptor_error_of_one_client_without_end_is_a_pause(house: House) -> None:
    house.listener.arrive(1)
    house.listener.sticky = PermissionError(errno.EPERM, "forbidden by a filter, and left in the backlog")
    assert house.poll(1000) <= ODD_IN_A_ROW
    assert house.listener.accepts == ODD_IN_A_ROW
    assert house.acceptor.state is State.PAUSED
    house.listener.sticky = None
    house.watch.pass_time(0.1)
    assert house.served == [1]


@pytest.mark.parametrize("number", sorted(VERDICTS[Verdict.PAUSE]), ids=errno.errorcode.get)
def test_acceptor_without_room_pauses_and_goes_on(house: House, number: int) -> None:
    error = OSError(number, "full")
    house.listener.arrive(1)
    house.listener.sticky = error
    house.poll(10)
    assert house.listener.accepts == 1
    assert FD not in house.watch.listening
    assert house.gate.taken == 0
    house.watch.pass_time(3.0)
    tries = house.listener.accepts
    assert 25 <= tries <= 31
    house.listener.sticky = None
    house.watch.pass_time(0.125)
    assert house.served == [1]
    assert house.acceptor.state is State.OPEN
    house.watch.pass_time(1.0)
    paused = [event for event in house.said if isinstance(event, AcceptPaused)]
    assert [event.error for event in paused] == [error] * len(paused)
    assert 3 <= len(paused) <= 4
    assert isinstance(house.said[-1], AcceptResumed)


def test_acceptor_room_is_noticed_although_the_clients_have_left(house: House) -> None:
    house.listener.arrive(1)
    house.listener.sticky = OSError(errno.EMFILE, "full")
    house.poll()
    house.listener.waiting.clear()
    house.listener.sticky = None
    house.watch.pass_time(1.5)
    assert isinstance(house.said[-1], AcceptResumed)
    assert FD in house.watch.listening


@pytest.mark.parametrize(("overflow", "closed"), [("wait", 0), ("refuse", 2), ("reset", 2)])
def test_acceptor_without_descriptors_closes_clients_only_where_they_do_not_wait(
    build: Build, overflow: str, closed: int
) -> None:
    house = build(overflow=overflow)
    house.acceptor.start()
    house.listener.arrive(OSError(errno.EMFILE, "full"), 1, 2)
    house.poll(1)
    assert len(house.listener.waiting) == 2 - closed
    assert [event.peer for event in house.said if isinstance(event, ConnectionRefused)] == [1, 2][:closed]
    assert house.acceptor.state is State.PAUSED


def test_acceptor_useless_listener_is_dropped_and_handed_on(house: House) -> None:
    error = OSError(errno.EBADF, "closed by somebody")
    house.listener.arrive(error)
    house.poll()
    assert house.failures == [error]
    assert house.said == [AcceptFailed(error)]
    assert house.acceptor.is_stopped
    assert house.watch.listening == {}
    assert house.gate.taken == 0


def test_acceptor_listener_that_cannot_tell_its_backlog_any_more_is_judged_by_accept(house: House) -> None:
    def closed() -> int:
        raise OSError(errno.EBADF, "closed by somebody")

    house.listener.backlog_length = closed  # type: ignore[method-assign]
    house.listener.sticky = OSError(errno.EBADF, "closed by somebody")
    house.acceptor._unlooked = 0
    house.watch.listening[FD]()
    assert house.failures == [house.listener.sticky]


# The operator's verbs


def test_acceptor_suspended_leaves_clients_in_the_backlog_until_resumed(house: House) -> None:
    house.acceptor.suspend()
    house.acceptor.suspend()
    house.listener.arrive(1)
    house.poll()
    assert house.served == []
    house.acceptor.resume()
    house.acceptor.resume()
    house.poll()
    assert house.served == [1]


def test_acceptor_suspended_while_full_stays_suspended_when_a_ticket_comes_free(build: Build) -> None:
    house = build(limit=1)
    house.acceptor.start()
    house.listener.arrive(1, 2)
    house.poll(10)
    house.acceptor.suspend()
    house.leave()
    assert house.acceptor.state is State.SUSPENDED
    house.acceptor.resume()
    house.poll(10)
    assert house.served == [1, 2]


def test_acceptor_suspended_while_full_asks_the_gate_only_once(build: Build) -> None:
    house = build(limit=1)
    house.acceptor.start()
    house.listener.arrive(1, 2)
    for _ in range(5):
        house.poll(10)
        house.acceptor.suspend()
        house.acceptor.resume()
    assert len(house.gate._waiters) == 1


def test_acceptor_suspended_while_paused_stays_suspended(house: House) -> None:
    house.listener.arrive(OSError(errno.EMFILE, "full"), 1)
    house.poll()
    house.acceptor.suspend()
    house.watch.pass_time(1.0)
    assert house.served == []
    house.acceptor.resume()
    house.poll()
    assert house.served == [1]


def test_acceptor_started_twice_is_our_mistake(house: House) -> None:
    with pytest.raises(InternalError, match="from OPEN to OPEN"):
        house.acceptor.start()


def test_acceptor_stopped_twice_and_before_the_start_is_quiet(build: Build) -> None:
    house = build()
    house.acceptor.stop()
    house.acceptor.stop()
    house.acceptor.suspend()
    house.acceptor.resume()
    assert house.acceptor.is_stopped


# The backlog at the end


def finish(house: House) -> list[int]:
    """Finish the backlog; the list gets, at the call of `done`, how many were served by then."""
    done: list[int] = []
    house.acceptor.finish_backlog(lambda: done.append(len(house.served)))
    return done


def test_finish_takes_the_whole_backlog_then_stops(house: House) -> None:
    house.listener.arrive(*range(200))
    done = finish(house)
    assert done == []
    house.watch.run_calls()
    assert done == [200]
    assert house.acceptor.is_stopped


def test_finish_without_clients_is_done_at_once(house: House) -> None:
    assert finish(house) == [0]


def test_finish_leaves_those_who_come_later(house: House) -> None:
    house.listener.arrive(*range(10))
    house.on_admit = lambda: house.listener.arrive(99)
    done = finish(house)
    house.watch.run_calls()
    assert done == [10]


def test_finish_where_the_kernel_does_not_tell_takes_at_most_a_backlog(house: House) -> None:
    house.listener.tells = False
    house.listener.arrive(1)
    house.on_admit = lambda: house.listener.arrive(99)
    done = finish(house)
    house.watch.run_calls()
    assert done == [house.listener.backlog]


def test_finish_that_others_were_faster_at_is_done(house: House) -> None:
    house.listener.arrive(1, 2, 3)
    house.on_admit = house.listener.waiting.clear
    assert finish(house) == [1]


def test_finish_goes_through_the_gate(build: Build) -> None:
    house = build(limit=2)
    house.acceptor.start()
    house.listener.arrive(*range(5))
    done = finish(house)
    for served in (2, 3, 4):
        assert len(house.served) == served
        assert not done
        house.leave()
    assert done == [5]


def test_finish_when_already_full_waits_for_a_ticket(build: Build) -> None:
    house = build(limit=1)
    house.acceptor.start()
    house.listener.arrive(1, 2)
    house.poll(10)
    done = finish(house)
    assert not done
    house.leave()
    assert done == [2]


def test_finish_survives_a_pause(house: House) -> None:
    house.listener.arrive(1, OSError(errno.EMFILE, "full"), 2)
    done = finish(house)
    assert house.served == [1]
    house.watch.pass_time(0.1)
    house.watch.run_calls()
    assert done == [2]


@pytest.mark.parametrize("before", ["start", "suspend"])
def test_finish_serves_those_who_waited_while_nobody_was_accepted(build: Build, before: str) -> None:
    house = build()
    if before == "suspend":
        house.acceptor.start()
        house.acceptor.suspend()
    house.listener.arrive(1)
    assert finish(house) == [1]


def test_finish_cut_short_by_stop_is_done_once(build: Build) -> None:
    house = build(limit=1)
    house.acceptor.start()
    house.listener.arrive(1, 2)
    done = finish(house)
    house.acceptor.stop()
    house.leave()
    assert done == [1]


def test_finish_twice_tells_both(build: Build) -> None:
    house = build(limit=1)
    house.acceptor.start()
    house.listener.arrive(1, 2)
    one, two = finish(house), finish(house)
    house.leave()
    assert (one, two) == ([2], [2])
    assert finish(house) == [2]


def test_finish_is_not_undone_by_suspend_and_resume(build: Build) -> None:
    house = build(limit=1)
    house.acceptor.start()
    house.listener.arrive(1, 2)
    done = finish(house)
    house.acceptor.suspend()
    house.acceptor.resume()
    house.leave()
    assert done == [2]


def test_finish_of_a_useless_listener_is_done_and_failed(house: House) -> None:
    house.listener.arrive(OSError(errno.EBADF, "closed"), 1)
    assert finish(house) == [0]
    assert len(house.failures) == 1


def test_finish_of_a_closed_listener_is_done_and_failed(house: House) -> None:
    error = OSError(errno.EBADF, "closed by somebody")

    def closed() -> int:
        raise error

    house.listener.backlog_length = closed  # type: ignore[method-assign]
    house.listener.sticky = error
    assert finish(house) == [0]
    assert house.failures == [error]


# The pace


def state_of(house: House) -> State:
    return house.acceptor.state


def paced(build: Build, burst: int = 2, observes: bool = False, **settings: Any) -> House:
    """A house where two may come at once, and one a second."""
    houses: list[House] = []
    events = Events()
    pace = Pace(
        Memory().rate(1, burst), events, waits=settings.get("overflow", "wait") == "wait", observes=observes,
        clock=lambda: houses[0].watch.now,
    )  # fmt: skip
    houses.append(build(pace=pace, **settings))
    events.subscribe(houses[0].said.append)
    return houses[0]


def test_paced_clients_wait_in_the_backlog_until_the_next_is_due(build: Build) -> None:
    house = paced(build)
    house.acceptor.start()
    house.listener.arrive(1, 2, 3, 4)
    house.poll(10)
    assert house.served == [1, 2]
    assert house.acceptor.state is State.PACED
    assert FD not in house.watch.listening
    assert house.listener.accepts == 2
    house.watch.pass_time(0.99)
    assert house.served == [1, 2]
    house.watch.pass_time(0.02)
    assert house.served == [1, 2, 3]
    house.watch.pass_time(1)
    assert house.served == [1, 2, 3, 4]
    assert house.gate.taken == 4
    assert house.said == []


def test_paced_clients_over_a_long_time_are_exactly_as_many_as_are_due(build: Build) -> None:
    house = paced(build, burst=100, limit=100_000)
    house.acceptor.start()
    house.listener.arrive(*range(20_000))
    house.poll(1000)
    assert len(house.served) == 100
    for _ in range(9_900):
        house.watch.pass_time(1)
    assert len(house.served) == 10_000
    assert house.served == list(range(10_000))


def test_paced_acceptor_that_finds_nobody_keeps_the_turn(build: Build) -> None:
    house = paced(build)
    house.acceptor.start()
    for _ in range(100):
        house.watch.listening[FD]()
    house.listener.arrive(1, 2, 3)
    house.poll(10)
    assert house.served == [1, 2]


def test_paced_acceptor_without_a_ticket_keeps_the_turn(build: Build) -> None:
    house = paced(build, limit=1)
    house.acceptor.start()
    house.listener.arrive(1, 2, 3)
    house.poll(10)
    assert state_of(house) is State.FULL
    house.leave()
    assert house.served == [1, 2]
    house.leave()
    assert state_of(house) is State.PACED
    house.watch.pass_time(1)
    assert house.served == [1, 2, 3]


def test_paced_acceptor_leaves_the_turn_of_whom_the_door_turns_away(build: Build) -> None:
    house = paced(build, door=FakeDoor())
    house.acceptor.start()
    house.listener.arrive(1, 1, 1, 1, 2, 3)
    house.poll(10)
    assert house.served == [1, 2]
    assert house.said == [ConnectionRefused(1, Cause.REFUSED_CLIENT)] * 3
    assert house.acceptor.state is State.PACED


@pytest.mark.parametrize("overflow", ["refuse", "reset"])
def test_paced_clients_that_do_not_wait_are_refused(build: Build, overflow: str) -> None:
    house = paced(build, overflow=overflow)
    house.acceptor.start()
    house.listener.arrive(1, 2, 3, 4)
    house.poll(10)
    assert house.served == [1, 2]
    assert house.said == [ConnectionRefused(3, Cause.REFUSED_RATE), ConnectionRefused(4, Cause.REFUSED_RATE)]
    assert house.acceptor.state is State.OPEN
    assert house.gate.taken == 2
    house.watch.pass_time(1)
    house.listener.arrive(5)
    house.poll(10)
    assert house.served == [1, 2, 5]


@pytest.mark.parametrize("overflow", ["wait", "refuse", "reset"])
def test_paced_acceptor_that_finds_nobody_keeps_what_was_taken(build: Build, overflow: str) -> None:
    """Each client is followed by an accept in vain, as where other workers are faster."""
    house = paced(build, burst=5, overflow=overflow)
    house.acceptor.start()
    for client in range(20):
        house.listener.arrive(client, BlockingIOError(errno.EAGAIN, "nobody"))
    house.poll(100)
    house.listener.waiting.clear()
    assert house.served == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("overflow", ["wait", "refuse", "reset"])
def test_paced_clients_that_are_only_observed_come_in_and_are_told_of(build: Build, overflow: str) -> None:
    house = paced(build, overflow=overflow, observes=True)
    house.acceptor.start()
    house.listener.arrive(1, 2, 3, 4)
    house.poll(10)
    assert house.served == [1, 2, 3, 4]
    assert house.said == [RefusalObserved(3, Cause.REFUSED_RATE), RefusalObserved(4, Cause.REFUSED_RATE)]


def test_paced_acceptor_is_suspended_and_resumed(build: Build) -> None:
    house = paced(build)
    house.acceptor.start()
    house.listener.arrive(1, 2, 3)
    house.poll(10)
    house.acceptor.suspend()
    house.watch.pass_time(5)
    assert house.served == [1, 2]
    house.acceptor.resume()
    house.poll(10)
    assert house.served == [1, 2, 3]


def test_finish_lets_those_who_wait_in_at_their_pace(build: Build) -> None:
    house = paced(build)
    house.acceptor.start()
    house.listener.arrive(1, 2, 3, 4)
    done = finish(house)
    assert (house.served, done) == ([1, 2], [])
    house.watch.pass_time(1)
    assert (house.served, done) == ([1, 2, 3], [])
    house.watch.pass_time(1)
    assert house.served == [1, 2, 3, 4]
    assert len(done) == 1
    assert house.acceptor.is_stopped


# Room


class FakeRoom:
    """Closes so many idle ones, whose places come free when the test says so."""

    def __init__(self, idle: int) -> None:
        self.idle = idle
        self.asked: list[int] = []
        self.clock: Callable[[], float] = lambda: 0.0
        self.leaving = 0

    @property
    def again_at(self) -> float:
        return self.clock() + 0.1

    def make_room(self, listener: FakeListener) -> bool:
        wanted = len(listener.waiting)
        self.asked.append(wanted)
        closed = max(0, min(wanted - self.leaving, self.idle))
        self.idle -= closed
        self.leaving += closed
        return self.leaving > 0


def roomy(build: Build, idle: int, limit: int = 1, **settings: Any) -> tuple[House, FakeRoom]:
    room = FakeRoom(idle)
    house = build(limit=limit, room=room, **settings)
    room.clock = house.watch.clock
    house.acceptor.start()
    for client in range(limit):
        house.listener.arrive(client)
    house.poll(10)
    return house, room


@pytest.mark.parametrize("overflow", ["wait", "refuse", "reset"])
def test_room_is_made_for_a_client_without_a_ticket_who_then_comes_in(build: Build, overflow: str) -> None:
    house, room = roomy(build, idle=5, overflow=overflow)
    house.listener.arrive(1)
    house.poll(10)
    assert room.asked == [1]
    assert house.acceptor.state is State.FULL
    house.leave()
    assert house.served == [0, 1]
    assert house.said == []


def test_room_is_made_for_all_who_wait(build: Build) -> None:
    house, room = roomy(build, idle=5, limit=3)
    house.listener.arrive(3, 4, 5)
    house.poll(10)
    assert room.asked == [3]


@pytest.mark.parametrize("overflow", ["refuse", "reset"])
def test_room_that_nobody_leaves_is_no_reason_to_wait(build: Build, overflow: str) -> None:
    house, _ = roomy(build, idle=0, overflow=overflow)
    house.listener.arrive(1, 2)
    house.poll(10)
    assert house.said == [ConnectionRefused(1, Cause.REFUSED_TOTAL), ConnectionRefused(2, Cause.REFUSED_TOTAL)]
    assert house.acceptor.state is State.OPEN


def test_room_is_asked_for_again_when_somebody_may_be_idle_and_somebody_waits(build: Build) -> None:
    house, room = roomy(build, idle=0)
    house.listener.arrive(1)
    house.poll(10)
    assert state_of(house) is State.FULL
    room.idle = 1
    house.watch.pass_time(0.11)
    assert state_of(house) is State.OPEN
    house.poll(1)
    assert room.asked == [1, 1]
    house.leave()
    assert house.served == [0, 1]


def test_room_is_not_asked_for_again_when_nobody_waits_any_more(build: Build) -> None:
    house, room = roomy(build, idle=0)
    house.listener.arrive(1)
    house.poll(10)
    house.listener.waiting.clear()
    house.watch.pass_time(100)
    house.poll(1)
    assert room.asked == [1]
    assert not [timer for timer in house.watch.timers if not timer.is_cancelled], "and nothing wakes us"


def test_room_timer_is_forgotten_when_a_ticket_comes_free(build: Build) -> None:
    house, _ = roomy(build, idle=1)
    house.listener.arrive(1)
    house.poll(10)
    house.leave()
    assert house.served == [0, 1]
    assert not [timer for timer in house.watch.timers if not timer.is_cancelled]


def test_room_is_made_when_descriptors_run_out_and_nobody_is_refused_meanwhile(build: Build) -> None:
    house, room = roomy(build, idle=5, limit=1, overflow="refuse")
    house.tickets.popleft().give_back()
    house.listener.arrive(OSError(errno.EMFILE, "full"), 1)
    house.poll(1)
    assert house.acceptor.state is State.PAUSED
    assert room.asked == [1]
    assert not [event for event in house.said if isinstance(event, ConnectionRefused)]
    house.watch.pass_time(0.2)
    assert house.served == [0, 1]


def test_finish_makes_room_for_those_who_wait(build: Build) -> None:
    house, room = roomy(build, idle=0)
    house.listener.arrive(1)
    done = finish(house)
    assert room.asked == [1]
    room.idle = 1
    house.watch.pass_time(0.11)
    assert room.asked == [1, 1]
    house.leave()
    assert house.served == [0, 1]
    assert len(done) == 1


# Where an intake takes them


class Intake:
    """Takes clients of the house by itself, as many as it may; `asked` has how many it was asked for."""

    def __init__(self, most: int = AT_ONCE) -> None:
        self.most = most
        self.asked: list[int] = []
        self.house: House | None = None
        self.taken = 0
        self.on_take: Callable[[], None] = lambda: None

    def __call__(self, most: int) -> int:
        assert self.house is not None
        self.asked.append(most)
        waiting = self.house.listener.waiting
        taken = 0
        while taken < min(most, self.most) and waiting and isinstance(waiting[0], int):
            waiting.popleft()
            taken += 1
        self.taken += taken
        self.on_take()
        return taken


def with_intake(build: Build, most: int = AT_ONCE, **settings: Any) -> tuple[House, Intake]:
    intake = Intake(most)
    house = build(intake=intake, **settings)
    intake.house = house
    house.acceptor.start()
    return house, intake


def test_acceptor_leaves_clients_to_the_intake(build: Build) -> None:
    house, intake = with_intake(build)
    house.listener.arrive(1, 2, 3)
    house.poll(10)
    assert (intake.taken, house.served, house.listener.accepts) == (3, [], 0)


def test_acceptor_asks_the_intake_again_when_it_took_fewer(build: Build) -> None:
    house, intake = with_intake(build, most=1)
    house.acceptor._unlooked = 0
    house.listener.arrive(1, 2, 3)
    house.poll(1)
    assert intake.asked == [3, 2, 1]


def test_acceptor_finds_what_the_intake_did_not_judge(build: Build) -> None:
    house, intake = with_intake(build)
    house.acceptor._unlooked = 0
    house.listener.arrive(1, OSError(errno.EMFILE, "full"))
    house.poll(1)
    assert intake.taken == 1
    assert house.acceptor.state is State.PAUSED
    assert isinstance(house.said[-1], AcceptPaused)


def test_acceptor_short_of_descriptors_judges_every_client_itself(build: Build) -> None:
    house, intake = with_intake(build)
    house.listener.arrive(OSError(errno.EMFILE, "full"), 1)
    house.poll(1)
    asked = len(intake.asked)
    house.watch.pass_time(1.0)
    house.poll(1)
    assert (house.served, len(intake.asked)) == ([1], asked)
    house.listener.arrive(2)
    house.poll(1)
    assert (house.served, intake.taken) == ([1], 1)


def test_acceptor_that_is_suspended_by_whom_the_intake_tells_takes_nobody_more(build: Build) -> None:
    house, intake = with_intake(build, most=1)
    house.acceptor._unlooked = 0
    intake.on_take = house.acceptor.suspend
    house.listener.arrive(1, 2, 3)
    house.poll(1)
    assert (intake.taken, house.served, list(house.listener.waiting)) == (1, [], [2, 3])


def test_acceptor_with_a_door_asks_it_about_everybody(build: Build) -> None:
    house, intake = with_intake(build, door=FakeDoor())
    house.listener.arrive(1)
    house.poll(1)
    assert intake.asked == []
