"""One count for all processes: real forks and a real eventfd, watched by both watches."""

import errno
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import accumulate

import pytest

from moorage.deadline import monotonic
from moorage.errors import SettingError
from moorage.hub.hub import Hub
from moorage.processes.scoreboard import Row, Scoreboard
from moorage.processes.tokens import LOOKS, Audit, Tokens, WorkerGate, missing
from moorage.watch import Watch
from support.fake_watch import FakeWatch
from support.sockets import PATIENCE
from support.waiting import in_thread

#: a token that comes back is in use within this time, in whatever process
SOON_IN_USE = 0.1


class FakeRow:
    """A row of one number; can do something each time it is looked at."""

    def __init__(self, held: int = 0, on_get: Callable[[], None] = lambda: None) -> None:
        self.held = held
        self.on_get = on_get

    def get(self, name: str) -> int:
        assert name == "held"
        self.on_get()
        return self.held

    def add(self, name: str, amount: int) -> None:
        assert name == "held"
        self.held += amount


Make = Callable[[int], Tokens]


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:

        def make(limit: int) -> Tokens:
            tokens = Tokens(limit)
            stack.callback(tokens.close)
            return tokens

        yield make


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    board = Scoreboard(rows=8)
    yield board
    board.close()


class Pipe:
    """Words of one letter from child processes."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def say(self, word: bytes) -> None:
        os.write(self.write_end, word)

    def hear(self) -> bytes:
        assert select.select([self.read_end], [], [], PATIENCE)[0], "no child says anything"
        return os.read(self.read_end, 1 << 16)

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """Do this in a child process, which is killed at the end unless it is gone."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def in_child(work: Callable[[], object]) -> None:
    """Do this in a child process, which ends well."""

    def work_and_die() -> None:
        work()
        os.kill(os.getpid(), signal.SIGKILL)

    with child(work_and_die) as pid:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert info is not None
        assert info.si_status == signal.SIGKILL


def take_all(tokens: Tokens) -> int:
    count = 0
    while tokens.take():
        count += 1
    return count


# Tokens


def test_tokens_are_as_many_as_the_limit(make: Make) -> None:
    tokens = make(3)
    assert tokens.free() == 3
    assert take_all(tokens) == 3
    assert tokens.free() == 0
    tokens.put(2)
    assert tokens.free() == 2
    assert take_all(tokens) == 2


def test_tokens_of_a_large_limit_are_told_exactly(make: Make) -> None:
    assert make(48_879).free() == 48_879


def test_tokens_none_put_back_is_none(make: Make) -> None:
    tokens = make(1)
    tokens.put(0)
    assert tokens.free() == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_tokens_without_a_single_one_are_refused(make: Make, limit: int) -> None:
    with pytest.raises(SettingError, match=f"max_connections is {limit}"):
        Tokens(limit)
    with pytest.raises(SettingError, match=f"max_connections is {limit}"):
        make(1).resize(limit)


def test_tokens_made_more_are_there_at_once(make: Make) -> None:
    tokens = make(2)
    take_all(tokens)
    tokens.resize(5)
    assert (tokens.limit, tokens.owed, tokens.free()) == (5, 0, 3)


def test_tokens_made_fewer_are_taken_from_the_free_ones(make: Make) -> None:
    tokens = make(5)
    tokens.take()
    tokens.resize(3)
    assert (tokens.limit, tokens.owed, tokens.free()) == (3, 0, 2)


def test_tokens_made_fewer_than_are_out_are_owed_until_they_come_back(make: Make) -> None:
    tokens = make(5)
    for _ in range(4):
        tokens.take()
    tokens.resize(2)
    assert (tokens.owed, tokens.free()) == (2, 0)
    tokens.put()
    tokens.settle()
    assert (tokens.owed, tokens.free()) == (1, 0)
    tokens.put(2)
    tokens.settle()
    assert (tokens.owed, tokens.free()) == (0, 1)
    tokens.settle()
    assert tokens.free() == 1


def test_tokens_made_fewer_and_more_again_forgive_what_is_owed_first(make: Make) -> None:
    tokens = make(5)
    take_all(tokens)
    tokens.resize(2)
    tokens.resize(4)
    assert (tokens.owed, tokens.free()) == (1, 0)
    tokens.resize(7)
    assert (tokens.owed, tokens.free()) == (0, 2)


def test_tokens_closed_twice_are_closed_once() -> None:
    tokens = Tokens(1)
    fd = tokens.fd
    tokens.close()
    tokens.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_tokens_are_not_inherited_by_other_programs(make: Make) -> None:
    assert not os.get_inheritable(make(1).fd)


