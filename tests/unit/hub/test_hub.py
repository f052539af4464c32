"""Hub: what a Watch does it does with fibers around; test_watch.py shows the rest of it."""

import os
import threading
from collections.abc import Iterator

import pytest

from moorage.deadline import monotonic
from moorage.hub import parking
from moorage.hub.hub import Hub
from support.sockets import open_fds, pair
from support.waiting import eventually, in_thread

LONG = 20.0


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    hub.enter()
    yield hub
    hub.close()


def test_hub_and_its_loop_share_calls_timers_and_descriptors(hub: Hub) -> None:
    seen: list[str] = []
    read, write = os.pipe()

    def hear() -> None:
        os.read(read, 10)
        seen.append("descriptor")

    hub.listen(read, hear)

    def fiber() -> None:
        hub.call_soon(lambda: seen.append("call"))
        hub.call_at(0.0, lambda: seen.append("timer"))
        os.write(write, b"x")
        while len(seen) < 3:
            hub.loop.give_way()

    hub.loop.spawn(fiber)
    while hub.loop.busy:
        hub.turn(0)
    assert sorted(seen) == ["call", "descriptor", "timer"]
    hub.unlisten(read)
    os.close(read)
    os.close(write)


def test_calls_have_their_turn_however_busy_the_fibers_are(hub: Hub) -> None:
    called: list[int] = []

    def busy() -> None:
        while len(called) < 100:
            hub.loop.give_way()

    def call() -> None:
        called.append(1)
        hub.call_soon(call)

    hub.loop.spawn(busy)
    hub.call_soon(call)
    while hub.loop.busy:
        hub.turn()
    assert len(called) >= 100


def test_turn_of_no_time_waits_for_nothing(hub: Hub) -> None:
    begun = monotonic()
    for _ in range(100):
        hub.turn(0)
    assert monotonic() - begun < 1.0


def test_call_from_another_thread_ends_a_wait_without_a_timeout(hub: Hub) -> None:
    called: list[int] = []
    threading.Timer(0.02, lambda: hub.call_soon(lambda: called.append(threading.get_ident()))).start()
    hub.turn()
    while not called:
        hub.turn()
    assert called == [threading.get_ident()]


def test_idle_hub_waits_in_one_call() -> None:
    hub = Hub()

    def turn() -> None:
        hub.enter()
        hub.turn()
        hub.close()

    with in_thread(turn) as turning:
        eventually(lambda: hub.loop.asleep)
        turning.wait_asleep()
        switches = hub.loop.switches
        threading.Event().wait(0.1)
        assert hub.loop.switches == switches
        hub.wake()
        turning.result()


def test_thread_that_turns_is_known_until_the_hub_is_closed() -> None:
    hub = Hub()
    hub.enter()
    loops: list[object] = []
    hub.loop.spawn(lambda: loops.append(parking.this_loop()))
    hub.turn(0)
    assert loops == [hub.loop]
    assert parking.this_loop() is None
    hub.close()
    assert parking.this_loop() is None


def test_own_descriptors_are_its_waker_and_both_of_its_pollers(hub: Hub) -> None:
    assert sorted(hub.own_fds()) == sorted({hub._waker, hub._epoll.fileno(), hub.loop.fileno()})


def test_closed_hub_leaves_no_descriptor_and_no_fiber() -> None:
    before = open_fds()
    hub = Hub()
    hub.enter()
    hub.loop.spawn(lambda: None)
    hub.turn(0)
    assert hub.loop.fibers == 1
    hub.close()
    hub.close()
    assert hub.loop.fibers == 0
    assert open_fds() == before


def test_hub_that_was_never_turned_is_closed_by_any_thread() -> None:
    before = open_fds()
    hub = Hub()
    with in_thread(hub.close) as closing:
        closing.result()
    assert open_fds() == before


def test_parked_socket_and_fiber_are_served_in_one_wait(hub: Hub) -> None:
    with pair() as (ours, theirs):
        masks: list[int] = []
        hub.park(ours.fileno(), masks.append)
        said: list[str] = []

        def fiber() -> None:
            theirs.send(b"x")
            hub.loop.park(monotonic() + 0.01)
            said.append("awake")

        hub.loop.spawn(fiber)
        while not (masks and said):
            hub.turn(LONG)
        hub.unpark(ours.fileno())
