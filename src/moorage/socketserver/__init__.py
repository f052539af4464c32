"""The old door: the standard library's `socketserver`, without its defects.

Every public name of the standard library's module, plus `ThreadPoolTCPServer` and `ProcessPoolTCPServer`;
`install()` puts this package in its place, for programs that cannot be edited.
"""

import socketserver as _stdlib
from typing import Any as _Any

from .forking_mixin import ForkingMixIn
from .install import install as install
from .install import uninstall as uninstall
from .process_pool import ProcessPoolTCPServer
from .requests import BaseRequestHandler, DatagramRequestHandler, StreamRequestHandler
from .servers import (
    BaseServer,
    ForkingTCPServer,
    ForkingUDPServer,
    ForkingUnixDatagramServer,
    ForkingUnixStreamServer,
    TCPServer,
    ThreadingTCPServer,
    ThreadingUDPServer,
    ThreadingUnixDatagramServer,
    ThreadingUnixStreamServer,
    UDPServer,
    UnixDatagramServer,
    UnixStreamServer,
)
from .settings import configure as configure
from .thread_pool import ThreadPoolTCPServer
from .threading_mixin import ThreadingMixIn

__all__ = [
    "BaseRequestHandler", "BaseServer", "DatagramRequestHandler", "ForkingMixIn", "ForkingTCPServer",
    "ForkingUDPServer", "ForkingUnixDatagramServer", "ForkingUnixStreamServer", "ProcessPoolTCPServer",
    "StreamRequestHandler", "TCPServer", "ThreadPoolTCPServer", "ThreadingMixIn", "ThreadingTCPServer",
    "ThreadingUDPServer", "ThreadingUnixDatagramServer", "ThreadingUnixStreamServer", "UDPServer",
    "UnixDatagramServer", "UnixStreamServer",
]  # fmt: skip

for _name in __all__:
    globals()[_name].__module__ = __name__


def __getattr__(name: str) -> _Any:
    """What programs use of the standard library's module beside its public names."""
    return getattr(_stdlib, name)
