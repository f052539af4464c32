"""Twins: which implementation this process uses, native or pure.

Owns      the choice, made once, when this module is first imported.
Promises  every name here behaves the same in both; `WHY` says in words why it is the one it is.
Refuses   to fail: an extension that was not built, or cannot be loaded, leaves the pure twins.
"""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

ENGINE = "moorage._native.engine"
VARIABLE = "MOORAGE_PURE"


def choose(environ: Mapping[str, str]) -> tuple[ModuleType | None, str]:
    """The extension, or None for the pure twins; and why."""
    if environ.get(VARIABLE, "") not in ("", "0"):
        return None, f"{VARIABLE} is set"
    try:
        return import_module(ENGINE), "native"
    except ModuleNotFoundError as error:
        if error.name == ENGINE:
            return None, "the extension was not built"
        return None, f"the extension cannot be loaded: {error}"
    except ImportError as error:
        return None, f"the extension cannot be loaded: {error}"


_engine, WHY = choose(os.environ)
NATIVE = _engine is not None

# The types are those of the pure twins: the native ones have the same names and behaviour.
if TYPE_CHECKING or not NATIVE:
    from _socket import socket as AcceptedSocket

    from .gate import Gate, Ticket
    from .guests import Guests
    from .hub.crew import Crew
    from .hub.loop import Loop
    from .lifecycle import Lifecycle
    from .timers import Timer, Wheel
    from .transport.file import File
    from .transport.stream import Stream

    #: native only: accepts a client of an IPv4 listener
    accept_tcp4: Callable[[int, int, int, int], tuple[AcceptedSocket, tuple[str, int]]] | None = None
    #: native only: the way of a client from the listener to its fiber in one step
    Intake: Any = None
else:
    from ._native.engine import (
        AcceptedSocket,
        Crew,
        File,
        Gate,
        Guests,
        Intake,
        Lifecycle,
        Loop,
        Stream,
        Ticket,
        Timer,
        Wheel,
        accept_tcp4,
    )

__all__ = [
    "NATIVE",
    "WHY",
    "AcceptedSocket",
    "Crew",
    "File",
    "Gate",
    "Guests",
    "Intake",
    "Lifecycle",
    "Loop",
    "Stream",
    "Ticket",
    "Timer",
    "Wheel",
    "accept_tcp4",
    "choose",
]
