"""The memory that the workers count in."""

import ctypes
import mmap
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from moorage.config.settings import MOST_WORKERS
from moorage.errors import InternalError, OperatorError
from moorage.events import Cause
from moorage.processes.scoreboard import BOUNDS, COUNTERS, FIELDS, GAUGES, HISTOGRAMS, Field, Kind, Row, Scoreboard


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard(clients=100)
    yield board
    board.close()


def in_child(work: Callable[[], object]) -> None:
    """Do this in a child process, which ends well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def killed_after(work: Callable[[], object]) -> None:
    """Do this in a child process that is killed afterwards."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def shared_memory_taken() -> int:
    """Bytes of shared memory that this process has touched."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssShmem"))


def address_of(row: Row) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(row.cells))


def test_row_that_a_child_writes_is_read_by_its_parent(board: Scoreboard) -> None:
    row = board.allot()

    def work() -> None:
        row.set("pid", os.getpid())
        row.add("accepted")
        row.add("accepted", 4)
        row.observe("handler_seconds", 0.5)
        row.beat(12.5)

    in_child(work)
    assert row.get("pid") not in {0, os.getpid()}
    assert row.get("accepted") == 5
    assert row.histogram("handler_seconds").seconds == 0.5
    assert row.heartbeat == 12.5


def test_row_that_was_allotted_later_is_seen_by_a_child_that_is_older(board: Scoreboard) -> None:
    go, went = os.pipe()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        before = len(board.rows())
        os.write(tell, b"x")
        os.read(go, 1)
        rows = board.rows()
        os._exit(0 if (before, [row.get("accepted") for row in rows]) == (0, [7]) else 1)
    os.read(told, 1)
    board.allot().set("accepted", 7)
    os.write(went, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (go, went, told, tell):
        os.close(fd)


def test_row_of_a_killed_child_is_folded_into_the_totals(board: Scoreboard) -> None:
    row = board.allot()

    def work() -> None:
        row.set("number", 1)
        row.add("accepted", 9)
        row.add("ended:idle", 9)
        row.add("held", 2)
        row.observe("connection_seconds", 2.0)

    killed_after(work)
    assert (board.total("accepted"), board.total("held")) == (9, 2)
    board.fold(row)
    assert board.rows() == []
    assert (board.total("accepted"), board.total("ended:idle"), board.total("held")) == (9, 9, 0)
    assert board.histogram("connection_seconds").seconds == 2.0


def test_connections_open_at_the_death_of_their_worker_ended_as_killed(board: Scoreboard) -> None:
    row = board.allot()
    row.set("accepted", 5)
    row.set("ended:idle", 2)
    row.set("open", 3)
    board.fold(row)
    assert board.total("open") == 0
    assert board.total("accepted") == sum(board.total(f"ended:{cause}") for cause in Cause)
    assert board.total("ended:killed") == 3


def test_total_sums_the_dead_and_the_living(board: Scoreboard) -> None:
    for accepted, is_dead in ((1, True), (10, False), (100, True), (1000, False)):
        row = board.allot()
        row.set("accepted", accepted)
        row.set("open", 1)
        row.set("ended:idle", accepted)
        row.observe("queued_seconds", 0.001)
        if is_dead:
            board.fold(row)
    assert board.total("accepted") == 1111
    assert board.total("open") == 2
    assert board.histogram("queued_seconds").counts[0] == 4


def test_row_that_is_folded_comes_back_zeroed(board: Scoreboard) -> None:
    row = board.allot()
    for field in (*GAUGES, *COUNTERS):
        row.set(field.key, 77)
    row.beat(5.0)
    row.observe("queued_seconds", 1.0)
    assert row.clients is not None
    row.clients.add(12)
    board.fold(row)
    again = board.allot()
    assert again.index == row.index
    assert not any(again.cells)
    assert again.heartbeat == 0.0
    assert again.clients is not None
    assert (again.clients.count(12), again.clients.distinct) == (0, 0)


def test_what_a_dead_row_was_told_late_is_gone_when_it_is_allotted_again(board: Scoreboard) -> None:
    row = board.allot()
    board.fold(row)
    row.set("open", 3)
    assert board.allot().get("open") == 0


def test_memory_of_a_folded_row_goes_back_to_the_kernel() -> None:
    board = Scoreboard(rows=4, clients=50_000)
    row, before = board.allot(), shared_memory_taken()
    assert row.clients is not None
    for key in range(1, 20_001):
        row.clients.add(key)
    used = shared_memory_taken() - before
    assert used > 1 << 20
    board.fold(row)
    assert shared_memory_taken() - before < used / 4
    board.close()


def test_row_is_wiped_where_the_kernel_cannot_take_its_memory_back(
    board: Scoreboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmap, "MADV_REMOVE", 9999)
    row = board.allot()
    row.set("accepting", 1)
    board.fold(row)
    assert board.allot().get("accepting") == 0


def test_rows_are_used_again_however_many_workers_died(board: Scoreboard) -> None:
    survivor = board.allot()
    for _ in range(2000):
        row = board.allot()
        row.add("accepted")
        board.fold(row)
    assert row.index == survivor.index + 1
    assert board.rows() == [survivor]
    assert board.total("accepted") == 2000


def test_both_generations_of_the_largest_server_have_a_row_each(board: Scoreboard) -> None:
    rows = [board.allot() for _ in range(2 * MOST_WORKERS)]
    assert board.rows() == rows
    assert len({row.index for row in rows}) == 2 * MOST_WORKERS
    with pytest.raises(InternalError, match="all 512 rows"):
        board.allot()


@pytest.mark.parametrize("limit", [1, 3, 64, 65])
def test_allot_beyond_the_limit_raises_and_a_folded_row_helps(limit: int) -> None:
    board = Scoreboard(rows=limit)
    rows = [board.allot() for _ in range(limit)]
    with pytest.raises(InternalError):
        board.allot()
    board.fold(rows[-1])
    assert board.allot().index == limit - 1
    board.close()


def test_fold_of_a_row_that_is_not_in_use_raises_and_counts_nothing(board: Scoreboard) -> None:
    row = board.allot()
    row.add("accepted")
    board.fold(row)
    with pytest.raises(InternalError, match="not in use"):
        board.fold(row)
    assert board.total("accepted") == 1


def test_rows_do_not_share_a_line_of_the_cache(board: Scoreboard) -> None:
    first, second = board.allot(), board.allot()
    assert address_of(second) - address_of(first) >= len(first.cells) * 8 + 64
    assert address_of(first) % 64 == address_of(second) % 64 == 0


def test_row_takes_what_64_bits_hold(board: Scoreboard) -> None:
    row = board.allot()
    row.set("bytes_received", (1 << 63) - 1)
    assert row.get("bytes_received") == (1 << 63) - 1
    row.set("held", -1)
    assert row.get("held") == -1


def test_name_that_is_not_counted_is_an_error(board: Scoreboard) -> None:
    with pytest.raises(KeyError, match="opened"):
        board.allot().get("opened")


def test_heartbeat_keeps_the_monotonic_moment(board: Scoreboard) -> None:
    row = board.allot()
    assert row.heartbeat == 0.0
    row.beat(123456.789)
    assert row.heartbeat == pytest.approx(123456.789, abs=1e-6)


@pytest.mark.parametrize(
    ("seconds", "slot"),
    [(0.0, 0), (0.001, 0), (0.0011, 1), (1.0, BOUNDS.index(1.0)), (3600.0, len(BOUNDS) - 1), (3601.0, len(BOUNDS))],
)
def test_histogram_counts_in_the_slot_whose_bound_is_not_below(board: Scoreboard, seconds: float, slot: int) -> None:
    row = board.allot()
    row.observe("handler_seconds", seconds)
    histogram = row.histogram("handler_seconds")
    assert histogram.counts == tuple(int(place == slot) for place in range(len(BOUNDS) + 1))
    assert histogram.seconds == pytest.approx(seconds)


def test_histogram_touches_no_neighbour(board: Scoreboard) -> None:
    row = board.allot()
    row.observe("queued_seconds", 1e9)
    assert [field.name for field in HISTOGRAMS if any(row.histogram(field.name).counts)] == ["queued_seconds"]
    assert not any(row.get(field.key) for field in (*GAUGES, *COUNTERS))


def test_row_without_clients_has_no_table() -> None:
    board = Scoreboard(rows=1)
    assert board.allot().clients is None
    board.close()


def test_fields_have_each_their_key_and_a_sentence_of_help() -> None:
    assert len({field.key for field in FIELDS}) == len(FIELDS)
    assert all(field.help[0].isupper() and field.help.endswith(".") for field in FIELDS)
    assert (*GAUGES, *COUNTERS, *HISTOGRAMS) == FIELDS


def test_fields_of_one_name_are_told_apart_by_one_label_and_say_the_same() -> None:
    for name in {field.name for field in FIELDS}:
        siblings = [field for field in FIELDS if field.name == name]
        assert len({(field.kind, field.help, field.label) for field in siblings}) == 1
        assert len(siblings) == 1 or all(field.label and field.value for field in siblings)


def test_least_is_that_of_the_rows_that_have_one() -> None:
    board = Scoreboard(rows=4)
    assert board.least("certificate_expiry") == 0
    for moment in (0, 9, 7):
        board.allot().set("certificate_expiry", moment)
    assert board.least("certificate_expiry") == 7
    board.close()


def test_key_of_a_field_with_a_label_has_its_value() -> None:
    assert Field("ended", Kind.COUNTER, "", "cause", "idle").key == "ended:idle"
    assert Field("open", Kind.GAUGE, "").key == "open"


def test_close_gives_the_memory_back_and_leaves_no_file() -> None:
    board = Scoreboard(rows=2, clients=10)
    row = board.allot()
    files = os.listdir("/proc/self/fd")
    board.close()
    assert os.listdir("/proc/self/fd") == files
    with pytest.raises(ValueError, match="released"):
        row.get("open")


@pytest.mark.parametrize("clients", [1, 10, 1024, 50_000])
def test_row_counts_as_many_clients_as_the_scoreboard_says(clients: int) -> None:
    board = Scoreboard(rows=1, clients=clients)
    counts = board.allot().clients
    assert counts is not None
    assert board.client_room >= 1.5 * clients
    for key in range(1, board.client_room + 1):
        counts.add(key)
    assert counts.distinct == board.client_room
    counts.add(1 << 40)
    assert counts.count(1 << 40) == 0
    board.close()


def test_scoreboard_without_clients_has_room_for_none() -> None:
    board = Scoreboard(rows=1)
    assert board.client_room == 0
    board.close()


def test_memory_that_is_not_to_be_had_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_named: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(OperatorError, match=r"MiB of shared memory .*lower max_connections"):
        Scoreboard(clients=1_000_000)
