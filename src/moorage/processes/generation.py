"""Generation: the workers that were made from one plan, and how many of them there are to be.

Owns      its places, numbered from 1, with the worker of each and the one that is to take over.
Promises  nobody is served by a generation before all its workers are ready and `go` was called; from then on the
          dead are replaced, with back-off for those that die at once; who is recycled leaves when the next one
          serves, and one at a time; after `leave` or `close` nobody is replaced any more.
Refuses   to decide what a failed beginning means: who calls `start` hears of it.
"""

import enum
from collections.abc import Callable, Iterator, Sequence
from random import Random

from ..errors import InternalError
from ..events import Events, WorkerFailed, WorkerRecycled
from ..listener import Listener
from ..timers import Timer
from ..watch import Watch
from .backoff import Backoff
from .crew import Crew, Plan, nothing
from .recycling import Recycling
from .system import System
from .worker_handle import State, WorkerHandle

#: tries in a row, at one place, after which nobody believes in the next one while no worker is left:
#: with the back-off that takes seven seconds at least
MOST_TRIES = 5

#: told which worker cannot become ready, why, and whether that is the operator's mistake
Failed = Callable[[WorkerHandle | None, str, bool], None]


class Phase(enum.Enum):
    """Where a generation is in its life; each phase follows from the one before, or from any before `OVER`."""

    BOOTING = "booting"
    SERVING = "serving"
    OVER = "over"


class Generation:
    """One generation; see `start`."""

    def __init__(
        self,
        number: int,
        plan: Plan,
        listeners: Sequence[Listener],
        count: int,
        *,
        crew: Crew,
        system: System,
        watch: Watch,
        events: Events,
        random: Random,
    ) -> None:
        self.number = number
        self.plan = plan
        self.listeners = tuple(listeners)
        self.phase = Phase.BOOTING
        self.crew, self.system, self.watch, self.events, self.random = crew, system, watch, events, random
        self._places = [Place(self, place) for place in range(1, count + 1)]
        self._ready: Callable[[], None] = nothing
        self._failed: Failed = lambda worker, reason, is_operator: None
        self._hopeless: Callable[[str], None] = lambda reason: None

    def __iter__(self) -> Iterator["Place"]:
        return iter(tuple(self._places))

    def __len__(self) -> int:
        return len(self._places)

    @property
    def is_ready(self) -> bool:
        """Whether every place has a worker that can accept."""
        return all(place.is_ready for place in self)

    # Its life

    def start(self, ready: Callable[[], None], failed: Failed) -> None:
        """Fork all; `ready` is called once when all are ready, or `failed` once when one cannot become so."""
        self._ready, self._failed = ready, failed
        for place in self:
            if self.phase is Phase.BOOTING:  # `failed` may have been called
                place.fill()

    def go(self, hopeless: Callable[[str], None]) -> None:
        """Have all accept; `hopeless` is called when none is left and none can be made."""
        self.phase, self._hopeless = Phase.SERVING, hopeless
        for place in self:
            place.go()

    def leave(self, last: Sequence[int] = ()) -> None:
        """Have all drain, since others serve; the backlog of the listeners `last` is still theirs."""
        self.close(lambda worker: worker.leave(last))

    def close(self, ask: Callable[[WorkerHandle], None]) -> None:
        """Ask all to go in this way."""
        self.phase = Phase.OVER
        for place in self:
            place.close(ask)

    def resize(self, count: int) -> None:
        """Have so many workers: the newest places go first."""
        while len(self._places) < count and self.phase is not Phase.OVER:
            self._places.append(Place(self, len(self._places) + 1))
            self._places[-1].fill()
        while len(self._places) > count:
            self._places.pop().close(WorkerHandle.leave)
        self.check_ready()

    def recycle(self) -> None:
        """To be called at each look: replace the worker that is due, unless another one is being replaced."""
        if self.phase is Phase.SERVING and all(place.coming is None for place in self):
            for place in self:
                if place.recycle():
                    return

    # What its places say

    def check_ready(self) -> None:
        """A worker became ready."""
        if self.phase is Phase.BOOTING and self.is_ready:
            self._ready()

    def fail(self, worker: WorkerHandle | None, reason: str, is_operator: bool) -> bool:
        """A worker cannot become ready; whether it is to be tried again."""
        if self.phase is Phase.BOOTING:
            self.phase = Phase.OVER
            self._failed(worker, reason, is_operator)
        elif self.phase is Phase.SERVING and self._is_hopeless():
            self._hopeless(reason)
        return self.phase is Phase.SERVING

    def _is_hopeless(self) -> bool:
        is_empty = all(place.worker is None and place.coming is None for place in self)
        return is_empty and any(place.is_hopeless for place in self)


