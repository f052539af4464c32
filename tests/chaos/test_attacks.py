"""Attacks: each attacker is ended by its deadline, for its cause, and the good clients beside them are all served.

What the good clients notice of it is measured by `make bench SCENARIO=attack`, never here.
"""

import os
import resource
from collections import Counter
from typing import Any

import pytest

from bench import under_attack
from bench.model import Attack
from bench.scenarios import attack as scenario
from moorage import Connection
from moorage.events import Cause
from moorage.transport import careful
from support.attackers import Crowd, attackers
from support.house import House, Open

BIG = b"x" * (1 << 20)  # more than the kernel takes for one who does not read

both_runners = pytest.mark.runners("threads", "fibers")
plain = pytest.mark.security("plain")


def serve(conn: Connection) -> None:
    while line := conn.readline():
        conn.sendall(BIG if line == b"big\n" else line)


def serve_good_clients(opened: House, crowd: Crowd) -> int:
    """Until the crowd is gone: one client stays, others come and go. How many they were, all of them served."""
    count = 1
    with opened.client() as staying:
        while not crowd.is_over(0.02):
            assert staying.ask(b"hello\n") == b"hello\n"
            with opened.client() as client:
                assert client.ask(b"hello\n") == b"hello\n"
            count += 1
    return count


def attack(opened: House, drip_every: float = 0.3, **crowd: int) -> Counter[Cause]:
    """The causes of all ends but those of the good clients; every attacker was ended by the server."""
    with attackers(opened.server.address, drip_every=drip_every, **crowd) as attack:
        assert attack.wait_until_here() == sum(crowd.values())
        good = serve_good_clients(opened, attack)
        fates = attack.wait_until_gone()
    assert {kind: fate["gone"] for kind, fate in fates.items()} == crowd, fates
    causes = Counter(opened.cause() for _ in range(sum(crowd.values()) + good))
    assert causes.pop(Cause.PEER_CLOSED) == good
    assert opened.is_quiet()
    return causes


@both_runners
@plain
@pytest.mark.families("tcp4", "unix")
def test_mute_dripping_and_unreading_clients_are_ended_each_by_its_deadline(house: Open) -> None:
    opened = house(
        serve, threads=150, wait_for_data=True, first_data_timeout=2.0, message_timeout=2.0, write_timeout=1.0
    )
    causes = attack(opened, mute=300, drip=100, unread=30)
    assert causes == {Cause.FIRST_DATA: 300, Cause.MESSAGE_DEADLINE: 100, Cause.WRITE_STALLED: 30}


@pytest.mark.runners("fibers")
@plain
@pytest.mark.families("tcp4")
def test_mute_clients_in_their_handlers_are_ended_as_idle(house: Open) -> None:
    assert attack(house(serve, idle_timeout=2.0), mute=300) == {Cause.IDLE: 300}


@both_runners
@plain
@pytest.mark.families("tcp4")
def test_dripping_clients_are_ended_by_the_rate_whatever_time_the_message_has(
    house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(careful, "RATE_GRACE", 0.5)
    opened = house(serve, threads=150, message_timeout=None, min_rate=100)
    assert attack(opened, drip_every=0.1, drip=100) == {Cause.MIN_RATE: 100}


@both_runners
@plain
@pytest.mark.families("tcp4")
def test_dripping_clients_take_no_longer_for_dripping_faster(house: Open) -> None:
    """Each byte is progress, and none of them makes the message younger."""
    opened = house(serve, threads=150, message_timeout=1.0, idle_timeout=20.0)
    assert attack(opened, drip_every=0.05, drip=50) == {Cause.MESSAGE_DEADLINE: 50}


@both_runners
@pytest.mark.security("tls")
@pytest.mark.families("tcp4", "unix")
@pytest.mark.tls_families("tcp4", "unix")
def test_clients_that_never_finish_the_handshake_are_ended_by_its_deadline(house: Open) -> None:
    """And hold no thread: there are fewer of those than of them."""
    opened = house(serve, threads=8, setup_timeout=2.0)
    assert attack(opened, mute=100, hello=100) == {Cause.SETUP_DEADLINE: 200}


@both_runners
@plain
@pytest.mark.families("tcp4")
def test_clients_that_never_send_their_proxy_header_are_ended_by_its_deadline(house: Open) -> None:
    opened = house(serve, setup_timeout=2.0, proxy_protocol="optional", proxy_trusted="127.0.0.0/8")
    assert attack(opened, mute=100) == {Cause.SETUP_DEADLINE: 100}


# The crowds of the benchmark: who is gone and why, and that the good client was served; how fast is not asked here.


def cannot(attack: Attack) -> str:
    """Why this crowd is too large for this host."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if len(os.sched_getaffinity(0)) < 2:
        return "the crowd needs a core beside the server's"
    files = attack.attackers + under_attack.SPARE_FILES
    return f"the crowd needs {files} open files" if -1 < hard < files else ""


@pytest.mark.full
@pytest.mark.timeout(120)
@pytest.mark.parametrize("attack", scenario.SCENARIO.attacks, ids=lambda attack: attack.name)
def test_large_crowd_is_ended_and_the_good_client_served(attack: Attack, record_property: Any) -> None:
    if why := cannot(attack):
        pytest.skip(why)
    outcome = under_attack.run_attack(attack, with_crowd=True)
    record_property("attack", {"p99_ms": outcome.p99(), "fates": outcome.fates})
    assert len(outcome.staying) + len(outcome.new) == attack.exchanges
    assert {kind: fate["gone"] for kind, fate in outcome.fates.items()} == {g.kind: g.count for g in attack.groups}
    expected = under_attack.expected(attack)
    assert {cause: outcome.causes.get(cause) for cause in expected} == expected
