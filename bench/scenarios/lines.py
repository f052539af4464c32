"""The recipe's StreamRequestHandler on connections that stay open."""

from bench import rivals
from bench.model import Bar, Contestant, Load, Scenario

SCENARIO = Scenario(
    question="what does one line of `for line in self.rfile: self.wfile.write(line)` cost on 100 open connections?",
    load=Load(mode="echo", connections=100, size=128, messages=200_000, warmup=20_000),
    baseline="ThreadingTCPServer",
    contestants=(
        Contestant("ThreadingTCPServer", rivals.THREADING_LINES),
        Contestant("moorage fibers", rivals.MOORAGE_FIBERS_LINES),
        Contestant("moorage threads", rivals.MOORAGE_THREADS_LINES),
        Contestant("uvloop streams", rivals.UVLOOP_STREAMS_LINES),
        Contestant("gevent makefile", rivals.GEVENT_LINES),
        Contestant("asyncio streams", rivals.ASYNCIO_STREAMS_LINES),
    ),
    bars=(
        Bar("moorage fibers", 0.68, "uvloop streams"),
        Bar("moorage fibers", 0.48, "gevent makefile"),
        Bar("moorage fibers", 0.58, "ThreadingTCPServer"),
    ),
)
