"""When a worker is replaced, and when it is not."""

from random import Random

import pytest

from moorage.config import ServerSettings
from moorage.config.settings import MIB
from moorage.processes.recycling import LOOKS, Recycling


class Same(Random):
    """Chance that always falls in the same place: 0.0 the lowest, 0.5 the middle, 1.0 the highest."""

    def __init__(self, place: float = 0.5) -> None:
        super().__init__()
        self.place = place

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.place


def recycling(place: float = 0.5, **settings: float | None) -> Recycling:
    return Recycling(ServerSettings(**settings), Same(place))  # type: ignore[arg-type]  # the tests name the fields


def look(
    of: Recycling, *, accepted: int = 0, memory: int | None = 50 * MIB, born: float = 0.0, now: float = 0.0
) -> str | None:
    return of.due(born, accepted, memory, now)


def test_worker_without_limits_is_never_due() -> None:
    unlimited = recycling()
    assert look(unlimited, accepted=1 << 60, memory=1 << 60, now=1e9) is None


def test_worker_below_its_limits_is_not_due() -> None:
    limits = recycling(recycle_connections=10_000, recycle_age=7200.0, recycle_memory=400 * MIB)
    assert look(limits, accepted=9_999, memory=400 * MIB, now=7199.9) is None


def test_worker_with_its_connections_served_is_due_and_says_how_many() -> None:
    limits = recycling(recycle_connections=10_000)
    assert look(limits, accepted=10_034) == "10,034 connections, at most 10,000"
    assert look(limits, accepted=10_000) == "10,000 connections, at most 10,000"


def test_worker_of_its_age_is_due_and_says_how_old_it_is() -> None:
    limits = recycling(recycle_age=7200.0)
    assert look(limits, born=1000.0, now=8199.0) is None
    assert look(limits, born=1000.0, now=8213.0) == "7,213 s old, at most 7,200 s"


def test_memory_above_the_limit_counts_only_in_several_looks_in_a_row() -> None:
    limits = recycling(recycle_memory=400 * MIB)
    assert [look(limits, memory=412 * MIB) for _ in range(LOOKS - 1)] == [None] * (LOOKS - 1)
    assert look(limits, memory=412 * MIB) == "412.0 MiB of memory in 5 looks in a row, at most 400.0 MiB"


def test_memory_that_falls_between_two_looks_begins_anew() -> None:
    limits = recycling(recycle_memory=400 * MIB)
    for memory in [412, 412, 412, 412, 399, 412, 412, 412, 412]:
        assert look(limits, memory=memory * MIB) is None
    assert look(limits, memory=412 * MIB) is not None


def test_memory_that_cannot_be_read_says_nothing_either_way() -> None:
    limits = recycling(recycle_memory=400 * MIB)
    for _ in range(LOOKS - 1):
        look(limits, memory=412 * MIB)
    assert look(limits, memory=None) is None
    assert look(limits, memory=412 * MIB) is not None


@pytest.mark.parametrize(("place", "connections", "age"), [(0.0, 900, 90.0), (1.0, 1100, 110.0)])
def test_own_limit_of_a_worker_is_off_by_a_tenth_at_most(place: float, connections: int, age: float) -> None:
    limits = recycling(place, recycle_connections=1000)
    assert look(limits, accepted=connections - 1) is None
    assert look(limits, accepted=connections) == f"{connections:,} connections, at most {connections:,}"
    limits = recycling(place, recycle_age=100.0)
    assert look(limits, now=age - 0.5) is None
    assert look(limits, now=age + 0.5) is not None


def test_limits_of_a_generation_differ_and_each_stays_as_it_was_born() -> None:
    random = Random(7)
    workers = [Recycling(ServerSettings(recycle_connections=10_000), random) for _ in range(8)]

    def reached(worker: Recycling) -> int:
        return next(count for count in range(8_999, 11_002) if look(worker, accepted=count))

    first = [reached(worker) for worker in workers]
    assert len(set(first)) == len(workers)
    assert all(9_000 <= count <= 11_000 for count in first)
    assert [reached(worker) for worker in workers] == first


def test_limit_of_one_connection_lets_a_worker_serve_it() -> None:
    limits = recycling(0.0, recycle_connections=1)
    assert look(limits, accepted=0) is None
    assert look(limits, accepted=1) == "1 connections, at most 1"
