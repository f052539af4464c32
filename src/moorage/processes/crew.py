"""Crew: the workers of all generations, as processes.

Owns      every fork of a worker, the supervisor's ends of the links, and the count of those who are alive.
Promises  a child never runs the supervisor's code, whatever is raised in it, and keeps none of its descriptors;
          each death is noticed once: its row is folded, its places of `max_connections` are given back; who is
          late, overstays or stands still is killed, and has told its stacks before.
Refuses   to replace: the owner of a worker is told what became of it.
Why       each pid is waited for by itself, which costs a microsecond: the program that calls `serve()` may have
          children of its own.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from ..config import Configuration, ServerSettings
from ..errors import InternalError
from ..events import Events, WorkerEnded, WorkerReady, WorkerStarted, WorkerStuck
from ..listener import Listener
from ..rates import Memory
from ..runners.children import flush_standard_streams
from ..server import Hook
from ..watch import Watch
from .link import Failed, Link, Ready
from .scoreboard import Scoreboard
from .stacks import StackFile
from .system import System
from .tokens import Audit, Tokens
from .worker import Order, work
from .worker_handle import Owner, Stacks, State, WorkerHandle

#: looks for lost places of `max_connections` after a death, the only moment they can be lost at: many, since a look
#: at a busy server often cannot tell
AUDITS = 60


def nothing() -> None:
    """What is done where nothing is to be done."""


@dataclass(frozen=True)
class Plan:
    """What a worker is to be: the settings, how it gets its handler, and the program's hooks."""

    configuration: Configuration
    load: Callable[[], Any]
    hooks: Mapping[str, Hook]

    @property
    def settings(self) -> ServerSettings:
        """What concerns the whole server."""
        return self.configuration.server


