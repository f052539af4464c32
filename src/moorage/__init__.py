"""Moorage runs `socketserver` handlers in production.

Owns      the public names, and nothing else; what is not in `__all__` here, in `moorage.socketserver`,
          `moorage.events` or `moorage.errors` may change without notice.
Promises  `import moorage` loads nothing but this file: each name is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calls import run_blocking, sleep, spawn
    from .config import Listener
    from .connection import Connection
    from .errors import (
        BindError,
        ConnectionEnded,
        HandlerStopped,
        Incomplete,
        InheritError,
        InternalError,
        MoorageError,
        OperatorError,
        PeerError,
        PidFileError,
        PrivilegeError,
        SettingError,
        TargetError,
        TooLarge,
    )
    from .events import Cause, Phase
    from .handler import BaseRequestHandler, StreamRequestHandler
    from .locals import local
    from .locks import Condition, Event, Lock, Queue, RLock
    from .outgoing import connect
    from .processes.serve import serve
    from .server import Server

    __version__: str

__all__ = [
    "BaseRequestHandler", "BindError", "Cause", "Condition", "Connection", "ConnectionEnded", "Event",
    "HandlerStopped", "Incomplete", "InheritError", "InternalError", "Listener", "Lock", "MoorageError", "OperatorError",
    "PeerError", "Phase", "PidFileError", "PrivilegeError", "Queue", "RLock", "Server", "SettingError", "StreamRequestHandler", "TargetError",
    "TooLarge", "__version__", "connect", "local", "run_blocking", "serve", "sleep", "spawn",
]  # fmt: skip

_HOMES = {
    "calls": ["run_blocking", "sleep", "spawn"],
    "config": ["Listener"],
    "connection": ["Connection"],
    "errors": [
        "BindError", "ConnectionEnded", "HandlerStopped", "Incomplete", "InheritError", "InternalError", "MoorageError",
        "OperatorError", "PeerError", "PidFileError", "PrivilegeError", "SettingError", "TargetError", "TooLarge",
    ],
    "events": ["Cause", "Phase"],
    "handler": ["BaseRequestHandler", "StreamRequestHandler"],
    "locals": ["local"],
    "locks": ["Condition", "Event", "Lock", "Queue", "RLock"],
    "outgoing": ["connect"],
    "processes.serve": ["serve"],
    "server": ["Server"],
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from .config.version import VERSION

        return VERSION
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
