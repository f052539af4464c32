"""Sharing: the same limits, whoever counts."""

from collections.abc import Iterator
from typing import Any

import pytest

from moorage import admission
from moorage.config import resolve
from moorage.listener import Listener, open_listeners
from moorage.sharing import Shared, gate_of, limit_of, listeners_of
from moorage.watch import Watch

ANY = "127.0.0.1:0"


class Refusing:
    """Counts that say every client is here a hundred times."""

    def count(self, key: int) -> int:
        return 100

    def add(self, key: int) -> None:
        raise AssertionError("nobody came in")

    def drop(self, key: int) -> None:
        raise AssertionError("nobody came in")


@pytest.fixture
def listeners() -> Iterator[list[Listener]]:
    opened = open_listeners(resolve(ANY, {})[1])
    yield opened
    for listener in opened:
        listener.close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    one = Watch()
    yield one
    one.close()


def settings(**options: Any) -> Any:
    return resolve(ANY, options)[0]


def test_server_alone_opens_its_listeners() -> None:
    [listener] = listeners_of(None, resolve(ANY, {})[1])
    assert listener.fileno() >= 0
    listener.close()


def test_server_that_shares_opens_none(listeners: list[Listener]) -> None:
    shared = Shared(tuple(listeners), make_gate=lambda watch: admission.Gate(1))
    assert listeners_of(shared, resolve("192.0.2.1:1", {})[1]) == listeners


def test_gate_of_a_server_alone_is_as_wide_as_its_setting(watch: Watch) -> None:
    gate = gate_of(None, settings(max_connections=7), watch)
    assert isinstance(gate, admission.Gate)
    assert gate.limit == 7


def test_gate_that_is_shared_is_made_for_the_watch_of_this_server(watch: Watch) -> None:
    seen: list[Watch] = []
    gate = admission.Gate(3)

    def make_gate(watch: Watch) -> admission.Gate:
        seen.append(watch)
        return gate

    assert gate_of(Shared([], make_gate), settings(), watch) is gate
    assert seen == [watch]


def test_no_limit_of_a_client_is_no_limit() -> None:
    assert limit_of(None, settings()) is None
    assert limit_of(Shared([], lambda watch: admission.Gate(1), counts=Refusing()), settings()) is None


def test_limit_of_a_client_counts_alone_or_with_the_others() -> None:
    ticket, client = object(), ("192.0.2.1", 1)
    alone = limit_of(None, settings(max_per_client=1))
    shared = limit_of(Shared([], lambda watch: admission.Gate(1), counts=Refusing()), settings(max_per_client=1))
    assert alone is not None
    assert shared is not None
    assert alone.enter(ticket, client) is not None
    assert alone.enter(ticket, client) is None
    assert shared.enter(ticket, client) is None
