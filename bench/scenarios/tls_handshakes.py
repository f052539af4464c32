"""Connections through TLS that come, say one thing and go: full handshakes, none resumed.

A connection is: connect, handshake, one 128-byte echo, close_notify and end of stream from the client, then from the
server. The echo is there because a client that leaves at once meets the server's tickets with a reset.
"""

from bench import rivals
from bench.model import Bar, Contestant, Load, Scenario

SCENARIO = Scenario(
    question="what does one connection through TLS 1.3 cost: connect, full handshake (P-256), one 128-byte echo, close?",
    load=Load(mode="churn", connections=5, size=128, messages=3_000, warmup=300),
    baseline="uvloop TLS streams",
    contestants=(
        Contestant("uvloop TLS streams", rivals.UVLOOP_STREAMS_TLS),
        Contestant("moorage fibers", rivals.MOORAGE_FIBERS_TLS),
        Contestant("moorage threads", rivals.MOORAGE_THREADS_TLS),
    ),
    # handshakes for each CPU second at least 0.9 x uvloop's: the CPU of each is at most 1 / 0.9 of uvloop's
    bars=(Bar("moorage fibers", 1.11, "uvloop TLS streams"),),
)
