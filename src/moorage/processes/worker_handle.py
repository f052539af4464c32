"""Worker handle: one worker, as its supervisor sees it.

Owns      the supervisor's end of the link, the state of the worker, and the moment after which it is killed.
Promises  an illegal change of state fails in one place; asking twice is asking once; who is asked to go has a
          deadline, unless the operator gave a drain none; who serves nobody yet is ended, never drained.
Refuses   to wait and to fork: the crew does.
"""

import enum
import signal
from collections.abc import Sequence
from typing import Protocol

from ..config import ServerSettings
from ..drain import LEAVE_SECONDS
from ..errors import InternalError
from .link import Drain, End, Go, Leave, Link, Message, Reopen
from .scoreboard import Row
from .system import System

#: beyond what a drain or an end takes by its own rules: `worker_stop`, and a busy machine
GRACE_SECONDS = 5.0
#: a worker that never served has nothing to finish, and may be in the middle of an import
BOOT_GRACE_SECONDS = 2.0
#: how long a stuck worker may take to write its stacks and die
STACKS_SECONDS = 2.0
#: below that a worker is never stuck: its heart beats once a second, and is looked at as often
LEAST_SILENCE = 3.0
#: of the time between two looks: when more has passed, the supervisor stood still as well
MOST_COUNTED = 2.0


class State(enum.Enum):
    """Where a worker is in its life; `NEXT` says what may follow."""

    BOOTING = "booting"
    READY = "ready"  # waits for `Go`
    SERVING = "serving"
    LEAVING = "leaving"  # drains
    ENDING = "ending"  # told to end now, or about to by itself
    GONE = "gone"


_LAST = {State.ENDING, State.GONE}
NEXT: dict[State, frozenset[State]] = {
    State.BOOTING: frozenset({State.READY, *_LAST}),
    State.READY: frozenset({State.SERVING, *_LAST}),
    State.SERVING: frozenset({State.LEAVING, *_LAST}),
    State.LEAVING: frozenset(_LAST),
    State.ENDING: frozenset({State.GONE}),
    State.GONE: frozenset(),
}


class Stacks(Protocol):
    """Where a worker writes its stacks when it is killed by SIGABRT."""

    @property
    def fd(self) -> int: ...
    def read(self) -> str: ...
    def close(self) -> None: ...


class Owner(Protocol):
    """Whose worker it is: told what becomes of it."""

    def ready(self, worker: "WorkerHandle") -> None: ...
    def failed(self, worker: "WorkerHandle", reason: str, is_operator: bool) -> None: ...
    def gone(self, worker: "WorkerHandle") -> None: ...


