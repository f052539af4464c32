"""Messages that no single packet, and no default buffer, can hold."""

from bench import rivals
from bench.model import Bar, Contestant, Load, Scenario

SCENARIO = Scenario(
    question="what does one echo of 1 MiB cost on 10 open connections?",
    load=Load(mode="echo", connections=10, size=1 << 20, messages=5_000, warmup=500),
    baseline="epoll in C",
    contestants=(
        # of 64 KiB to 1 MiB for one recv, 1 MiB was the cheapest (2026-11); every send then takes the whole message
        Contestant("epoll in C", rivals.EPOLL_C_BIG),
        Contestant("moorage fibers", rivals.MOORAGE_FIBERS_BIG),
        Contestant("moorage threads", rivals.MOORAGE_THREADS_BIG),
        Contestant("uvloop Protocol", rivals.UVLOOP_PROTOCOL),
    ),
    bars=(Bar("moorage fibers", 1.3, "epoll in C"),),
    traced=("epoll in C", "moorage fibers", "uvloop Protocol"),
)
