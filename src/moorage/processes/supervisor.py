"""Supervisor: has so many workers serve, until it is asked to stop.

Owns      the listeners, the generation that serves, the way from start to end, and the exit status.
Promises  never blocks but in its Watch, starts no thread, imports nothing of the user's; the verbs may be called
          from a signal handler; 0 for a stop that was asked for, 1 when no worker can boot; a first boot that fails
          by the operator's mistake is an `OperatorError`, when nothing is left of it.
Refuses   to set up the process: `serve` does, and says by its arguments what is to be done when.
Why       one look a second, at a heartbeat per worker and at whether files have changed (`on_look`), is all that an idle
          supervisor does.
"""

import enum
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from random import Random

from ..config import Configuration, ServerSettings
from ..config.settings import MOST_WORKERS
from ..errors import InternalError, OperatorError
from ..events import (
    Events,
    SupervisorStarted,
    SupervisorStopped,
    SupervisorStopping,
    WorkerCountChanged,
    WorkerFailed,
)
from ..listener import Listener, change_listeners
from ..observe.logs import LOGGER
from ..rates import Memory
from ..watch import Watch
from .crew import Crew, Plan, nothing
from .generation import Generation
from .notify import Notifier
from .reload import MakeChange, Reload
from .renewal import Renewal, Upgrading
from .scoreboard import REFUSALS, Scoreboard
from .stacks import StackFile
from .system import System
from .tokens import Tokens
from .waking import Waking
from .worker import Order, work
from .worker_handle import Stacks, WorkerHandle
from .worker_handle import State as Worker

__all__ = ["Plan", "Supervisor"]

LOOK_SECONDS = 1.0  # a worker's heartbeat comes as often
#: of all workers, the dead ones included; the rest is told by the metrics
TOTALS = ("open", "held", "accepted", "bytes_received", "bytes_sent", "handler_errors")


class State(enum.Enum):
    """Where a supervisor is in its one life; `NEXT` says what may follow."""

    NEW = "new"
    BOOTING = "booting"  # clients wait in the backlog
    SERVING = "serving"  # reloading or upgrading meanwhile, perhaps
    STOPPING = "stopping"
    OVER = "over"


NEXT: dict[State, frozenset[State]] = {
    State.NEW: frozenset({State.BOOTING}),
    State.BOOTING: frozenset({State.SERVING, State.STOPPING}),
    State.SERVING: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.OVER}),
    State.OVER: frozenset(),
}
#: there is nothing to stop; a signal in the last turn is heard only when the Watch is closed
_IDLE = frozenset({State.NEW, State.OVER})


