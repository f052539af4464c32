"""Echo on connections that stay open."""

from bench import rivals
from bench.model import Bar, Contestant, Load, Scenario

SCENARIO = Scenario(
    question="what does one 128-byte echo cost on 100 open connections?",
    load=Load(mode="echo", connections=100, size=128, messages=200_000, warmup=20_000),
    baseline="ThreadingTCPServer",
    contestants=(
        Contestant("ThreadingTCPServer", rivals.THREADING),
        Contestant("moorage threads", rivals.MOORAGE_THREADS),
        Contestant("epoll in C", rivals.EPOLL_C),
        Contestant("uvloop Protocol", rivals.UVLOOP_PROTOCOL),
        Contestant("uvloop streams", rivals.UVLOOP_STREAMS),
        Contestant("gevent StreamServer", rivals.GEVENT),
        Contestant("asyncio streams", rivals.ASYNCIO_STREAMS),
    ),
    bars=(Bar("moorage threads", 1.12, "ThreadingTCPServer"),),
)
