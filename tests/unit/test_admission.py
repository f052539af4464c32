"""Admission: never more connections of one client than the limit, and who a client is."""

import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from moorage.admission import ClientLimit, Gate, LocalCounts, Ticket, client_key, client_keys
from moorage.errors import SettingError


def take(gate: Gate) -> Ticket:
    ticket = gate.take()
    assert ticket is not None
    return ticket


# Of each client

KEY, OTHER_KEY = 0xC0000201, 0xC0000202


class FakeTicket:
    def __init__(self) -> None:
        self.given_back = 0

    def give_back(self) -> None:
        self.given_back += 1


def test_client_limit_refuses_a_client_that_has_most() -> None:
    limit, ticket = ClientLimit(2, LocalCounts()), FakeTicket()
    for _ in range(2):
        assert not limit.refuses(KEY)
        limit.enter(ticket, KEY)
    assert limit.refuses(KEY)
    assert not limit.refuses(OTHER_KEY)
    assert ticket.given_back == 0


def test_client_ticket_gives_both_rights_back_once() -> None:
    counts = LocalCounts()
    limit = ClientLimit(2, counts)
    ticket = FakeTicket()
    within, _ = limit.enter(ticket, KEY), limit.enter(FakeTicket(), KEY)
    within.give_back()
    within.give_back()
    assert (ticket.given_back, counts.count(KEY)) == (1, 1)


def test_client_ticket_frees_the_place_before_the_ticket() -> None:
    """Whom the ticket wakes may be the next connection of the same client."""
    limit = ClientLimit(1, LocalCounts())
    gate = Gate(1)
    within = limit.enter(take(gate), KEY)
    found: list[bool] = []
    gate.when_free(lambda: found.append(limit.refuses(KEY)))
    within.give_back()
    assert found == [False]


@pytest.mark.parametrize("most", [0, -1])
def test_client_limit_without_a_single_place_is_refused(most: int) -> None:
    with pytest.raises(SettingError, match=f"max_per_client is {most}"):
        ClientLimit(most, LocalCounts())


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads change as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_client_limit_holds_while_threads_leave() -> None:
    counts = LocalCounts()
    limit, gate = ClientLimit(3, counts), Gate(1000)
    inside: list[object] = []  # `append` and `pop` are atomic, as in the gate
    tickets: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def leave() -> None:
        while (ticket := tickets.get()) is not None:
            inside.pop()  # first: who was counted out here may still be counted there, never the reverse
            ticket.give_back()

    threads = [threading.Thread(target=leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    admitted = most = 0
    while admitted < 2000:
        ticket = take(gate)
        if limit.refuses(KEY):
            ticket.give_back()
            continue
        within = limit.enter(ticket, KEY)
        inside.append(None)
        most = max(most, len(inside))
        admitted += 1
        tickets.put(within)
    for _ in threads:
        tickets.put(None)
    for thread in threads:
        thread.join()
    assert most <= 3
    assert (counts.count(KEY), gate.taken) == (0, 0)


def test_local_counts_forget_those_who_left() -> None:
    counts = LocalCounts()
    for key in range(1, 1001):
        counts.add(key)
        counts.drop(key)
    counts.add(5000)
    assert counts.distinct == 1
    assert (counts.count(1), counts.count(5000)) == (0, 1)


def test_local_counts_keep_one_who_came_back_before_it_was_forgotten() -> None:
    counts = LocalCounts()
    counts.add(7)
    counts.drop(7)
    counts.add(7)
    counts.add(8)
    assert (counts.count(7), counts.distinct) == (1, 2)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("::ffff:192.0.2.1", 1, 0, 0), ("192.0.2.1", 1), True),
        (("2001:db8::1", 1, 0, 0), ("2001:db8::ffff:0:1", 1, 0, 0), True),
        (("2001:db8::1", 1, 0, 0), ("2001:db8:0:1::1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2", 1, 0, 2), True),
        (("::1", 1, 0, 0), ("127.0.0.1", 1), False),
    ],
)
def test_client_key_tells_clients_apart_by_ipv4_address_or_ipv6_network(
    one: object, other: object, is_same: bool
) -> None:
    assert (client_key(one) == client_key(other)) is is_same


