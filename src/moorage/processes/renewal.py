"""Renewal: reloads and upgrades, one at a time.

Owns      the reload that is under way, the upgrades, and the wish for the next of each.
Promises  what is asked for during another one follows it, and once, however often it was asked for: it finds
          whatever was there at the last asking; a reload goes before an upgrade.
Refuses   to know what either does: `reload.py` and `upgrade.py` do.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from ..events import Events, ReloadFailed, ReloadFinished, ReloadStarted
from ..listener import Listener
from .notify import Notifier
from .reload import Reload
from .system import System


class Upgrading(Protocol):
    """The upgrades of this program; see `upgrade.py`."""

    boot_timeout: float | None

    @property
    def is_under_way(self) -> bool: ...
    def begin(self) -> bool: ...
    def cancel(self, reason: str) -> None: ...
    def reap(self) -> None: ...
    def forget(self) -> None: ...


MakeReload = Callable[[Callable[[Reload], None], Callable[[str], None]], Reload]


class Renewal:
    """Begins what was asked for, as soon as `go_on` finds nothing under way.

    make        makes a reload, given whom to tell that it is done, or that it failed
    take_over   has the new generation serve, in the place of the old
    say_ready   tells the service manager that the reload is over, however it ended
    """

    def __init__(
        self,
        *,
        make: MakeReload,
        take_over: Callable[[Reload], None],
        say_ready: Callable[[], None],
        events: Events,
        system: System,
        notifier: Notifier,
        upgrade: Upgrading | None,
    ) -> None:
        self.reload: Reload | None = None
        self._make, self._take_over, self._say_ready = make, take_over, say_ready
        self._events, self._system, self._notifier, self._upgrade = events, system, notifier, upgrade
        self._began = 0.0
        self._wants_reload: str | None = None  # the reason
        self._wants_upgrade = False

    @property
    def is_upgrading(self) -> bool:
        """Whether an upgrade is under way, or one that failed is not gone yet."""
        return self._upgrade is not None and self._upgrade.is_under_way

    @property
    def doors(self) -> Sequence[Listener]:
        """Listeners that are open for the generation to come alone."""
        return self.reload.added if self.reload is not None else ()

    def want_reload(self, reason: str) -> None:
        """Reload, as soon as that can be."""
        self._wants_reload = reason

    def want_upgrade(self) -> None:
        """Upgrade, as soon as that can be."""
        self._wants_upgrade = True

    def go_on(self, boot_timeout: float | None) -> None:
        """Begin what is wanted, unless something is under way."""
        if self.reload is not None or self.is_upgrading:
            return
        if self._wants_reload is not None:
            self._begin_reload(self._wants_reload)
        elif self._wants_upgrade and self._upgrade is not None:
            self._wants_upgrade = False
            self._upgrade.boot_timeout = boot_timeout
            self._upgrade.begin()

    def reap(self) -> None:
        """A child may have ended."""
        if self._upgrade is not None:
            self._upgrade.reap()

    def abandon(self) -> None:
        """Undo what is under way, since this program is to end."""
        if self.reload is not None:
            self.reload.abandon()
            self.reload = None
        if self._upgrade is not None:
            self._upgrade.cancel("this program was asked to stop")

    def forget(self) -> None:
        """In a worker: close what is the supervisor's."""
        if self._upgrade is not None:
            self._upgrade.forget()

    def _begin_reload(self, reason: str) -> None:
        self._wants_reload = None
        self._began = self._system.now()
        self._events.emit(ReloadStarted(reason))
        self._notifier.reloading()
        self.reload = self._make(self._reloaded, self._reload_failed)
        self.reload.begin()

    def _reloaded(self, reload: Reload) -> None:
        self.reload = None
        self._take_over(reload)
        self._events.emit(ReloadFinished(self._system.now() - self._began, reload.unchanged))
        self._say_ready()

    def _reload_failed(self, reason: str) -> None:
        self.reload = None
        self._events.emit(ReloadFailed(reason))
        self._say_ready()
