"""Descriptors: room for as many connections as the settings promise.

Owns      the soft limit of open files of this process, which it raises when that is needed; that 0, 1 and 2 are
          never a client's.
Promises  one warning with the way out when the hard limit is too low; clients then wait in the backlog.
Refuses   to lower a limit, and to touch the hard one.
Why       1,024 is the usual soft limit, and exactly the default of `max_connections`.
"""

import logging
import os
import resource

from ..config import ServerSettings
from ..config.settings import SPARE_FILES
from ..observe.logs import LOGGER

LAST_STANDARD = 2
#: descriptors of ours for a connection; under `forks` the link to the child and its pidfd, and one in passing
PER_CONNECTION = {"inline": 1, "threads": 1, "fibers": 1, "forks": 2}


def fill_standard_descriptors() -> None:
    """Have the null device where standard input, output or error was closed at the start.

    Else the next socket gets such a number, and a client reads what somebody writes to standard error.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD:
        pass  # the lowest free number: it stays
    os.close(fd)


def raise_descriptor_limit(settings: ServerSettings) -> None:
    """Make room for `max_connections`, as far as the hard limit allows."""
    wanted = settings.max_connections * PER_CONNECTION[settings.runner] + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, possible), hard))
    if possible < wanted:
        logging.getLogger(LOGGER).warning(
            "max_connections is %d, which needs %d open files, and this process may have %d: "
            "raise the hard limit (ulimit -Hn, LimitNOFILE=) or lower max_connections",
            settings.max_connections, wanted, possible,
        )  # fmt: skip