@pytest.mark.parametrize(
    ("v4", "v6", "one", "other", "is_same"),
    [
        (24, 64, "192.0.2.0", "192.0.2.255", True),
        (24, 64, "192.0.2.255", "192.0.3.0", False),
        (24, 64, "::ffff:192.0.2.7", "192.0.2.9", True),
        (24, 64, "::ffff:192.0.2.7", "::ffff:192.0.3.7", False),
        (24, 64, "2001:db8::1", "2001:db8::2", True),
        (24, 64, "2001:db8::1", "2001:db8:0:1::1", False),
        (31, 64, "192.0.2.2", "192.0.2.3", True),
        (31, 64, "192.0.2.1", "192.0.2.2", False),
        (8, 64, "10.0.0.1", "10.255.255.255", True),
        (8, 64, "10.0.0.1", "11.0.0.1", False),
        (32, 48, "2001:db8:1:ffff::1", "2001:db8:1::", True),
        (32, 48, "2001:db8:1:ffff::1", "2001:db8:2::", False),
        (32, 48, "192.0.2.1", "192.0.2.2", False),
        (32, 16, "2001:ffff::", "2001::", True),
        (32, 16, "2001::", "2002::", False),
        (32, 65, "2001:db8::7fff:ffff:ffff:ffff", "2001:db8::", True),
        (32, 65, "2001:db8::8000:0:0:0", "2001:db8::", False),
        (32, 128, "2001:db8::1", "2001:db8:0:0:0::1", True),
        (32, 128, "2001:db8::1", "2001:db8::2", False),
        (32, 128, "2001:db8::1", "2001:db9::1", False),
        (32, 128, "fe80::1%eth0", "fe80::1", True),
        (32, 128, "::ffff:192.0.2.7", "192.0.2.7", True),
        (32, 128, "::ffff:192.0.2.7", "192.0.2.8", False),
        (24, 128, "::ffff:192.0.2.7", "192.0.2.8", True),
    ],
)
def test_client_keys_tell_clients_apart_by_as_many_bits_as_are_said(
    v4: int, v6: int, one: str, other: str, is_same: bool
) -> None:
    key = client_keys(v4, v6)
    assert (key((one, 1)) == key((other, 2))) is is_same


@pytest.mark.parametrize(("v4", "v6"), [(24, 64), (32, 48), (32, 128)])
def test_client_keys_have_none_for_a_peer_of_a_unix_socket(v4: int, v6: int) -> None:
    assert [client_keys(v4, v6)(addr) for addr in ("", "/run/s", b"\0abstract", None)] == [None] * 4


def test_client_keys_by_default_are_those_that_mask_nothing() -> None:
    assert client_keys() is client_key


@pytest.mark.parametrize("v4", range(8, 33))
@pytest.mark.parametrize("v6", [16, 48, 64, 65, 96, 128])
def test_client_keys_of_every_length_fit_64_bits_and_are_never_0(v4: int, v6: int) -> None:
    key = client_keys(v4, v6)
    hosts = ("0.0.0.0", "0.0.0.1", "255.255.255.255", "::", "::1", "ffff::", "ffff:" * 7 + "ffff", "::ffff:0.0.0.0")
    assert all(0 < (key((host, 1)) or 0) < 1 << 64 for host in hosts)


def test_client_keys_are_the_same_in_every_process_forked_from_this() -> None:
    key = client_keys(32, 128)
    theirs, ours = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(ours, (client_keys(32, 128)(("2001:db8::1", 1)) or 0).to_bytes(8))
        os._exit(0)
    os.waitpid(pid, 0)
    found = int.from_bytes(os.read(theirs, 8))
    os.close(theirs)
    os.close(ours)
    assert found == key(("2001:db8::1", 2))


@pytest.mark.parametrize(
    "addr", [("0.0.0.0", 1), ("255.255.255.255", 1), ("::1", 1, 0, 0), ("::ffff:0.0.0.0", 1, 0, 0), ("ffff::", 1, 0, 0)]
)
def test_client_key_fits_64_bits_and_is_never_0(addr: object) -> None:
    key = client_key(addr)
    assert key is not None
    assert 0 < key < 1 << 64
