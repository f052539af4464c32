"""Runners: who gives a handler a CPU; the server asks for one by its name."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the old door imports this package for its pool, and needs none of these
    from ..events import Events
    from ..watch import Watch
    from .base import Runner, Serve

#: each in a module of its own, so that only the one in use is imported
RUNNERS = {"inline": "InlineRunner", "threads": "ThreadsRunner", "forks": "ForksRunner"}


def make_runner(
    settings: Any, serve: "Serve", watch: "Watch", events: "Events", own_fds: Callable[[], list[int]]
) -> "Runner":
    """The runner that `settings.runner` names."""
    module = import_module(f".{settings.runner}", __name__)
    runner: type[Runner] = getattr(module, RUNNERS[settings.runner])
    return runner(serve, settings, watch, events, own_fds)
