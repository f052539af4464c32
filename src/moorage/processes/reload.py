"""Reload: one attempt to have new workers, with new settings, in the place of the old.

Owns      the generation to come and the listeners that were added for it, until it serves or is given up.
Promises  all or nothing: the new workers accept once all of them are ready, and not before; whatever fails
          until then leaves the old workers, their settings and their listeners as they were.
Refuses   to change what only a restart can: such settings keep their values, and are named.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..config import Configuration, ListenerSettings, ServerSettings
from ..errors import MoorageError
from ..listener import Change, Listener
from .crew import Plan, nothing
from .generation import Generation
from .worker_handle import WorkerHandle

#: what is done once, at the start of the program: as root, or by name
RESTART_ONLY = ("user", "group", "pid_file", "name", "control", "metrics", "reload_on_change")
#: the memory in which clients are counted is made before the first fork: for so many connections, or not at all
COUNTED = ("max_per_client", "max_connections")


MakeChange = Callable[[Sequence[Listener], Sequence[ListenerSettings]], Change]
MakeGeneration = Callable[[Plan, Sequence[Listener], int], Generation]


class Reload:
    """One attempt; `done` or `failed` is called once, unless it is abandoned.

    `set_up` makes what else in a process follows from the settings (its logs): in each new worker before it loads
    the handler, and in the supervisor last of all.  `client_room` is how many clients a worker can count.
    """

    def __init__(
        self,
        old: Generation,
        *,
        reread: Callable[[], Plan],
        change: MakeChange,
        make: MakeGeneration,
        set_up: Callable[[Configuration], object],
        client_room: int,
        done: Callable[["Reload"], None],
        failed: Callable[[str], None],
    ) -> None:
        self.old = old
        #: the generation to come, once it is begun
        self.new: Generation | None = None
        #: listeners that are open for it alone
        self.added: Sequence[Listener] = ()
        #: listeners that it does not have any more
        self.removed: Sequence[Listener] = ()
        #: settings that only a restart changes, and that were changed
        self.unchanged: tuple[str, ...] = ()
        self._reread, self._change, self._make, self._set_up = reread, change, make, set_up
        self._client_room = client_room
        self._done, self._failed = done, failed
        self._apply: Callable[[], object] = nothing

    def begin(self) -> None:
        """Read, open, fork; the rest comes with the words of the new workers."""
        try:
            plan = self._keep(self._reread())
            change = self._change(self.old.listeners, plan.configuration.listeners)
        except MoorageError as error:
            self._fail(str(error))
            return
        except Exception as error:  # a bug, or the system's: also then the old workers serve on
            self._fail(repr(error))
            return
        self.added, self.removed = change.added, change.removed
        self.unchanged += tuple(change.unchanged)
        self._apply = change.apply
        load = partial(_load, self._set_up, change, plan)
        self.new = self._make(replace(plan, load=load), change.listeners, self._count(plan))
        self.new.start(self._ready, self._cannot)

    def abandon(self) -> None:
        """Undo what was begun; nothing is called any more."""
        if self.new is not None:
            self.new.close(WorkerHandle.end)
        for listener in self.added:
            listener.close()
        self.added = ()

    def _keep(self, plan: Plan) -> Plan:
        """The plan with the old values of what only a restart changes."""
        before, after = self.old.plan.settings, plan.settings
        fixed = [name for name in RESTART_ONLY if getattr(before, name) != getattr(after, name)]
        fixed += self._uncountable(before, after)
        self.unchanged = tuple(fixed)
        server = replace(after, **{name: getattr(before, name) for name in fixed})
        return replace(plan, configuration=replace(plan.configuration, server=server))

    def _uncountable(self, before: ServerSettings, after: ServerSettings) -> list[str]:
        """What would have clients come in uncounted: each connection may be of another one."""
        if after.max_per_client is None:
            return []
        if before.max_per_client is None:
            return ["max_per_client"]
        return ["max_connections"] if after.max_connections > self._client_room else []

    def _count(self, plan: Plan) -> int:
        """As many workers as before, where the setting is the same: the operator may have asked for more or fewer."""
        return len(self.old) if plan.settings.workers == self.old.plan.settings.workers else plan.settings.workers

    def _ready(self) -> None:
        """All are ready: what is common to old and new is changed last."""
        assert self.new is not None  # it is what became ready
        configuration = self.new.plan.configuration
        try:
            self._set_up(configuration)
            self._apply()
        except (MoorageError, OSError) as error:
            self._fail(str(error))
            return
        self._done(self)

    def _cannot(self, worker: WorkerHandle | None, reason: str, is_operator: bool) -> None:
        self._fail(reason if is_operator or worker is None else f"worker {worker.number} ({worker.pid}): {reason}")

    def _fail(self, reason: str) -> None:
        self.abandon()
        self._failed(reason)


def _load(set_up: Callable[[Configuration], object], change: Change, plan: Plan) -> Any:
    """In a new worker: the rest of the process as its settings say, its certificates and rules too; then its handler."""
    set_up(plan.configuration)
    change.renew()
    return plan.load()
