"""A fake operating system for a supervisor: processes, time and signals happen when the test says so.

Owns      the fake processes with their ends of the links, the fake time, and a stage with a supervisor on it.
Promises  nothing is forked and nothing waits; links, listeners, tokens and the scoreboard are real ones; a story
          goes on when the supervisor has done all that it can do.

    def story(stage: Stage) -> Story:
        stage.worker(1).ready()
        yield 0  # the supervisor hears it
        stage.supervisor.stop("TERM")
        yield 0.5  # half a second passes, timer by timer
"""

import select
import signal
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack
from dataclasses import replace
from random import Random
from typing import Any, NoReturn, Self

from moorage.config import resolve
from moorage.config.resolve import Configuration
from moorage.events import Events
from moorage.listener import Listener, open_listeners
from moorage.processes.crew import Plan
from moorage.processes.link import Failed, Link, Message, Ready, make_links
from moorage.processes.scoreboard import Row, Scoreboard
from moorage.processes.supervisor import Supervisor
from moorage.processes.system import System
from moorage.processes.tokens import Tokens
from moorage.processes.worker_handle import WorkerHandle

from .fake_watch import FakeWatch
from .sink import Sink

__all__ = ["FakeSystem", "FakeWorker", "Left", "Stage", "StagedWatch", "Story", "plan_of"]

#: seconds to pass before the story goes on
Story = Iterator[float]
FIRST_PID = 1001


class Left(BaseException):
    """A fake child left with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class FakeWorker:
    """A forked process, played by the test."""

    def __init__(self, system: "FakeSystem", pid: int, link: Link) -> None:
        self.pid = pid
        self.link = link
        #: the signals it was sent
        self.signals: list[int] = []
        #: whether SIGKILL has no effect: it is in the middle of a disk access
        self.is_immortal = False
        self._system = system

    def ready(self) -> None:
        """It can accept."""
        assert self.link.send(Ready())

    def fail(self, reason: str, is_operator: bool = False) -> None:
        """It cannot boot, says why, and leaves."""
        assert self.link.send(Failed(reason, is_operator))
        self.exit(1)

    def heard(self) -> list[Message]:
        """What it was told since the last call; the end of the stream is left out."""
        told: list[Message] = []
        while True:
            try:
                message = self.link.receive()
            except BlockingIOError:
                return told
            if message is None:
                return told
            told.append(message)

    def exit(self, status: int = 0) -> None:
        """It leaves."""
        self._end(status << 8)

    def die(self, signum: int = signal.SIGKILL) -> None:
        """A signal ends it."""
        self._end(signum)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.pid not in self._system.ended

    def _end(self, status: int) -> None:
        assert self.is_alive
        self._system.ended[self.pid] = status


class FakeSystem(System):
    """Hands out pids from 1001 on; `workers` are all it forked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.workers: list[FakeWorker] = []
        #: wait statuses, by pid
        self.ended: dict[int, int] = {}
        self.memories: dict[int, int] = {}
        #: raise this from the next forks
        self.fork_error: OSError | None = None
        #: make the next fork return in the child
        self.be_the_child = False
        self.is_first = False
        #: how often orphans were asked for
        self.orphans_asked = 0
        self._theirs: Link | None = None

    def links(self) -> tuple[Link, Link]:
        """A real pair, of which the fake worker keeps its end."""
        ours, theirs = make_links()
        self._forget_try()
        self._theirs = Link(theirs._sock.dup())
        return ours, theirs

    def fork(self) -> int:
        """The next pid, 0 in the child."""
        if self.fork_error is not None:
            self._forget_try()
            raise self.fork_error
        if self.be_the_child:
            self._forget_try()
            return 0
        assert self._theirs is not None
        self.workers.append(FakeWorker(self, FIRST_PID + len(self.workers), self._theirs))
        self._theirs = None
        return self.workers[-1].pid

    def exit(self, status: int) -> NoReturn:
        """Leave the fake child."""
        raise Left(status)

    def kill(self, pid: int, signum: int) -> None:
        """Note the signal; SIGKILL ends the process."""
        worker = self.worker(pid)
        worker.signals.append(signum)
        if signum == signal.SIGKILL and worker.is_alive and not worker.is_immortal:
            worker.die()

    def wait(self, pid: int) -> int | None:
        """What its end left, once; its end of the link closes then."""
        if pid not in self.ended:
            return None
        self.worker(pid).link.close()
        return self.ended[pid]

    def now(self) -> float:
        """The fake time."""
        return self.clock()

    def memory(self, pid: int) -> int | None:
        """What the test gave it."""
        return self.memories.get(pid)

    def is_init(self) -> bool:
        """As the test says."""
        return self.is_first

    def reap_orphans(self, own: Container[int]) -> None:
        """Count."""
        self.orphans_asked += 1

    def worker(self, pid: int) -> FakeWorker:
        """The process of this pid."""
        return self.workers[pid - FIRST_PID]

    def close(self) -> None:
        """Close what the fake workers have open."""
        self._forget_try()
        for worker in self.workers:
            worker.link.close()

    def _forget_try(self) -> None:
        if self._theirs is not None:  # nothing was forked for it
            self._theirs.close()
            self._theirs = None


