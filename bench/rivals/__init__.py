"""The server programs, one a file, and under which names the scenarios ask for them."""

from dataclasses import replace

from bench.model import Rival

__all__ = [
    "ASYNCIO_STREAMS", "ASYNCIO_STREAMS_LINES", "EPOLL_C", "EPOLL_C_BIG", "GEVENT", "GEVENT_LINES", "MOORAGE_FIBERS",
    "MOORAGE_FIBERS_BIG", "MOORAGE_FIBERS_LINES", "MOORAGE_FIBERS_MANY", "MOORAGE_FIBERS_MANY_LINES",
    "MOORAGE_FIBERS_PURE", "MOORAGE_FIBERS_TLS", "MOORAGE_THREADS", "MOORAGE_THREADS_BIG", "MOORAGE_THREADS_LINES",
    "MOORAGE_THREADS_TLS", "THREADING", "THREADING_LINES", "UVLOOP_PROTOCOL", "UVLOOP_STREAMS", "UVLOOP_STREAMS_LINES",
    "UVLOOP_STREAMS_TLS",
]  # fmt: skip


def _moorage(*args: str, pure: bool = False) -> Rival:
    return Rival("moorage_server.py", ("moorage",), args, (("MOORAGE_PURE", "1"),) if pure else ())


def _with_tls(rival: Rival) -> Rival:
    return replace(rival, needs=(*rival.needs, "trustme"), tls=True)


MANY = "max_connections=10200"  # by default fibers take at most 10,000, and 100 active come on top of 10,000 idle

MOORAGE_THREADS = _moorage("echo", "threads", "any")
MOORAGE_THREADS_LINES = _moorage("lines", "threads", "any")
MOORAGE_THREADS_BIG = _moorage("big", "threads", "any")
MOORAGE_FIBERS = _moorage("echo", "fibers", "native")
MOORAGE_FIBERS_LINES = _moorage("lines", "fibers", "native")
MOORAGE_FIBERS_BIG = _moorage("big", "fibers", "native")
MOORAGE_FIBERS_MANY = _moorage("echo", "fibers", "native", MANY)
MOORAGE_FIBERS_MANY_LINES = _moorage("lines", "fibers", "native", MANY)
MOORAGE_FIBERS_PURE = _moorage("echo", "fibers", "pure", pure=True)
MOORAGE_FIBERS_TLS = _with_tls(MOORAGE_FIBERS)
MOORAGE_THREADS_TLS = _with_tls(MOORAGE_THREADS)
THREADING = Rival("threading_echo.py")
THREADING_LINES = Rival("threading_lines.py")
EPOLL_C = Rival("epoll_echo.c")
EPOLL_C_BIG = Rival("epoll_echo.c", args=(str(1 << 20),))
UVLOOP_PROTOCOL = Rival("uvloop_protocol_echo.py", ("uvloop",))
UVLOOP_STREAMS = Rival("streams.py", ("uvloop",), ("uvloop", "echo"))
UVLOOP_STREAMS_LINES = Rival("streams.py", ("uvloop",), ("uvloop", "lines"))
UVLOOP_STREAMS_TLS = _with_tls(UVLOOP_STREAMS)
ASYNCIO_STREAMS = Rival("streams.py", (), ("asyncio", "echo"))
ASYNCIO_STREAMS_LINES = Rival("streams.py", (), ("asyncio", "lines"))
GEVENT = Rival("gevent_echo.py", ("gevent",))
GEVENT_LINES = Rival("gevent_lines.py", ("gevent",))