class Crew:
    """Forks workers, hears them, and notices their ends.

    `doors` are all listeners that are open: a child closes those that are not its own.  `forget` is called in
    every child: there the owner of the supervisor closes what else a worker must not keep.
    """

    def __init__(
        self,
        *,
        system: System,
        watch: Watch,
        events: Events,
        scoreboard: Scoreboard,
        tokens: Tokens,
        rates: Memory | None = None,
        doors: Callable[[], Iterable[Listener]],
        forget: Callable[[], object] = nothing,
        reopen_logs: Callable[[], None] = nothing,
        work: Callable[[Order], int] = work,
        make_stacks: Callable[[], Stacks] = StackFile,
    ) -> None:
        self._system, self._watch, self._events = system, watch, events
        self._scoreboard, self._tokens, self._rates = scoreboard, tokens, rates
        self._doors, self._forget, self._reopen_logs = doors, forget, reopen_logs
        self._work, self._make_stacks = work, make_stacks
        self._members: dict[int, WorkerHandle] = {}  # by pid
        self._audit = Audit(tokens)
        self._suspicions = 0  # looks to come that search for places which a dead worker took with it
        self._looked = system.now()

    def __iter__(self) -> Iterator[WorkerHandle]:
        return iter(tuple(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, pid: object) -> bool:
        return pid in self._members

    # Births

    def fork(
        self, number: int, plan: Plan, listeners: Sequence[Listener], *, generation: int, owner: Owner
    ) -> WorkerHandle:
        """A new worker; raises `OSError` or `InternalError` when there can be none, and leaves nothing of it."""
        with ExitStack() as made:
            ours, theirs = self._system.links()
            made.callback(ours.close)
            made.callback(theirs.close)
            stacks = self._make_stacks()
            made.callback(stacks.close)
            row = self._scoreboard.allot()
            made.callback(self._scoreboard.fold, row)
            row.set("number", number)
            row.set("generation", generation)
            order = Order(
                number=number, load=plan.load, configuration=plan.configuration, listeners=listeners, hooks=plan.hooks,
                scoreboard=self._scoreboard, row=row, tokens=self._tokens, link=theirs, stacks=stacks.fd,
                reopen_logs=self._reopen_logs, close=partial(self._let_go, listeners, ours), rates=self._rates,
            )  # fmt: skip
            pid = self._fork(order)
            made.pop_all()
        theirs.close()
        worker = WorkerHandle(
            number, pid, generation=generation, settings=plan.settings, link=ours, row=row, stacks=stacks,
            owner=owner, system=self._system,
        )  # fmt: skip
        self._members[pid] = worker
        self._watch.listen(ours.fileno(), partial(self._hear, worker))
        self._events.emit(WorkerStarted(number, pid))
        return worker

    def _fork(self, order: Order) -> int:
        flush_standard_streams()
        # A signal between the fork and the first line of the child would run the supervisor's handler there.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = self._system.fork()
            if pid == 0:
                self._be_the_child(order)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _be_the_child(self, order: Order) -> NoReturn:
        status = 1
        try:
            status = self._work(order)  # which lets signals in when each has its meaning
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            flush_standard_streams()
            self._system.exit(status)

    def _let_go(self, own: Sequence[Listener], ours: Link) -> None:
        """In the child: close what is the supervisor's and the other workers'."""
        ours.close()
        for worker in self:
            worker.let_go()
        for listener in self._doors():
            if listener not in own:  # of another generation: its clients would wait here for ever
                listener.close()
        self._forget()
        self._watch.begin_anew()  # the timers and the calls to be made are the supervisor's
        self._watch.close()

    # Words

    def _hear(self, worker: WorkerHandle) -> bool:
        """Take one message; False when there is none, and none will come."""
        try:
            message = worker.link.receive()
        except BlockingIOError:
            return False
        except InternalError as error:
            self._give_up(worker, str(error))
            return False
        match message:
            case Ready() if worker.state is State.BOOTING:
                worker.move(State.READY)
                self._events.emit(WorkerReady(worker.number, worker.pid, worker.age()))
                worker.owner.ready(worker)
            case Failed(reason, is_operator):
                worker.expect_end(is_asked=True)
                self._fail(worker, reason, is_operator)
            case None:  # it is about to die, or has let go of us
                self._watch.unlisten(worker.link.fileno())
                worker.expect_end(is_asked=False)
                return False
        return True

    def _give_up(self, worker: WorkerHandle, reason: str) -> None:
        self._watch.unlisten(worker.link.fileno())
        worker.kill(reason)
        self._fail(worker, reason, False)

    def _fail(self, worker: WorkerHandle, reason: str, is_operator: bool) -> None:
        """Tell the owner that it will not serve, if it is still waited for."""
        if worker.is_awaited:
            worker.is_awaited = False
            worker.owner.failed(worker, reason, is_operator)

    # Deaths

    def reap(self) -> None:
        """Take note of those who have ended."""
        for worker in self:
            status = self._system.wait(worker.pid)
            if status is not None:
                self._bury(worker, status)

    def _bury(self, worker: WorkerHandle, status: int) -> None:
        worker.is_reaped = True
        worker.expect_end(is_asked=False)  # that it is ready means nothing any more
        while self._hear(worker):  # but its last words may be the reason
            pass
        self._watch.unlisten(worker.link.fileno())
        stacks = worker.stacks.read() if os.WIFSIGNALED(status) else ""
        worker.let_go()
        del self._members[worker.pid]
        self._tokens.put(max(0, worker.row.get("held")))
        self._suspicions = AUDITS
        self._scoreboard.fold(worker.row)
        worker.move(State.GONE)
        manner = _manner(status)
        if worker.stuck is not None:
            self._events.emit(WorkerStuck(worker.number, worker.pid, worker.stuck, stacks))
            stacks = ""
        said = f"{manner} ({worker.remark})" if worker.remark else manner
        is_expected = worker.is_asked and not worker.remark
        self._events.emit(WorkerEnded(worker.number, worker.pid, said, is_expected, worker.has_served, stacks))
        self._fail(worker, manner, False)
        worker.owner.gone(worker)

    # A look each second

    def look(self) -> None:
        """Find who is late, overstays or stands still; settle the places of `max_connections`."""
        now = self._system.now()
        since, self._looked = now - self._looked, now
        for worker in self:
            if worker.is_late():
                self._give_up(worker, f"it was not ready after {worker.settings.boot_timeout:g} s")
            elif worker.is_overdue():
                # An import does not hear that it is to end: no surprise.
                is_late = worker.has_served and worker.stuck is None
                worker.kill("it had not left in time" if is_late else "")
            elif worker.is_stuck(since):
                worker.abort(worker.silence(0.0))
        self._settle()
        if self._suspicions:
            self._suspicions -= 1
            self._audit.look(self._scoreboard.rows())

    def resize_tokens(self, limit: int) -> None:
        """Have so many places of `max_connections`."""
        self._tokens.resize(limit)
        self._settle()

    def _settle(self) -> None:
        """Take back what a smaller limit has not got back yet; as fast as workers that wait, if the server is full."""
        self._tokens.settle()
        if self._tokens.owed:
            self._watch.listen(self._tokens.fd, self._settle)
        else:
            self._watch.unlisten(self._tokens.fd)

    # All at once

    def reopen(self) -> None:
        """Have all open their log files anew."""
        for worker in self:
            worker.reopen()

    def abandon(self) -> None:
        """Let go of those who are left: they read end of stream, drain and leave."""
        for worker in self:
            self._watch.unlisten(worker.link.fileno())
            worker.let_go()
        self._members.clear()


def _manner(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"
