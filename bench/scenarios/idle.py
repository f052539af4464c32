"""Connections that only stay open, beside those that work: what they cost in memory, and what they cost the others.

The idle ones echo once before they fall silent. Every contestant has the idle ones, save those called "alone".
"""

from dataclasses import replace

from bench import rivals
from bench.model import Bar, Contestant, Load, Scenario

MANY = Load(mode="echo", connections=100, idle=10_000, size=128, messages=200_000, warmup=20_000)
ALONE = replace(MANY, idle=0)

SCENARIO = Scenario(
    question="what do 10,000 idle connections cost: in memory, and for each echo on 100 others?",
    load=MANY,
    baseline="epoll in C, alone",
    contestants=(
        Contestant("epoll in C, alone", rivals.EPOLL_C, ALONE),
        Contestant("epoll in C", rivals.EPOLL_C),
        Contestant("moorage fibers, alone", rivals.MOORAGE_FIBERS_MANY, ALONE),
        Contestant("moorage fibers", rivals.MOORAGE_FIBERS_MANY),
        Contestant("moorage fibers, StreamRequestHandler", rivals.MOORAGE_FIBERS_MANY_LINES),
        Contestant("uvloop Protocol", rivals.UVLOOP_PROTOCOL),
        Contestant("gevent StreamServer", rivals.GEVENT),
    ),
    bars=(
        Bar("moorage fibers", 1.3, "moorage fibers, alone"),
        Bar("moorage fibers", 8, metric="kib_per_connection"),
        Bar("moorage fibers, StreamRequestHandler", 9, metric="kib_per_connection"),
    ),
)
