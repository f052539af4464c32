"""Door: in which order its policies are asked, what each of them says, and what happens when it only looks."""

from typing import Any

import pytest

from moorage.admission import ClientLimit, LocalCounts, client_key
from moorage.door import Door
from moorage.events import Cause, Event, Events, RefusalObserved
from moorage.rates import Memory
from moorage.rules import Rules

PEER, OTHER = ("192.0.2.1", 4711), ("192.0.2.2", 4711)
START = 1000.0


class Ticket:
    def give_back(self) -> None:
        raise AssertionError("a ticket that does not come in is its caller's")


class Given:
    """One that does come in."""

    is_back = False

    def give_back(self) -> None:
        assert not self.is_back
        self.is_back = True


class House:
    """A door and what it says."""

    def __init__(self, rules: Any = None, rate: float | None = None, most: int | None = None, **settings: Any) -> None:
        self.said: list[Event] = []
        self.now = START
        self.counts = LocalCounts()
        events = Events()
        events.subscribe(self.said.append)
        self.door = Door(
            events, rules=rules,
            rates=None if rate is None else Memory().client_rates(rate, 2),
            limit=None if most is None else ClientLimit(most, self.counts),
            client_key=client_key, clock=lambda: self.now, **settings,
        )  # fmt: skip

    def enter(self, addr: Any = PEER) -> Any:
        entered = self.door.enter(Ticket(), addr)
        return entered if isinstance(entered, Cause) else None

    def claim(self, addr: Any = PEER, **said: bool) -> Any:
        entered = self.door.enter_claimed(Ticket(), addr, **said)
        return entered if isinstance(entered, Cause) else None


def test_door_without_policies_hands_the_ticket_on() -> None:
    ticket = Ticket()
    assert House().door.enter(ticket, PEER) is ticket
    assert House(has_proxy=True).door.enter(ticket, PEER) is ticket


def test_door_denies_whom_a_rule_denies() -> None:
    house = House(Rules(deny=["192.0.2.1"]))
    assert house.enter() is Cause.DENIED
    assert house.enter(OTHER) is None
    assert house.said == [], "whoever refuses says so"


def test_door_refuses_a_client_that_comes_too_often() -> None:
    house = House(rate=1)
    assert [house.enter() for _ in range(3)] == [None, None, Cause.REFUSED_RATE]
    assert house.enter(OTHER) is None
    house.now += 1
    assert [house.enter() for _ in range(2)] == [None, Cause.REFUSED_RATE]


def test_door_refuses_a_client_that_has_enough() -> None:
    house = House(most=1)
    assert [house.enter() for _ in range(2)] == [None, Cause.REFUSED_CLIENT]
    assert house.enter(OTHER) is None


def test_door_gives_a_ticket_that_gives_the_place_of_the_client_back() -> None:
    house, given = House(most=1), Given()
    entered = house.door.enter(given, PEER)
    assert not isinstance(entered, Cause)
    entered.give_back()
    assert given.is_back
    assert house.enter() is None


def test_door_asks_rules_first_then_the_limit_then_the_rate() -> None:
    house = House(Rules(deny=["192.0.2.2"]), rate=1, most=3)
    assert [house.enter(OTHER) for _ in range(3)] == [Cause.DENIED] * 3
    assert [house.enter() for _ in range(3)] == [None, None, Cause.REFUSED_RATE]
    house.now += 1
    assert [house.enter() for _ in range(3)] == [None, Cause.REFUSED_CLIENT, Cause.REFUSED_CLIENT]


def test_client_that_is_turned_away_has_taken_nothing_from_its_rate() -> None:
    house = House(Rules(deny=["192.0.2.2"]), rate=0.001, most=1)  # two at once
    entered = house.door.enter(Given(), PEER)
    assert not isinstance(entered, Cause)
    assert [house.enter() for _ in range(10)] == [Cause.REFUSED_CLIENT] * 10
    entered.give_back()
    assert house.enter() is None, "its second turn is still there"


def test_client_that_comes_too_often_takes_no_place_of_its_number() -> None:
    house = House(rate=1, most=5)
    assert [house.enter() for _ in range(4)] == [None, None, Cause.REFUSED_RATE, Cause.REFUSED_RATE]
    assert house.counts.count(client_key(PEER) or 0) == 2


@pytest.mark.parametrize("addr", ["", b"\0name", "/run/peer"])
def test_door_lets_a_peer_of_a_unix_socket_in_however_often(addr: Any) -> None:
    house = House(Rules(allow=["10.0.0.0/8"]), rate=1, most=1)
    assert [house.enter(addr) for _ in range(10)] == [None] * 10


