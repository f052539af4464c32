"""Runners: who gives a handler a CPU; the server asks for one by its name."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import SettingError

if TYPE_CHECKING:  # the old door imports this package for its pool, and needs none of these
    from ..events import Events
    from ..watch import Watch
    from .base import Runner, Serve

#: each in a module of its own, so that only the one in use is imported
RUNNERS = {"inline": "InlineRunner", "threads": "ThreadsRunner", "fibers": "FibersRunner", "forks": "ForksRunner"}


def make_watch(settings: Any) -> "Watch":
    """The Watch that this runner needs.  Raises `SettingError` where a library for it is missing."""
    check_runner(settings)
    if settings.runner == "fibers":
        from ..hub.hub import Hub

        return Hub()
    from ..watch import Watch

    return Watch()


def check_runner(settings: Any) -> None:
    """Raise `SettingError` where a library for this runner is missing."""
    if settings.runner == "fibers":
        try:
            import_module("greenlet")
        except ImportError as error:
            raise SettingError(
                f"runner = fibers needs greenlet, which cannot be imported ({error}): "
                "install it with `pip install greenlet`"
            ) from error


def make_runner(
    settings: Any, serve: "Serve", watch: "Watch", events: "Events", own_fds: Callable[[], list[int]]
) -> "Runner":
    """The runner that `settings.runner` names."""
    module = import_module(f".{settings.runner}", __name__)
    runner: type[Runner] = getattr(module, RUNNERS[settings.runner])
    return runner(serve, settings, watch, events, own_fds)