class WorkerHandle:
    """One forked worker; `owner` is told when it is ready, cannot become so, and is gone."""

    def __init__(
        self,
        number: int,
        pid: int,
        *,
        generation: int,
        settings: ServerSettings,
        link: Link,
        row: Row,
        stacks: Stacks,
        owner: Owner,
        system: System,
    ) -> None:
        self.number = number
        self.pid = pid
        self.generation = generation
        self.settings = settings
        self.link = link
        self.row = row
        self.stacks = stacks
        self.owner = owner
        self.state = State.BOOTING
        self.born = system.now()
        #: whether its owner waits for it: it does not serve yet, and nobody has said that it never will
        self.is_awaited = True
        #: whether it was ever told to accept
        self.has_served = False
        #: whether its end is no surprise: it was asked to go, or has said why it cannot stay
        self.is_asked = False
        #: whether it has ended, and its number may be another's
        self.is_reaped = False
        #: how long it had stood still when it was found stuck; None when it was not
        self.stuck: float | None = None
        #: what is to be said of its end besides the exit status
        self.remark = ""
        self._system = system
        self._deadline: float | None = None
        self._beat = 0.0  # the last heartbeat that was seen to differ
        self._silent = 0.0  # seconds of our own looks since then

    # The supervisor's words

    def move(self, state: State) -> None:
        """Go on to this state; raises `InternalError` when it may not follow."""
        if state not in NEXT[self.state]:
            raise InternalError(f"worker {self.number} cannot go from {self.state.value} to {state.value}")
        self.state = state

    def go(self) -> None:
        """Have it accept."""
        self.move(State.SERVING)
        self.has_served, self.is_awaited = True, False
        self.link.send(Go())

    def leave(self, last: Sequence[int] = ()) -> None:
        """Have it drain, while others serve; the backlog of the listeners `last` is still its own."""
        self._drain(Leave(tuple(last)))

    def drain(self) -> None:
        """Have it drain, with the whole program."""
        self._drain(Drain())

    def end(self) -> None:
        """Have it end now."""
        if self.state in _LAST:
            return
        self._ask(State.ENDING, End(), LEAVE_SECONDS + GRACE_SECONDS if self.has_served else BOOT_GRACE_SECONDS)

    def reopen(self) -> None:
        """Have it open its log file anew."""
        self.link.send(Reopen())

    def kill(self, remark: str = "") -> None:
        """End it without its consent."""
        self.remark = self.remark or remark
        if self.state is not State.ENDING:
            self.move(State.ENDING)
        self._deadline = self._system.now() + GRACE_SECONDS  # only a process in the middle of a disk access sees it
        if not self.is_reaped:
            self._system.kill(self.pid, signal.SIGKILL)

    def abort(self, seconds: float) -> None:
        """It has stood still for so long: have it write its stacks and die."""
        self.stuck = seconds
        self.move(State.ENDING)
        self._deadline = self._system.now() + STACKS_SECONDS
        self._system.kill(self.pid, signal.SIGABRT)

    def expect_end(self, is_asked: bool) -> None:
        """It is about to end by itself; it is killed when it does not."""
        self.is_asked = self.is_asked or is_asked
        if self.state not in _LAST:
            self.move(State.ENDING)
            self._deadline = self._system.now() + GRACE_SECONDS

    def let_go(self) -> None:
        """Close what this process has of it: after its death, and in a child that was forked beside it."""
        self.link.close()
        self.stacks.close()

    # What can be seen of it

    def age(self) -> float:
        """Seconds since its fork."""
        return self._system.now() - self.born

    def is_overdue(self) -> bool:
        """Whether it should have ended by now."""
        return self._deadline is not None and self._system.now() > self._deadline

    def is_late(self) -> bool:
        """Whether it should have been ready by now."""
        most = self.settings.boot_timeout
        return self.state is State.BOOTING and most is not None and self.age() > most

    def silence(self, since: float) -> float:
        """Seconds without a heartbeat, of those that its supervisor saw pass; `since` are those since the last look.

        A host that slept, or a container that was frozen, would otherwise find all its workers stuck.
        """
        beat = self.row.heartbeat
        if beat != self._beat or beat == 0.0:
            self._beat, self._silent = beat, 0.0
        else:
            self._silent += min(since, MOST_COUNTED)
        return self._silent

    def is_stuck(self, since: float) -> bool:
        """Whether its loop does not turn any more; to be asked at each look."""
        most = self.settings.stuck_timeout
        if most is None or self.settings.runner == "inline":  # there the loop runs the handlers
            return False
        if self.state is State.LEAVING:  # at its end it waits for handlers, and its loop does not turn
            most += LEAVE_SECONDS
        return self.state in {State.SERVING, State.LEAVING} and self.silence(since) > max(most, LEAST_SILENCE)

    def status(self) -> dict[str, object]:
        """What the control socket tells of it."""
        beat = self.row.heartbeat
        return {
            "number": self.number,
            "pid": self.pid,
            "state": self.state.value,
            "generation": self.generation,
            "age": round(self.age(), 1),
            "open": self.row.get("open"),
            "accepted": self.row.get("accepted"),
            "heartbeat": round(self._system.now() - beat, 1) if beat else None,
        }

    # Within

    def _drain(self, message: Message) -> None:
        if self.state is State.SERVING:
            window = self.settings.drain_timeout
            seconds = None if window is None else window + self.settings.drain_delay + LEAVE_SECONDS + GRACE_SECONDS
            self._ask(State.LEAVING, message, seconds)
        elif self.state is not State.LEAVING:
            self.end()

    def _ask(self, state: State, message: Message, seconds: float | None) -> None:
        self.is_asked, self.is_awaited = True, False
        self.move(state)
        self._deadline = None if seconds is None else self._system.now() + seconds
        self.link.send(message)
