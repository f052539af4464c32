"""Fields: of what settings are made.

Owns      how a setting is declared: default, one-sentence help, when to change it, unit, range; and the ranges that
          several settings have in common.
Promises  every field says all of that: the flags, the reference page and the sentences about bad values are made
          from it.
Refuses   options that only the author understands: no field without a reason beside it.

Times are seconds, sizes are bytes.
"""

from dataclasses import field
from typing import Any

KIB = 1024
MIB = 1024 * KIB
DAY = 86400.0
#: a longer time is a slip of the pen, and `poll()` and the socket options count milliseconds in 31 bits
LONGEST = 24 * DAY
#: about one a day: who wants fewer wants rules, and the moments of rates have 64 bits
LEAST_RATE = 1e-5
#: more sockets than any Linux process may have (`fs.nr_open` is at most 2**30; its default is 2**20)
MOST_SOCKETS = 1 << 20
#: the kernel's own limits: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT in include/net/tcp.h
KEEPALIVE_MOST = (32767, 32767, 127)


#: connections by default under `fibers`, where one costs a few KiB: what a host bears without a thought
MOST_FIBERS = 10_000
#: processes on one host; the rows of the scoreboard are twice as many, for both generations of a reload
MOST_WORKERS = 256
#: open files that are not connections: listeners, logs, pollers, threads that are kept, the program's own
SPARE_FILES = 64


def setting(
    default: Any,
    help: str,
    change: str,
    unit: str = "",
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """One field: default, what it does, when to change it, unit (`s`, `bytes`, `octal` or none), range."""
    limits = {"gt": above, "ge": least, "le": most}
    return field(default=default, metadata={"help": help, "change": change, "unit": unit, "limits": limits})


def time_limit(default: float | None, help: str, change: str) -> Any:
    """A deadline: zero would end everything at once, so it must be above zero."""
    return setting(default, help, change, "s", above=0, most=LONGEST)


def networks(help: str, change: str) -> Any:
    """Networks such as 10.0.0.0/8; none by default."""
    return setting((), help, change, "networks")


def rate(help: str, change: str) -> Any:
    """So many a second; off by default."""
    return setting(None, help, change, "1/s", least=LEAST_RATE, most=1e9)


def duration(default: float | None, help: str, change: str) -> Any:
    """A time that may be zero."""
    return setting(default, help, change, "s", least=0, most=LONGEST)
