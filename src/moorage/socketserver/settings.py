"""Settings: which limit is an attribute of which base class.

Owns      the table of names.
Promises  a name that no class of this package has is a `SettingError` that lists the names there are.
Refuses   to touch the program's own classes: an attribute there wins.
"""

from collections.abc import Mapping

from ..errors import SettingError
from .forking_mixin import ForkingMixIn
from .process_pool import ProcessPoolTCPServer
from .requests import StreamRequestHandler
from .servers import TCPServer
from .serving import Serving
from .thread_pool import ThreadPoolTCPServer
from .threading_mixin import ThreadingMixIn

__all__ = ["SETTINGS", "configure"]

#: where each setting lives: the class and the name of its attribute
SETTINGS: dict[str, tuple[type, str]] = {
    "backlog": (TCPServer, "request_queue_size"),
    "max_connections": (Serving, "max_connections"),
    "drain_timeout": (Serving, "drain_timeout"),
    "setup_timeout": (Serving, "setup_timeout"),
    "keepalive": (Serving, "keepalive"),
    "lifetime": (Serving, "lifetime"),
    "wait_for_data": (Serving, "wait_for_data"),
    "first_data_timeout": (Serving, "first_data_timeout"),
    "threads": (ThreadingMixIn, "threads"),
    "reuse_threads": (ThreadingMixIn, "reuse_threads"),
    "max_children": (ForkingMixIn, "max_children"),
    "line_limit": (StreamRequestHandler, "line_limit"),
    "message_limit": (StreamRequestHandler, "message_limit"),
    "idle_timeout": (StreamRequestHandler, "idle_timeout"),
    "message_timeout": (StreamRequestHandler, "message_timeout"),
    "write_timeout": (StreamRequestHandler, "write_timeout"),
    "pool_threads": (ThreadPoolTCPServer, "threads"),
    "pool_processes": (ProcessPoolTCPServer, "processes"),
}


def configure(settings: Mapping[str, object]) -> None:
    """Set limits on the base classes, for every class that does not set its own.

    Raises `SettingError` before anything is set.
    """
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise SettingError(
            f"moorage.socketserver has no setting {', '.join(unknown)}; it has {', '.join(sorted(SETTINGS))}"
        )
    for name, value in settings.items():
        owner, attribute = SETTINGS[name]
        setattr(owner, attribute, value)
