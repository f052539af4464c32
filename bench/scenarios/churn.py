"""Connections that come, say one thing and go."""

from bench import rivals
from bench.model import Bar, Contestant, Load, Scenario

SCENARIO = Scenario(
    question="what does one connection cost: connect, one 128-byte echo, close?",
    # 5 at once: the standard library's backlog; more, and it waits for retransmitted SYNs, which is another question
    load=Load(mode="churn", connections=5, size=128, messages=20_000, warmup=2_000),
    baseline="ThreadingTCPServer",
    contestants=(
        Contestant("ThreadingTCPServer", rivals.THREADING),
        Contestant("moorage fibers", rivals.MOORAGE_FIBERS),
        Contestant("moorage threads", rivals.MOORAGE_THREADS),
        Contestant("epoll in C", rivals.EPOLL_C),
        Contestant("uvloop Protocol", rivals.UVLOOP_PROTOCOL),
        Contestant("uvloop streams", rivals.UVLOOP_STREAMS),
        Contestant("gevent StreamServer", rivals.GEVENT),
        Contestant("asyncio streams", rivals.ASYNCIO_STREAMS),
    ),
    bars=(
        Bar("moorage fibers", 0.95, "uvloop Protocol"),
        Bar("moorage fibers", 0.62, "uvloop streams"),
        Bar("moorage fibers", 0.25, "ThreadingTCPServer"),
        Bar("moorage threads", 0.40, "ThreadingTCPServer"),
    ),
)
