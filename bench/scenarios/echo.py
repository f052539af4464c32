"""Echo on connections that stay open."""

from bench import rivals
from bench.model import Bar, Contestant, Load, Scenario

SCENARIO = Scenario(
    question="what does one 128-byte echo cost on 100 open connections?",
    load=Load(mode="echo", connections=100, size=128, messages=200_000, warmup=20_000),
    baseline="epoll in C",
    contestants=(
        Contestant("epoll in C", rivals.EPOLL_C),
        Contestant("moorage fibers", rivals.MOORAGE_FIBERS),
        Contestant("moorage fibers, pure", rivals.MOORAGE_FIBERS_PURE),
        Contestant("moorage threads", rivals.MOORAGE_THREADS),
        Contestant("uvloop Protocol", rivals.UVLOOP_PROTOCOL),
        Contestant("uvloop streams", rivals.UVLOOP_STREAMS),
        Contestant("gevent StreamServer", rivals.GEVENT),
        Contestant("ThreadingTCPServer", rivals.THREADING),
        Contestant("asyncio streams", rivals.ASYNCIO_STREAMS),
    ),
    bars=(
        Bar("moorage fibers", 1.15, "epoll in C"),
        Bar("moorage fibers", 1.0, "uvloop Protocol"),
        Bar("moorage fibers", 0.65, "uvloop streams"),
        Bar("moorage fibers", 0.48, "gevent StreamServer"),
        Bar("moorage fibers", 0.55, "ThreadingTCPServer"),
        Bar("moorage fibers, pure", 0.95, "uvloop streams"),
        Bar("moorage fibers, pure", 0.40, "asyncio streams"),
        Bar("moorage threads", 1.0, "ThreadingTCPServer"),
    ),
    # the first shows what the floor is made of, the others what they add to it; servers of one thread only: strace
    # slows each call down so much that a hundred threads mostly fight for the interpreter's lock
    traced=("epoll in C", "moorage fibers", "moorage fibers, pure", "uvloop Protocol"),
)
