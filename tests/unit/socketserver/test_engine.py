"""Unit tests of `moorage.socketserver.engine`."""

import os
import socket
import threading

from moorage.socketserver.engine import KEY, Engine, engine_of
from support.waiting import eventually, in_thread


class Server:
    """Anything with a `__dict__`."""


def test_engine_is_the_same_for_the_same_server() -> None:
    server = Server()
    assert engine_of(server) is engine_of(server)
    assert engine_of(server) is not engine_of(Server())


def test_engine_is_made_anew_in_another_process() -> None:
    server = Server()
    ours = engine_of(server)
    ours.pid = os.getpid() + 1  # as seen by a child
    theirs = engine_of(server)
    assert theirs is not ours
    assert theirs.inherited is ours
    assert vars(server)[KEY] is theirs


def test_end_loops_before_the_first_loop_ends_that_one_only() -> None:
    engine = Engine()
    engine.end_loops()
    with engine.loop() as first:
        assert first.is_ending
    with engine.loop() as second:
        assert not second.is_ending


def test_end_loops_after_a_loop_has_no_effect_on_the_next() -> None:
    engine = Engine()
    with engine.loop():
        pass
    engine.end_loops()
    with engine.loop() as loop:
        assert not loop.is_ending


def test_end_loops_ends_every_loop_in_every_thread() -> None:
    engine = Engine()

    def run() -> None:
        with engine.loop() as loop:
            loop.turn(None)

    with in_thread(run), in_thread(run):
        eventually(lambda: len(engine.loops) == 2)
        loops = engine.end_loops()
    assert all(loop.done.is_set() for loop in loops)
    assert engine.loops == {}


def test_serving_thread_is_one_that_runs_a_loop_or_a_handler() -> None:
    engine = Engine()
    assert not engine.is_serving_thread()
    with engine.loop():
        assert engine.is_serving_thread()
        with in_thread(lambda: None if not engine.is_serving_thread() else 1 / 0) as other:
            other.result()
    engine.busy.enter(threading.current_thread(), None, daemon=False)
    assert engine.is_serving_thread()


def test_innermost_loop_of_a_thread_is_here() -> None:
    engine = Engine()
    assert engine.here() is None
    with engine.loop() as outer:
        assert engine.here() is outer
        with engine.loop() as inner:
            assert engine.here() is inner
        assert engine.here() is outer


def test_gate_is_made_anew_when_the_limit_has_changed() -> None:
    engine = Engine()
    assert engine.open_gate(3) is engine.open_gate(3)
    assert engine.open_gate(4).limit == 4


def test_claim_finds_the_ticket_of_a_request_that_was_wrapped_on_its_way() -> None:
    engine = Engine()
    ticket = engine.open_gate(1).take()
    assert ticket is not None
    with socket.socket() as request, socket.socket() as wrapper:
        held = engine.tickets.hold(request, ticket)
        engine.arriving[threading.get_ident()] = held
        assert engine.claim(wrapper) is held
        assert held.claimed
        assert engine.tickets.find(wrapper) is held


def test_claim_of_a_request_that_nobody_accepted_is_none() -> None:
    with socket.socket() as request:
        assert Engine().claim(request) is None