def test_tokens_of_four_processes_are_never_more_than_the_limit(make: Make, board: Scoreboard, pipe: Pipe) -> None:
    """Each says so after it took one and before it puts it back: no more than is said can be out."""
    tokens, rounds = make(2), 1000
    rows = [board.allot() for _ in range(4)]

    def work(row: Row) -> None:
        gate = WorkerGate(tokens, row, FakeWatch())
        for _ in range(rounds):
            while (ticket := gate.take()) is None:
                select.select([tokens.fd], [], [])
            pipe.say(b"+")
            os.sched_yield()  # the others' turn, while we hold it
            pipe.say(b"-")
            ticket.give_back()

    with ExitStack() as children:
        pids = [children.enter_context(child(partial(work, row))) for row in rows]
        said = b""
        while len(said) < 4 * rounds * 2:
            said += pipe.hear()
        for pid in pids:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert max(accumulate(1 if word == ord("+") else -1 for word in said)) == 2
    assert (tokens.free(), [row.get("held") for row in rows]) == (2, [0] * 4)


# The gate of a worker


def test_gate_row_says_how_many_it_holds(make: Make, board: Scoreboard) -> None:
    tokens, row = make(2), board.allot()
    gate = WorkerGate(tokens, row, FakeWatch())
    one, two = gate.take(), gate.take()
    assert one is not None
    assert two is not None
    assert gate.take() is None
    assert (row.get("held"), tokens.free()) == (2, 0)
    one.give_back()
    one.give_back()
    assert (row.get("held"), tokens.free()) == (1, 1)
    two.give_back()
    assert (row.get("held"), tokens.free()) == (0, 2)


def test_gate_counts_in_its_row_after_taking_and_until_before_putting_back() -> None:
    """A crash between the two leaves one token too few, never one too many."""
    steps: list[str] = []

    class Steps(Tokens):
        def take(self) -> bool:
            steps.append("take")
            return super().take()

        def put(self, count: int = 1) -> None:
            steps.append("put")
            super().put(count)

    class StepsRow(FakeRow):
        def add(self, name: str, amount: int) -> None:
            steps.append(f"{amount:+}")
            super().add(name, amount)

    tokens = Steps(1)
    ticket = WorkerGate(tokens, StepsRow(), FakeWatch()).take()
    assert ticket is not None
    ticket.give_back()
    tokens.close()
    assert steps == ["take", "+1", "-1", "put"]


def test_gate_given_back_by_many_threads_counts_each_once(make: Make, board: Scoreboard) -> None:
    tokens, row = make(500), board.allot()
    gate = WorkerGate(tokens, row, FakeWatch())
    tickets = [gate.take() for _ in range(500)]

    def give_back() -> None:
        for ticket in tickets:
            assert ticket is not None
            ticket.give_back()

    with in_thread(give_back) as one, in_thread(give_back) as other:
        one.result()
        other.result()
    assert (row.get("held"), tokens.free()) == (0, 500)


def test_gate_calls_all_who_wait_for_one_token_and_forgets_the_descriptor(make: Make) -> None:
    tokens, watch = make(1), FakeWatch()
    gate = WorkerGate(tokens, FakeRow(), watch)
    ticket = gate.take()
    assert ticket is not None
    called: list[int] = []
    for number in range(3):
        gate.when_free(lambda number=number: called.append(number))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    ticket.give_back()
    watch.listening[tokens.fd]()
    assert called == [0, 1, 2]
    assert watch.listening == {}


def test_gate_waiter_that_finds_no_token_may_wait_again(make: Make) -> None:
    tokens, watch = make(1), FakeWatch()
    gate = WorkerGate(tokens, FakeRow(), watch)
    called: list[int] = []

    def again() -> None:
        called.append(1)
        gate.when_free(again)

    gate.when_free(again)
    for times in (1, 2, 3):
        watch.listening[tokens.fd]()
        assert len(called) == times


@pytest.mark.parametrize("kind", [Watch, Hub])
def test_gate_token_freed_elsewhere_is_in_use_within_a_tenth_of_a_second(
    make: Make, pipe: Pipe, kind: type[Watch]
) -> None:
    """Ten times; the other process waits in `poll`, or in the `epoll` of a hub."""
    tokens, here = make(1), Pipe()
    tokens.take()

    def work() -> None:
        watch = kind()
        if isinstance(watch, Hub):
            watch.enter()
        gate = WorkerGate(tokens, FakeRow(), watch)

        def use() -> None:
            ticket = gate.take()
            pipe.say(b"%.6f" % monotonic())
            assert ticket is not None
            os.read(here.read_end, 1)  # ours no more, and not the parent's again before it has looked
            gate.when_free(use)

        gate.when_free(use)
        pipe.say(b"ready")
        while True:
            watch.turn()

    with child(work):
        assert pipe.hear() == b"ready"
        for _ in range(10):
            assert not select.select([pipe.read_end], [], [], 0.005)[0]  # it waits, in vain
            before = monotonic()
            tokens.put()
            assert float(pipe.hear()) - before < SOON_IN_USE
            here.say(b"x")
    here.close()


