"""The server programs, one a file, and under which names the scenarios ask for them."""

from bench.model import Rival

__all__ = [
    "ASYNCIO_STREAMS", "ASYNCIO_STREAMS_LINES", "EPOLL_C", "GEVENT", "GEVENT_LINES", "MOORAGE_THREADS",
    "MOORAGE_THREADS_LINES", "THREADING", "THREADING_LINES", "UVLOOP_PROTOCOL", "UVLOOP_STREAMS", "UVLOOP_STREAMS_LINES",
]  # fmt: skip

MOORAGE_THREADS = Rival("moorage_echo.py", ("moorage",), ("threads",))
MOORAGE_THREADS_LINES = Rival("moorage_lines.py", ("moorage",), ("threads",))
THREADING = Rival("threading_echo.py")
THREADING_LINES = Rival("threading_lines.py")
EPOLL_C = Rival("epoll_echo.c")
UVLOOP_PROTOCOL = Rival("uvloop_protocol_echo.py", ("uvloop",))
UVLOOP_STREAMS = Rival("streams.py", ("uvloop",), ("uvloop", "echo"))
UVLOOP_STREAMS_LINES = Rival("streams.py", ("uvloop",), ("uvloop", "lines"))
ASYNCIO_STREAMS = Rival("streams.py", (), ("asyncio", "echo"))
ASYNCIO_STREAMS_LINES = Rival("streams.py", (), ("asyncio", "lines"))
GEVENT = Rival("gevent_echo.py", ("gevent",))
GEVENT_LINES = Rival("gevent_lines.py", ("gevent",))