class StagedWatch(FakeWatch):
    """Turns as long as there is something to do, then lets the story go on."""

    def __init__(self) -> None:
        super().__init__()
        self.story: Story = iter(())
        self.turns = 0
        self._until = self.now

    def turn(self, timeout: float | None = None) -> None:
        """Do what is ready; when nothing is, pass time, or have the story go on."""
        self.turns += 1
        assert self.turns < 10_000, "the supervisor turns without end"
        if self._do_what_is_ready():
            return
        coming = [timer.when for timer in self.timers if not timer.is_cancelled and timer.when <= self._until]
        if coming:
            self.pass_time(max(0.0, min(coming) - self.now))
            return
        self.now = max(self.now, self._until)
        seconds = next(self.story, None)
        assert seconds is not None, "the story is over, and the supervisor runs on"
        self._until = self.now + seconds

    def _do_what_is_ready(self) -> bool:
        poll = select.poll()
        for fd in self.listening:
            poll.register(fd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(0)]
        for fd in ready:
            call = self.listening.get(fd)
            if call is not None:
                call()
        calls, self.calls = self.calls, []
        for made in calls:
            made()
        return bool(ready or calls)

    def begin_anew(self) -> None:
        """In a fake child."""

    def close(self) -> None:
        """Nothing is open."""


def plan_of(bind: Any = "127.0.0.1:0", **settings: Any) -> Plan:
    """A plan with these settings; nobody loads its handler."""
    server, listeners = resolve(bind, settings)
    return Plan(Configuration(server=server, listeners=listeners), lambda: None, {})


class Stage:
    """A supervisor in a fake system."""

    def __init__(self, bind: Any = "127.0.0.1:0", *, clients: int = 0, **settings: Any) -> None:
        self.plan = plan_of(bind, **{"workers": 2, **settings})
        #: what a reload reads
        self.reread: Callable[[], Plan] = lambda: self.plan
        self.events = Events()
        self.sink = Sink(self.events)
        self.watch = StagedWatch()
        self.system = FakeSystem(self.watch.clock)
        self.scoreboard = Scoreboard(rows=16, clients=clients)
        self.tokens = Tokens(self.plan.settings.max_connections)
        self.listeners: list[Listener] = open_listeners(self.plan.configuration.listeners)
        self.supervisor: Supervisor
        self._open = ExitStack()
        for close in (*(one.close for one in self.listeners), self.tokens.close, self.scoreboard.close):
            self._open.callback(close)
        self._open.callback(self.system.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def play(self, story: Callable[["Stage"], Story], **arguments: Any) -> int:
        """Run a supervisor through this story; its exit status."""
        watch: Any = self.watch  # it has what a supervisor needs
        self.supervisor = Supervisor(
            self.plan, listeners=self.listeners, events=self.events, reread=self._read, watch=watch,
            scoreboard=self.scoreboard, tokens=self.tokens, system=self.system, random=Random(1), **arguments,
        )  # fmt: skip
        self.watch.story = story(self)
        status = self.supervisor.run()
        assert next(self.watch.story, None) is None, "the supervisor ended before the story"
        return status

    def worker(self, birth: int) -> FakeWorker:
        """The worker that was forked as the first, second, third..."""
        return self.system.workers[birth - 1]

    def boot(self) -> None:
        """Have all be ready that are not."""
        for worker in self.system.workers:
            if worker.is_alive and self.handle(worker).state.value == "booting":
                worker.ready()

    def handle(self, worker: FakeWorker) -> WorkerHandle:
        """How the supervisor sees it."""
        return self.supervisor._crew._members[worker.pid]

    def row(self, worker: FakeWorker) -> Row:
        """Its row of the scoreboard."""
        return self.handle(worker).row

    def leave(self) -> None:
        """Have all that are left end as they were asked to."""
        for worker in self.system.workers:
            if worker.is_alive:
                worker.exit()

    def _read(self) -> Plan:
        return self.reread()

    def wish(self, **settings: Any) -> None:
        """Change what a reload reads; the addresses stay."""
        server = replace(self.plan.settings, **settings)
        plan = replace(self.plan, configuration=replace(self.plan.configuration, server=server))
        self.reread = lambda: plan