def test_door_knows_a_client_by_its_64() -> None:
    house = House(rate=1)
    addresses = [(f"2001:db8:0:{net}::{host}", 1, 0, 0) for net in (1, 2) for host in (1, 2, 3)]
    assert [house.enter(addr) for addr in addresses] == [None, None, Cause.REFUSED_RATE] * 2


# --- behind a load balancer --------------------------------------------------------------------------


def test_door_with_proxy_asks_only_the_rules_about_the_peer() -> None:
    house = House(Rules(deny=["192.0.2.2"]), rate=1, most=1, has_proxy=True)
    assert [house.enter() for _ in range(10)] == [None] * 10
    assert house.enter(OTHER) is Cause.DENIED


def test_door_with_proxy_asks_everything_about_the_client_of_the_header() -> None:
    house = House(Rules(deny=["192.0.2.2"]), rate=1, most=3, has_proxy=True)
    assert house.claim(OTHER) is Cause.DENIED
    assert [house.claim() for _ in range(3)] == [None, None, Cause.REFUSED_RATE]
    house.now += 1
    assert [house.claim() for _ in range(2)] == [None, Cause.REFUSED_CLIENT]


def test_door_with_proxy_asks_no_rule_again_about_a_peer_for_whom_no_header_speaks() -> None:
    house = House(
        Rules(deny=["192.0.2.1"]), rate=1, most=1, has_proxy=True, observe_only=["rules", "max_per_client"]
    )  # fmt: skip
    assert [house.enter(), house.claim(is_peer=True)] == [None, None]
    assert house.said == [RefusalObserved(PEER, Cause.DENIED)]
    assert [house.enter(), house.claim(is_peer=True)] == [None, None]
    assert [event.cause for event in house.said[1:]] == [Cause.DENIED, Cause.REFUSED_CLIENT]  # type: ignore[attr-defined]  # they have one


# --- only looking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_proxy", [False, True])
def test_door_that_only_observes_rules_lets_everybody_in_and_says_whom_not(has_proxy: bool) -> None:
    house = House(Rules(deny=["192.0.2.1"]), observe_only=["rules"], has_proxy=has_proxy)
    assert [house.enter(), house.enter(OTHER)] == [None, None]
    assert house.said == [RefusalObserved(PEER, Cause.DENIED)]


def test_door_that_only_observes_the_rate_says_whom_it_would_have_refused() -> None:
    house = House(rate=1, observe_only=["client_rate"])
    assert [house.enter() for _ in range(5)] == [None] * 5
    assert house.said == [RefusalObserved(PEER, Cause.REFUSED_RATE)] * 3
    house.now += 1
    house.enter()
    assert len(house.said) == 3, "whom it would have refused took nothing"


def test_door_that_only_observes_the_limit_says_whom_it_would_have_refused() -> None:
    house = House(most=2, observe_only=["max_per_client"])
    assert [house.enter() for _ in range(5)] == [None] * 5
    assert house.said == [RefusalObserved(PEER, Cause.REFUSED_CLIENT)] * 3
    key = client_key(PEER)
    assert key is not None
    assert house.counts.count(key) == 2, "as many as there would be"


def test_door_that_observes_one_policy_enforces_the_others() -> None:
    house = House(Rules(deny=["192.0.2.2"]), rate=1, most=4, observe_only=["client_rate", "accept_rate"])
    assert [house.enter() for _ in range(6)] == [*[None] * 4, *[Cause.REFUSED_CLIENT] * 2]
    assert house.said == [RefusalObserved(PEER, Cause.REFUSED_RATE)] * 2
    assert house.enter(OTHER) is Cause.DENIED


def test_door_that_observes_the_limit_alone_enforces_the_rate_and_tells_each_once() -> None:
    house = House(rate=1, most=1, observe_only=["max_per_client"])
    assert [house.enter() for _ in range(3)] == [None, None, Cause.REFUSED_RATE]
    assert house.said == [RefusalObserved(PEER, Cause.REFUSED_CLIENT)] * 2
    assert house.counts.count(client_key(PEER) or 0) == 1


def test_door_decides_ten_thousand_times_exactly() -> None:
    """Each client has 5 at once and 10 a second: over 100 s in steps of 10 ms, 100 clients, that is what comes in."""
    house, entered = House(rate=10, observe_only=["rules"]), dict.fromkeys(range(100), 0)
    for step in range(10_000):
        house.now = START + step / 100
        number = step % 100 // 50  # two of them, one after the other
        entered[number] += house.enter((f"192.0.2.{number}", 1)) is None
    # in each of 100 s each client comes 50 times in half a second: 2 at once, and one each tenth of a second
    assert (entered[0], entered[1]) == (600, 600)
    assert sum(entered.values()) == 1200