class Place:
    """Where one worker works; the `Owner` of its workers."""

    def __init__(self, generation: Generation, number: int) -> None:
        self.number = number
        self.worker: WorkerHandle | None = None
        #: the one that is to take over, and does not serve yet
        self.coming: WorkerHandle | None = None
        self._generation = generation
        self._backoff = Backoff()
        self._tries = 0  # without one that became ready
        self._timer: Timer | None = None
        self._recycling: Recycling | None = None

    @property
    def is_ready(self) -> bool:
        """Whether a worker can accept here."""
        return self.coming is not None and self.coming.state is State.READY

    @property
    def is_hopeless(self) -> bool:
        """Whether it was tried often enough."""
        return self._tries >= MOST_TRIES

    def fill(self) -> None:
        """Fork a worker that is to take over."""
        home, self._timer = self._generation, None
        try:
            self.coming = home.crew.fork(
                self.number, home.plan, home.listeners, generation=home.number, owner=self
            )  # fmt: skip
        except (OSError, InternalError) as error:
            self._again(None, f"it could not be forked ({error})", False)

    def go(self) -> None:
        """Have the new one accept, then the old one leave."""
        coming, self.coming = self.coming, None
        if coming is not None:
            coming.go()
            if self.worker is not None:
                self.worker.leave()
            self.worker = coming
            self._recycling = Recycling(coming.settings, self._generation.random)

    def close(self, ask: Callable[[WorkerHandle], None]) -> None:
        """Be no place any more: ask who is here to go."""
        if self._timer is not None:
            self._timer.cancel()
        leaving, self.coming, self.worker = (self.coming, self.worker), None, None
        for worker in leaving:
            if worker is not None:
                ask(worker)

    def recycle(self) -> bool:
        """Begin to replace the worker, if it is due; whether it is.  A try that fails is repeated by itself."""
        worker, recycling = self.worker, self._recycling
        if worker is None or recycling is None or self._timer is not None:
            return False
        memory = None
        if worker.settings.recycle_memory is not None:
            memory = self._generation.system.memory(worker.pid)
        now = self._generation.system.now()
        reason = recycling.due(worker.born, worker.row.get("accepted"), memory, now)
        if reason is None:
            return False
        self._generation.events.emit(WorkerRecycled(worker.number, worker.pid, reason))
        self.fill()
        return True

    # As the owner of its workers

    def ready(self, worker: WorkerHandle) -> None:
        """It can accept."""
        if worker is self.coming:
            self._tries = 0
            if self._generation.phase is Phase.SERVING:
                self.go()
            else:
                self._generation.check_ready()

    def failed(self, worker: WorkerHandle, reason: str, is_operator: bool) -> None:
        """It will not accept."""
        if worker is self.coming:
            self.coming = None
            self._again(worker, reason, is_operator)

    def gone(self, worker: WorkerHandle) -> None:
        """It has ended."""
        if worker is self.worker:
            self.worker = None
            if self.coming is None and self._timer is None:
                self._fill_after(self._backoff.died(worker.age()))

    def _again(self, worker: WorkerHandle | None, reason: str, is_operator: bool) -> None:
        self._tries += 1
        if not self._generation.fail(worker, reason, is_operator):
            return
        delay = self._backoff.failed()
        pid = 0 if worker is None else worker.pid
        self._generation.events.emit(WorkerFailed(self.number, pid, reason, delay))
        self._fill_after(delay)

    def _fill_after(self, delay: float) -> None:
        if delay > 0:
            self._timer = self._generation.watch.call_at(self._generation.system.now() + delay, self.fill)
        else:
            self.fill()