@dataclass(eq=False, repr=False)
class Supervisor:
    """One supervisor; `run` it once.

    listeners       open ones, which are its own from here on; always those of the generation that serves
    reread          reads the settings again, for a reload; raises `OperatorError`
    watch, scoreboard, tokens, rates  closed by whoever made them, after `run`
    set_up          has the process be as new settings say: called after a reload here, and in each new worker
    reopen_logs     opens the log file anew, here and in each worker
    forget          called in a worker: close what else of the supervisor's it must not keep
    on_look         called once a second
    reap            called when a child may have ended that is none of the workers
    make_upgrade    what upgrades this program, given whom to tell that the new one is ready, and its pid
    on_started, on_stopping, on_handed_over  called when all are ready for the first time, at a wish to stop, and
                    with the pid of the new program of an upgrade
    """

    plan: Plan
    _: KW_ONLY
    listeners: Sequence[Listener]
    events: Events
    reread: Callable[[], Plan]
    watch: Watch
    scoreboard: Scoreboard
    tokens: Tokens
    rates: Memory | None = None
    system: System = field(default_factory=System)
    random: Random = field(default_factory=Random)
    notifier: Notifier = field(default_factory=partial(Notifier, {}))
    make_upgrade: Callable[[Callable[[int], None]], Upgrading] | None = None
    set_up: Callable[[Configuration], object] = lambda configuration: None
    reopen_logs: Callable[[], None] = nothing
    forget: Callable[[], object] = nothing
    on_look: Callable[[], object] = nothing
    reap: Callable[[], object] = nothing
    on_started: Callable[[], object] = nothing
    on_stopping: Callable[[], object] = nothing
    on_handed_over: Callable[[int], object] = lambda pid: None
    change: MakeChange = change_listeners
    work: Callable[[Order], int] = work
    make_stacks: Callable[[], Stacks] = StackFile

    def __post_init__(self) -> None:
        self._crew = Crew(
            system=self.system, watch=self.watch, events=self.events, scoreboard=self.scoreboard, tokens=self.tokens,
            rates=self.rates, doors=self._doors, forget=self._forget, reopen_logs=self.reopen_logs, work=self.work,
            make_stacks=self.make_stacks,
        )  # fmt: skip
        self._renewal = Renewal(
            make=self._make_reload, take_over=self._take_over, say_ready=self._say_ready, events=self.events,
            system=self.system, notifier=self.notifier,
            upgrade=None if self.make_upgrade is None else self.make_upgrade(self._handed_over),
        )  # fmt: skip
        self._state = State.NEW
        self._generations = 0
        self._generation = self._make(self.plan, self.listeners, self.plan.settings.workers)
        self._born = self.system.now()
        self._asked: float | None = None  # when it was asked to stop
        self._was_asked = False
        self._waking = Waking(self.watch)
        self._is_init = self.system.is_init()
        self._status = 0
        self._error: OperatorError | None = None

    # Its life

    def run(self) -> int:
        """Serve until asked to stop; the exit status."""
        with self._waking:
            try:
                self._move(State.BOOTING)
                self._generation.start(self._started, self._could_not_start)
                self._look()
                self._tell_watchdog()
                while self._go_on():
                    self.watch.turn()
                    self._take_the_dead()
            finally:
                self._crew.abandon()
                self._close_listeners()
        if self._error is not None:
            raise self._error
        if self._asked is not None:  # else it never served, and what said so was enough
            self.events.emit(SupervisorStopped(self.system.now() - self._asked))
        return self._status

    @property
    def is_serving(self) -> bool:
        """Whether new clients are welcome, and somebody is there for them."""
        return self._state is State.SERVING and any(worker.state is Worker.SERVING for worker in self._crew)

    @property
    def settings(self) -> ServerSettings:
        """Those of the generation that serves."""
        return self._generation.plan.settings

    # The operator's verbs, for any moment

    def stop(self, reason: str) -> None:
        """Drain; asked for a second time, end now."""
        self.watch.call_soon(partial(self._stop, reason))

    def end(self, reason: str) -> None:
        """End now."""
        self.watch.call_soon(partial(self._end, reason))

    def reload(self, reason: str) -> None:
        """New workers with new settings, in the place of the old; during another reload or upgrade: after it."""
        self.watch.call_soon(partial(self._renewal.want_reload, reason))

    def upgrade(self) -> None:
        """A new program in the place of this one; during a reload: after it."""
        self.watch.call_soon(self._renewal.want_upgrade)

    def more(self) -> None:
        """One worker more."""
        self.watch.call_soon(partial(self._resize, 1))

    def fewer(self) -> None:
        """One worker less, as long as one is left."""
        self.watch.call_soon(partial(self._resize, -1))

    def reopen(self) -> None:
        """Open the log files anew."""
        self.watch.call_soon(self._reopen)

    def status(self) -> dict[str, object]:
        """What the control socket tells."""
        refused = sum(self.scoreboard.total(f"refused:{cause}") for cause in REFUSALS)
        return {
            "state": self._state.value,
            "pid": os.getpid(),
            "uptime": round(self.system.now() - self._born, 1),
            "generation": self._generation.number,
            "reloading": self._renewal.reload is not None,
            "upgrading": self._renewal.is_upgrading,
            "binds": [str(listener) for listener in self._generation.listeners],
            "wanted": len(self._generation),
            "workers": [worker.status() for worker in self._crew],
            "totals": {**{name: self.scoreboard.total(name) for name in TOTALS}, "refused": refused},
        }

    # The beginning

    def _started(self) -> None:
        self._move(State.SERVING)
        self._generation.go(self._cannot_go_on)
        addresses = tuple(listener.address for listener in self._generation.listeners)
        self.events.emit(SupervisorStarted(addresses, self.plan.settings.runner, len(self._generation)))
        self.on_started()
        self._say_ready()

    def _could_not_start(self, worker: WorkerHandle | None, reason: str, is_operator: bool) -> None:
        if is_operator:
            self._error = OperatorError(reason)
        else:
            number, pid = (0, 0) if worker is None else (worker.number, worker.pid)
            self.events.emit(WorkerFailed(number, pid, reason, None))
        self._status = 1
        self._finish(WorkerHandle.end)

    def _make(self, plan: Plan, listeners: Sequence[Listener], count: int) -> Generation:
        self._generations += 1
        return Generation(
            self._generations, plan, listeners, count,
            crew=self._crew, system=self.system, watch=self.watch, events=self.events, random=self.random,
        )  # fmt: skip

    # While it serves

    def _go_on(self) -> bool:
        """Begin what was asked for meanwhile; False when it is over."""
        if self._state is State.SERVING:
            self._renewal.go_on(self._generation.plan.settings.boot_timeout)
        elif self._state is State.STOPPING and not len(self._crew) and not self._renewal.is_upgrading:
            self._move(State.OVER)
        return self._state is not State.OVER

    def _take_the_dead(self) -> None:
        self._crew.reap()
        self._renewal.reap()
        self.reap()
        if self._is_init:
            self.system.reap_orphans(self._crew)

    def _look(self) -> None:
        self._crew.look()
        self.on_look()
        if self._renewal.reload is None:  # which replaces all of them
            self._generation.recycle()
        self.watch.call_at(self.system.now() + LOOK_SECONDS, self._look)

    def _tell_watchdog(self) -> None:
        seconds = self.notifier.watchdog_seconds
        if seconds is not None:
            self.notifier.watchdog()
            self.watch.call_at(self.system.now() + seconds, self._tell_watchdog)

    def _resize(self, change: int) -> None:
        count = len(self._generation) + change
        if self._state in {State.BOOTING, State.SERVING} and 1 <= count <= MOST_WORKERS:
            self.events.emit(WorkerCountChanged(count))
            self._generation.resize(count)
            coming = None if self._renewal.reload is None else self._renewal.reload.new
            if coming is not None and 1 <= len(coming) + change <= MOST_WORKERS:
                coming.resize(len(coming) + change)

    def _reopen(self) -> None:
        self.reopen_logs()
        self._crew.reopen()

    def _cannot_go_on(self, reason: str) -> None:
        logging.getLogger(LOGGER).critical("no worker is left, and none can be started: %s", reason)
        self._status = 1
        self._end("no worker can be started")

    # Reload and upgrade

    def _make_reload(self, done: Callable[[Reload], None], failed: Callable[[str], None]) -> Reload:
        return Reload(
            self._generation, reread=self.reread, change=self.change, make=self._make, set_up=self.set_up,
            client_room=self.scoreboard.client_room, done=done, failed=failed,
        )  # fmt: skip

    def _take_over(self, reload: Reload) -> None:
        """Have the new generation serve, in the place of the old."""
        old, new = reload.old, reload.new
        assert new is not None  # it is what became ready
        self._generation = new
        self._crew.resize_tokens(new.plan.settings.max_connections)
        new.go(self._cannot_go_on)
        old.leave([index for index, listener in enumerate(old.listeners) if listener in reload.removed])
        for listener in reload.removed:
            listener.close()
        self.listeners = new.listeners

    def _handed_over(self, pid: int) -> None:
        """The new program serves: leave it everything."""
        self._asked = self.system.now()
        self.on_handed_over(pid)
        self.notifier.main_pid(pid)
        self.notifier.watchdog_seconds = None  # from now on it is the new program that has to turn
        for listener in self.listeners:
            listener.disown()
        # Who waits at an address that the new program does not have is served here, or by nobody.
        self._finish(partial(WorkerHandle.leave, last=range(len(self._generation.listeners))))

    # The end

    def _stop(self, reason: str) -> None:
        if self._state in _IDLE:
            return
        if self._was_asked:
            self._end(reason)
            return
        self._was_asked = True
        if self._state is not State.STOPPING:  # else it leaves already, after an upgrade
            self._announce(reason, is_now=False)
            self._finish(WorkerHandle.drain)

    def _end(self, reason: str) -> None:
        if self._state in _IDLE:
            return
        self._was_asked = True
        self._announce(reason, is_now=True)
        self._finish(WorkerHandle.end)

    def _announce(self, reason: str, *, is_now: bool) -> None:
        if self._state is not State.STOPPING:
            self._asked = self.system.now()
            self.on_stopping()
            self.notifier.stopping()
        self.events.emit(SupervisorStopping(reason, is_now))

    def _finish(self, ask: Callable[[WorkerHandle], None]) -> None:
        """Ask everybody to go, replace nobody, and refuse new clients rather than strand them."""
        if self._state is not State.STOPPING:
            self._move(State.STOPPING)
        self._renewal.abandon()
        self._generation.close(ask)
        for worker in self._crew:  # of earlier generations
            ask(worker)
        self._close_listeners()

    def _close_listeners(self) -> None:
        for listener in self._doors():
            listener.close()

    # Aides

    def _doors(self) -> list[Listener]:
        """Every listener that is open here."""
        return [*self.listeners, *self._renewal.doors]

    def _forget(self) -> None:
        """In a worker: close what is the supervisor's."""
        self._waking.forget()
        self._renewal.forget()
        self.forget()

    def _say_ready(self) -> None:
        count = len(self._generation)
        self.notifier.ready("1 worker" if count == 1 else f"{count} workers")

    def _move(self, state: State) -> None:
        if state not in NEXT[self._state]:
            raise InternalError(f"the supervisor cannot go from {self._state.value} to {state.value}")
        self._state = state
