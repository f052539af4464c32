"""How many connections each client has, in one row and over all."""

import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest

from moorage.errors import InternalError
from moorage.processes.clients import ClientCounts, SharedCounts, cells_for, slots_for
from moorage.processes.scoreboard import Row, Scoreboard

SALT = 0x9E3779B97F4A7C15
HIGHEST = (1 << 64) - 1


def table(clients: int = 8, salt: int = SALT) -> ClientCounts:
    return ClientCounts(memoryview(bytearray(cells_for(clients) * 8)).cast("Q"), salt)


def own(row: Row) -> ClientCounts:
    assert row.clients is not None
    return row.clients


def is_searchable(counts: ClientCounts, expected: Counter[int]) -> bool:
    return all(counts.count(key) == number for key, number in expected.items())


def test_client_that_comes_and_goes_is_counted() -> None:
    counts = table()
    counts.add(5)
    counts.add(5)
    counts.add(HIGHEST)
    assert (counts.count(5), counts.count(HIGHEST), counts.count(6)) == (2, 1, 0)
    counts.drop(5)
    counts.drop(HIGHEST)
    assert (counts.count(5), counts.count(HIGHEST), counts.distinct) == (1, 0, 1)


def test_drop_of_a_client_that_is_not_here_does_nothing() -> None:
    counts = table()
    counts.drop(5)
    counts.add(5)
    counts.drop(5)
    counts.drop(5)
    assert (counts.count(5), counts.distinct) == (0, 0)


@pytest.mark.parametrize("key", [0, -1, HIGHEST + 1])
def test_key_that_is_none_is_an_error(key: int) -> None:
    with pytest.raises(InternalError, match="no key"):
        table().add(key)


@pytest.mark.parametrize("clients", [1, 3, 4, 5, 100, 1024, 1025, 10_000])
def test_table_holds_as_many_clients_as_it_was_made_for_at_half_load(clients: int) -> None:
    counts = table(clients)
    assert slots_for(clients) >= 2 * clients
    assert slots_for(clients).bit_count() == 1
    for key in range(1, clients + 1):
        counts.add(key)
    assert counts.distinct == clients
    assert all(counts.count(key) == 1 for key in range(1, clients + 1))


def test_no_clients_take_no_memory() -> None:
    assert cells_for(0) == 0


def test_table_that_is_full_counts_no_more_clients_and_still_ends_its_searches() -> None:
    counts = table(4)
    for key in range(1, 100):
        counts.add(key)
    assert counts.distinct < slots_for(4)
    assert counts.count(99) == 0
    counts.drop(99)
    counts.add(1)
    assert counts.count(1) == 2
    for key in range(1, 100):
        counts.drop(key)
    assert counts.distinct == 1


@pytest.mark.parametrize("seed", range(8))
def test_table_under_random_changes_counts_as_a_counter_does(seed: int) -> None:
    # salt 1 leaves small keys in slot 0: one long cluster that wraps, the worst there is
    source, counts, expected = random.Random(seed), table(16, salt=SALT if seed % 2 else 1), Counter[int]()
    keys = [source.randrange(1, 1 << 64) for _ in range(8)] + [*range(1, 8), HIGHEST]
    for _ in range(4000):
        key = source.choice(keys)
        if source.random() < 0.5:
            counts.add(key)
            expected[key] += 1
        elif expected[key]:
            counts.drop(key)
            expected[key] -= 1
        assert counts.count(key) == expected[key]
    assert is_searchable(counts, expected)
    assert counts.distinct == len(+expected)


def test_change_that_interrupts_a_change_is_made_after_it() -> None:
    counts = table()
    apply = counts._apply

    def interrupted(key: int, by: int) -> None:
        if key == 1:
            counts.add(2)  # as a finaliser or a signal handler would, here and now
            assert counts.count(2) == 0
        apply(key, by)

    counts._apply = interrupted  # type: ignore[method-assign]  # a seam for the interruption
    counts.add(1)
    assert (counts.count(1), counts.count(2)) == (1, 1)


def test_changes_of_many_threads_are_all_made_and_seen_at_once() -> None:
    counts, seen = table(64), set[int]()

    def live(key: int) -> None:
        together.wait()
        for _ in range(1500):
            counts.add(key)
            counts.add(7)
            seen.add(counts.count(key))
            counts.drop(key)

    together = threading.Barrier(4)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=live, args=(100 + number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert (counts.count(7), counts.distinct) == (6000, 1)
    assert seen == {1}, "who has added a client does not find it"


class Cells(list[int]):
    """Memory that somebody else changes just before a certain cell is read."""

    def __init__(self, size: int) -> None:
        super().__init__([0] * size)
        self.before: dict[int, Callable[[], None]] = {}

    def __getitem__(self, index: Any) -> Any:
        self.before.pop(index, lambda: None)()
        return super().__getitem__(index)


def test_reader_that_an_entry_passed_by_looks_again() -> None:
    cells = Cells(cells_for(8))
    writer, reader = (ClientCounts(cast(memoryview, cells), 1) for _ in range(2))  # as in two processes
    for key in (1, 2, 3):  # in slots 0, 1, 2
        writer.add(key)
    third = 8 + 2 * 2
    cells.before[third] = lambda: writer.drop(1)  # moves 3 to slot 1, where the reader was already
    assert reader.count(3) == 1
    assert not cells.before


def test_reader_while_another_process_moves_entries_finds_those_that_stay() -> None:
    """Clients that stay lie in one cluster behind others that come and go, so they move all the time."""
    board = Scoreboard(rows=1, clients=32)
    counts = own(board.allot())
    counts._salt = 1  # all small keys begin in slot 0
    lasting = range(100, 110)
    started, start = os.pipe()
    pid = os.fork()
    if pid == 0:
        source = random.Random(1)
        for key in (*range(1, 6), *lasting):
            counts.add(key)
        os.write(start, b"x")
        while True:
            key = source.randrange(1, 6)
            counts.drop(key)
            counts.add(key)
    try:
        os.read(started, 1)
        found = [counts.count(key) for _ in range(2000) for key in lasting]
        assert counts._cells[0] > 1000, "no entry was moved meanwhile"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(started)
        os.close(start)
    assert set(found) == {1}
    board.close()


def test_reader_of_a_table_whose_writer_was_killed_in_the_middle_gives_up_soon_and_finds_what_is_there() -> None:
    counts = table()
    counts.add(5)
    counts._cells[0] += 1  # odd, for ever
    assert counts.count(5) == 1
    assert counts.count(6) == 0


def test_reader_of_a_table_full_of_nonsense_returns() -> None:
    counts = table()
    for cell in range(8, len(counts._cells)):
        counts._cells[cell] = 3
    assert counts.count(5) == 0


def test_shared_counts_sum_over_all_workers() -> None:
    board = Scoreboard(rows=4, clients=8)
    mine, other = board.allot(), board.allot()
    shared = SharedCounts(board, mine)
    pid = os.fork()
    if pid == 0:
        theirs = SharedCounts(board, other)
        theirs.add(5)
        theirs.add(5)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    shared.add(5)
    assert (shared.count(5), own(mine).count(5), own(other).count(5)) == (3, 1, 2)
    shared.drop(5)
    board.fold(other)
    assert shared.count(5) == 0
    board.close()


def test_shared_counts_without_tables_are_an_error() -> None:
    board = Scoreboard(rows=1)
    with pytest.raises(InternalError, match="without clients"):
        SharedCounts(board, board.allot())
    board.close()
