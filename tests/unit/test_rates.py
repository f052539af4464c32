"""Rates: exact over many decisions, in one process and in several; bounded; never held up."""

import mmap
import os
import random
import signal
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest

from moorage import rates
from moorage.admission import client_key
from moorage.errors import OperatorError, SettingError
from moorage.rates import CLIENTS, Memory, Rhythm, SharedRates

DECISIONS = 10_000
START = 1000.0


@pytest.fixture
def shared() -> Iterator[SharedRates]:
    one = SharedRates()
    yield one
    one.close()


@pytest.fixture(params=["local", "shared"])
def memory(request: pytest.FixtureRequest, shared: SharedRates) -> Memory:
    return Memory() if request.param == "local" else shared


class Bucket:
    """What every book says: tokens that come back at a rate, up to so many; in fractions."""

    def __init__(self, per_second: int, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._tokens, self._at = Fraction(burst), Fraction(0)

    def take(self, now: Fraction) -> bool:
        self._tokens = min(Fraction(self._burst), self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@pytest.mark.parametrize(("per_second", "burst"), [(10, 1), (10, 5), (100, 100), (1000, 3)])
def test_rate_decides_as_a_bucket_of_tokens_does(memory: Memory, per_second: int, burst: int) -> None:
    dice, rate, bucket = random.Random(burst), memory.rate(per_second, burst), Bucket(per_second, burst)
    now = admitted = 0  # in eighths of a millisecond, which both count exactly
    for number in range(DECISIONS):
        now += dice.choice((0, 0, 1, 8, 8000 // per_second, 16000 // per_second)) if number % 1000 else 80_000
        is_in = rate.take(START + now / 8000) == 0.0
        assert is_in is bucket.take(Fraction(now, 8000)), number
        admitted += is_in
    assert 0 < admitted < DECISIONS


def test_rate_of_ten_thousand_at_once_admits_the_burst(memory: Memory) -> None:
    rate = memory.rate(50, 100)
    assert sum(rate.take(START) == 0.0 for _ in range(DECISIONS)) == 100
    assert sum(rate.take(START + 1) == 0.0 for _ in range(DECISIONS)) == 50
    assert sum(rate.take(START + 3600) == 0.0 for _ in range(DECISIONS)) == 100


@pytest.mark.parametrize("per_second", [0.5, 3, 7 / 60, 1000])
def test_rate_that_is_refused_says_when_and_is_right(memory: Memory, per_second: float) -> None:
    rate, now = memory.rate(per_second, 2), START
    assert rate.take(now) == rate.take(now) == 0.0
    for _ in range(100):
        wait = rate.take(now)
        assert 0 < wait <= 1 / per_second
        assert rate.take(now + wait * 0.999) > 0
        now += wait
        assert rate.take(now) == 0.0
    assert now - START == pytest.approx(100 / per_second)


def test_rate_that_is_refused_takes_nothing(memory: Memory) -> None:
    rate = memory.rate(1, 1)
    assert rate.take(START) == 0.0
    assert [rate.take(START + 0.5) for _ in range(100)] == [0.5] * 100
    assert rate.take(START + 1) == 0.0


def test_rate_that_is_put_back_is_there_for_the_next(memory: Memory) -> None:
    rate = memory.rate(1, 2)
    assert rate.take(START) == rate.take(START) == 0.0
    rate.put_back()
    assert rate.take(START) == 0.0
    assert rate.take(START) > 0


def test_rate_that_is_put_back_at_the_beginning_is_no_gift(memory: Memory) -> None:
    rate = memory.rate(1, 2)
    rate.put_back()
    assert [rate.take(START) == 0.0 for _ in range(3)] == [True, True, False]


def test_rate_goes_on_after_a_reload(memory: Memory) -> None:
    assert memory.rate(10, 3).take(START) == 0.0
    again = memory.rate(10, 3)
    assert [again.take(START) == 0.0 for _ in range(3)] == [True, True, False]


def test_rate_that_a_reload_makes_faster_is_faster_at_once(memory: Memory) -> None:
    slow, fast = memory.rate(0.01, 10), memory.rate(10, 10)
    assert sum(slow.take(START) == 0.0 for _ in range(100)) == 10
    assert 0 < fast.take(START + 1) <= 0.1
    assert fast.take(START + 1.1) == 0.0


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_rate_that_lets_nobody_in_is_a_mistake(per_second: float, burst: int) -> None:
    with pytest.raises(SettingError):
        Rhythm(per_second, burst)


# --- clients -----------------------------------------------------------------------------------------


def test_each_client_has_a_rate_of_its_own(memory: Memory) -> None:
    dice, rates_of = random.Random(1), memory.client_rates(10, 4)
    buckets = {key: Bucket(10, 4) for key in range(1, 101)}
    now = 0
    for _ in range(DECISIONS):
        now += dice.choice((0, 1, 8))
        key = dice.randint(1, 100)
        assert (rates_of.take(key, START + now / 8000) == 0.0) is buckets[key].take(Fraction(now, 8000))


def test_every_key_has_its_place(memory: Memory) -> None:
    keys = [
        client_key(addr) for addr in (("0.0.0.0", 1), ("::", 1, 0, 0), ("255.255.255.255", 1), ("2001:db8::", 1, 0, 0))
    ]
    rates_of = memory.client_rates(1, 1)
    found = [rates_of.take(key, START) for key in (*filter(None, keys), (1 << 64) - 1)]
    assert found[1:] == [1.0, 0.0, 0.0, 0.0], "0.0.0.0 and ::/64 are one key"


def test_table_of_clients_forgets_who_was_quiet_for_longest(memory: Memory) -> None:
    """Of many more than there are places for: what is remembered is of late, and nobody is refused for another."""
    rates_of = memory.client_rates(0.001, 1)
    many = 3 * CLIENTS // 2
    for key in range(1, many + 1):
        assert rates_of.take(key, START + key / 1000) == 0.0
    now = START + many / 1000
    late = sum(rates_of.take(key, now) > 0 for key in range(many - 100, many + 1))
    assert late > 90
    assert sum(rates_of.take(key, now) > 0 for key in range(1, 101)) < 50


def test_table_of_clients_uses_places_again_whose_time_is_over(memory: Memory) -> None:
    rates_of = memory.client_rates(100, 1)
    for key in range(1, 3 * CLIENTS):
        assert rates_of.take(key, START + key) == 0.0
    assert rates_of.take(3 * CLIENTS - 1, START + 3 * CLIENTS - 1) > 0


def test_salts_differ_so_that_nobody_knows_who_meets_whom() -> None:
    assert len({Memory().salt for _ in range(10)}) == 10


# --- several processes -------------------------------------------------------------------------------


def in_children(count: int, call: Callable[[], int]) -> list[int]:
    """What this call, which writes nothing but its result, returned in so many processes at the same time."""
    pipes = []
    gate = os.eventfd(0, os.EFD_SEMAPHORE)
    for _ in range(count):
        reader, writer = os.pipe()
        if not os.fork():
            try:
                os.eventfd_read(gate)
                os.write(writer, b"%d" % call())
            finally:
                os._exit(0)
        os.close(writer)
        pipes.append(reader)
    os.eventfd_write(gate, count)
    found = []
    for reader in pipes:
        with open(reader, "rb") as pipe:
            found.append(int(pipe.read() or b"-1"))
        os.wait()
    os.close(gate)
    return found


@pytest.mark.parametrize("of_clients", [False, True])
def test_processes_together_admit_as_many_as_one(shared: SharedRates, of_clients: bool) -> None:
    rate, rates_of = shared.rate(1, 5000), shared.client_rates(1, 5000)

    def call() -> int:
        return sum((rates_of.take(77, START) if of_clients else rate.take(START)) == 0.0 for _ in range(DECISIONS // 2))

    found = in_children(4, call)
    assert sum(found) == 5000
    assert min(found) >= 0


def test_process_that_is_stopped_in_the_middle_keeps_nobody_waiting(
    shared: SharedRates, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def yield_() -> None:
        nonlocal tries
        tries += 1

    reader, writer = os.pipe()
    holder = os.fork()
    if not holder:
        shared.hold(0)
        os.write(writer, b"!")
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        assert os.read(reader, 1) == b"!"
        monkeypatch.setattr(os, "sched_yield", yield_)
        assert shared.rate(1, 1).take(START) == 0.0
        assert shared.rate(1, 1).take(START) > 0
        assert tries == 2 * rates.TRIES
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        os.close(reader)
        os.close(writer)
    tries = 0
    assert shared.rate(1, 1).take(START + 1) == 0.0
    assert tries == 0, "the lock went with its holder"


def test_lock_of_one_client_is_not_in_the_way_of_others(shared: SharedRates) -> None:
    def call() -> int:
        return sum(shared.hold(place) for place in (1, 2, 3))

    assert shared.hold(2)
    assert in_children(1, call) == [2]
    shared.let_go(2)
    assert in_children(1, call) == [3]


def test_memory_that_cannot_be_had_is_the_operators_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", fail)
    with pytest.raises(OperatorError, match=r"cannot get 1028 KiB of shared memory .*Too many open files"):
        SharedRates()


def test_memory_that_cannot_be_mapped_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(12, "Cannot allocate memory")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(mmap, "mmap", fail)
    with pytest.raises(OperatorError):
        SharedRates()
    assert os.listdir("/proc/self/fd") == before


def test_memory_is_closed_once() -> None:
    before = os.listdir("/proc/self/fd")
    shared = SharedRates()
    shared.close()
    shared.close()
    assert os.listdir("/proc/self/fd") == before
