"""Crew: fibers at work and idle, on both twins; test_fibers.py has what they do."""

from typing import Any

import greenlet
import pytest

from moorage.hub.crew import KEPT
from support.loops import Turned


def test_call_waits_for_its_turn(turned: Turned) -> None:
    seen: list[object] = []
    turned.loop.spawn(seen.append, "this")
    assert (seen, turned.loop.busy, turned.loop.idle) == ([], 1, 0)
    turned.run(lambda: None)
    assert (seen, turned.loop.busy) == (["this"], 0)


def test_spawn_returns_the_fiber_of_the_call(turned: Turned) -> None:
    seen: list[Any] = []
    fiber = turned.loop.spawn(lambda: seen.append(greenlet.getcurrent()))
    turned.run(lambda: None)
    assert seen == [fiber]


def test_fiber_whose_call_is_over_keeps_nothing_of_it(turned: Turned) -> None:
    fiber = turned.loop.spawn(lambda this: None, object())
    fiber.stored = "something"
    turned.run(lambda: None)
    assert (fiber.call, fiber.argument, fiber.stored) == (None, None, None)


def test_idle_fiber_that_is_resumed_without_a_call_stays_idle(turned: Turned) -> None:
    fiber = turned.loop.spawn(lambda: None)
    turned.run(turned.loop.give_way)
    assert turned.loop.idle == turned.loop.fibers == 2
    turned.loop.ready(fiber)
    turned.run(lambda: None)
    assert turned.loop.idle == turned.loop.fibers == 2


@pytest.mark.parametrize("more", [0, 1, KEPT])
def test_fibers_above_what_is_kept_end(turned: Turned, more: int) -> None:
    turned.run(*[turned.loop.give_way] * (KEPT + more))
    assert (turned.loop.idle, turned.loop.fibers, turned.loop.busy) == (KEPT, KEPT, 0)


def test_fiber_that_was_stopped_is_used_again_without_what_was_raised_in_it(turned: Turned) -> None:
    fiber = turned.loop.spawn(turned.loop.park)
    turned.run(turned.loop.give_way)
    turned.loop.throw(fiber, ValueError("stop"))
    turned.run(turned.loop.give_way)
    assert (turned.loop.busy, turned.loop._stopped, turned.loop._thrown) == (0, {}, {})
    seen: list[object] = []
    turned.run(lambda: seen.append("well"), lambda: seen.append("well"))
    assert seen == ["well", "well"]
