"""Echo through TLS on connections that stay open."""

from bench import rivals
from bench.model import Bar, Contestant, Load, Scenario

SCENARIO = Scenario(
    question="what does one 128-byte echo through TLS 1.3 cost on 50 open connections?",
    load=Load(mode="echo", connections=50, size=128, messages=100_000, warmup=10_000),
    baseline="uvloop TLS streams",
    contestants=(
        Contestant("uvloop TLS streams", rivals.UVLOOP_STREAMS_TLS),
        Contestant("moorage fibers", rivals.MOORAGE_FIBERS_TLS),
        Contestant("moorage threads", rivals.MOORAGE_THREADS_TLS),
    ),
    bars=(Bar("moorage fibers", 0.60, "uvloop TLS streams"),),
)