def test_gate_full_worker_does_not_turn_its_watch_in_vain(make: Make) -> None:
    tokens, watch = make(1), Watch()
    gate = WorkerGate(tokens, FakeRow(), watch)
    ticket = gate.take()
    assert ticket is not None
    called: list[int] = []
    gate.when_free(lambda: called.append(1))
    watch.turn(0.01)
    assert called == []
    ticket.give_back()
    watch.turn(PATIENCE)
    assert called == [1]
    watch.turn(0.01)  # nobody waits any more, although the token is free
    assert called == [1]
    watch.close()


# What the dead took with them


def test_killed_workers_row_says_what_it_held(make: Make, board: Scoreboard) -> None:
    tokens, row = make(5), board.allot()

    def hold() -> None:
        gate = WorkerGate(tokens, row, FakeWatch())
        tickets = [gate.take() for _ in range(3)]
        assert all(tickets)

    in_child(hold)
    assert (tokens.free(), row.get("held")) == (2, 3)
    assert missing(tokens, board.rows()) == 0
    tokens.put(row.get("held"))
    row.set("held", 0)
    assert tokens.free() == 5
    assert missing(tokens, board.rows()) == 0


def test_audit_puts_back_what_was_in_no_row(make: Make, board: Scoreboard) -> None:
    """Killed after it took a token, before its row said so."""
    tokens = make(5)
    board.allot()
    in_child(tokens.take)
    audit = Audit(tokens)
    assert missing(tokens, board.rows()) == 1
    assert [audit.look(board.rows()) for _ in range(LOOKS)] == [0] * (LOOKS - 1) + [1]
    assert tokens.free() == 5
    assert [audit.look(board.rows()) for _ in range(2 * LOOKS)] == [0] * 2 * LOOKS


def test_audit_with_nothing_missing_does_nothing(make: Make) -> None:
    tokens, row = make(5), FakeRow(2)
    tokens.take(), tokens.take()
    audit = Audit(tokens)
    assert not any(audit.look([row]) for _ in range(3 * LOOKS))
    assert tokens.free() == 3


def test_audit_counts_what_is_owed_as_out(make: Make) -> None:
    tokens, row = make(5), FakeRow(5)
    take_all(tokens)
    tokens.resize(2)
    assert missing(tokens, [row]) == 0
    row.held = 4
    tokens.put()
    tokens.settle()
    assert missing(tokens, [row]) == 0


def test_audit_does_not_believe_what_changes_from_look_to_look(make: Make) -> None:
    tokens, row = make(9), FakeRow()
    for _ in range(4):
        tokens.take()
    audit = Audit(tokens)
    for look in range(4 * LOOKS):
        row.held = 4 - look % 3  # nothing missing, one, two
        assert audit.look([row]) == 0
    assert tokens.free() == 5


def test_audit_look_in_which_tokens_moved_does_not_count(make: Make) -> None:
    tokens = make(2)
    tokens.take()
    audit = Audit(tokens)

    def move() -> None:
        row.held += 1

    row = FakeRow(0, move)
    assert missing(tokens, [row]) is None
    assert not any(audit.look([row]) for _ in range(3 * LOOKS))
    row.on_get, row.held = lambda: None, 0
    assert [audit.look([row]) for _ in range(LOOKS)][-1] == 1


def test_audit_takes_out_what_is_too_many(make: Make) -> None:
    tokens = make(3)
    tokens.put(2)
    audit = Audit(tokens)
    assert [audit.look([]) for _ in range(LOOKS)] == [0] * (LOOKS - 1) + [-2]
    assert (tokens.free(), tokens.owed) == (3, 0)


def test_audit_that_cannot_look_does_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = make(3)
    tokens.take()
    audit = Audit(tokens)

    def no_descriptor() -> int:
        raise OSError(errno.EMFILE, "no descriptor is left")

    monkeypatch.setattr(tokens, "free", no_descriptor)
    assert not any(audit.look([]) for _ in range(2 * LOOKS))
