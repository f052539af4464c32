"""Sharing: the same limits, whoever counts."""

from collections.abc import Iterator
from typing import Any

import pytest

from moorage import admission
from moorage.config import resolve
from moorage.events import Cause, Event, Events, RefusalObserved
from moorage.listener import Listener, open_listeners
from moorage.rates import Memory
from moorage.sharing import Shared, doors_of, gate_of, limit_of, listeners_of, pace_of
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
    ticket, client = object(), 0xC0000201
    alone = limit_of(None, settings(max_per_client=1))
    shared = limit_of(Shared([], lambda watch: admission.Gate(1), counts=Refusing()), settings(max_per_client=1))
    assert alone is not None
    assert shared is not None
    assert not alone.refuses(client)
    alone.enter(ticket, client)
    assert alone.refuses(client)
    assert shared.refuses(client)


class Ticket:
    def give_back(self) -> None:
        pass


CLIENT = ("192.0.2.1", 1)


def opened(bind: Any, **options: Any) -> tuple[Any, list[Listener]]:
    server, of_listeners = resolve(bind, options)
    return server, open_listeners(of_listeners)


def entered(doors: Any, addr: Any = CLIENT) -> list[Cause | None]:
    """What each door says to this client."""
    told = [door.enter(Ticket(), addr) for door in doors]
    return [one if isinstance(one, Cause) else None for one in told]


@pytest.fixture
def open_some() -> Iterator[Any]:
    everything: list[Listener] = []

    def open_some(**options: Any) -> tuple[Any, list[Listener]]:
        server, listeners = opened([ANY, "127.0.0.2:0"], **options)
        everything.extend(listeners)
        return server, listeners

    yield open_some
    for listener in everything:
        listener.close()


def test_listeners_without_policies_have_no_door(open_some: Any) -> None:
    server, listeners = open_some()
    assert doors_of(None, server, listeners, Events()) == [None, None]
    assert pace_of(None, server, Events()) is None


def test_listener_with_rules_has_a_door_that_obeys_them_and_tells_of_their_file(open_some: Any) -> None:
    server, listeners = open_some(deny=["192.0.2.0/24"])
    events = Events()
    doors = doors_of(None, server, listeners, events)
    assert entered(doors) == [Cause.DENIED] * 2
    assert all(listener.rules is not None and listener.rules.events is events for listener in listeners)


@pytest.mark.parametrize(
    ("options", "cause"),
    [({"client_rate": 0.001, "client_burst": 1}, Cause.REFUSED_RATE), ({"max_per_client": 1}, Cause.REFUSED_CLIENT)],
)
def test_limits_of_a_client_are_of_all_listeners_together(open_some: Any, options: Any, cause: Cause) -> None:
    server, listeners = open_some(**options)
    doors = doors_of(None, server, listeners, Events())
    assert entered(doors) == [None, cause]


@pytest.mark.parametrize(
    ("prefixes", "causes"),
    [
        ({}, [None, None, None, None]),
        ({"client_prefix_v4": 24}, [None, Cause.REFUSED_CLIENT, None, None]),
        ({"client_prefix_v6": 48}, [None, None, None, Cause.REFUSED_CLIENT]),
    ],
)
@pytest.mark.parametrize("options", [{"max_per_client": 1}, {"client_rate": 0.001, "client_burst": 1}])
def test_limits_are_of_as_many_bits_of_an_address_as_the_settings_say(
    open_some: Any, options: Any, prefixes: Any, causes: list[Cause | None]
) -> None:
    server, listeners = open_some(**options, **prefixes)
    door = doors_of(None, server, listeners, Events())[0]
    hosts = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1")
    refused = [
        cause and (Cause.REFUSED_CLIENT if "max_per_client" in options else Cause.REFUSED_RATE) for cause in causes
    ]
    assert [entered([door], (host, 1))[0] for host in hosts] == refused


def test_limits_that_are_only_observed_refuse_nobody(open_some: Any) -> None:
    names = ["max_per_client", "client_rate", "rules"]
    server, listeners = open_some(max_per_client=1, client_rate=0.001, client_burst=1, deny=["all"], observe_only=names)
    said: list[Event] = []
    events = Events()
    events.subscribe(said.append)
    assert entered(doors_of(None, server, listeners, events)) == [None, None]
    causes = [event.cause for event in said if isinstance(event, RefusalObserved)]
    assert causes == [Cause.DENIED, Cause.DENIED, Cause.REFUSED_CLIENT, Cause.REFUSED_RATE]


def test_rates_count_alone_or_with_the_others(open_some: Any) -> None:
    server, listeners = open_some(client_rate=0.001, client_burst=2, accept_rate=0.001, accept_burst=2)
    memory = Memory()
    together = [Shared([], lambda watch: admission.Gate(1), rates=memory) for _ in range(2)]
    assert [entered(doors_of(shared, server, listeners[:1], Events())) for shared in (*together, together[0])] == [
        [None], [None], [Cause.REFUSED_RATE],
    ]  # fmt: skip
    assert [entered(doors_of(None, server, listeners[:1], Events())) for _ in range(3)] == [[None]] * 3
    paces = [pace_of(shared, server, Events()) for shared in (*together, together[0])]
    assert [pace is not None and pace.turn_with(lambda: 1) for pace in paces] == [1, 1, None]


@pytest.mark.parametrize(
    ("options", "waits"),
    [
        ({}, True),
        ({"overflow": "refuse"}, False),
        ({"overflow": "reset"}, False),
        ({"observe_only": ["accept_rate"]}, False),
    ],
)
def test_clients_wait_for_their_turn_as_the_overflow_says(options: Any, waits: bool) -> None:
    pace = pace_of(None, settings(accept_rate=10, **options), Events())
    assert pace is not None
    assert pace.waits is waits


def test_door_of_a_listener_with_proxy_leaves_the_limits_for_later() -> None:
    server, listeners = opened(
        ANY, proxy_protocol="required", proxy_trusted=["192.0.2.0/24"], client_rate=0.001, client_burst=1
    )
    try:
        [door] = doors_of(None, server, listeners, Events())
        assert door is not None
        assert entered([door] * 3) == [None] * 3
        assert [isinstance(door.enter_claimed(Ticket(), CLIENT), Cause) for _ in range(2)] == [False, True]
    finally:
        for listener in listeners:
            listener.close()
