"""A server in a process of its own, which tells what it has been through.

Run as a program: the arguments are the settings as JSON.  It prints one line of JSON when it serves, another
one for each line that it reads, and leaves when there is none to read any more.  Its log goes to standard error.
"""

import json
import logging
import os
import resource
import sys
import threading
from pathlib import Path
from typing import Any

from moorage import Connection, Server


class Census:
    """Who is inside, and how many at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the counts
        self.inside = self.most = self.served = 0

    def echo_once(self, conn: Connection) -> None:
        self._enter()
        try:
            data = conn.recv(8192)
            if data:
                conn.sendall(data)
                with self._lock:
                    self.served += 1
        finally:
            self._leave()

    def echo_lines(self, conn: Connection) -> None:
        self._enter()
        try:
            for line in conn.rfile:
                conn.sendall(line)
                with self._lock:
                    self.served += 1
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def _leave(self) -> None:
        with self._lock:
            self.inside -= 1


def memory() -> dict[str, int]:
    """KiB of resident memory, now and at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM")}


def lower_the_limit_of_descriptors(spare: int) -> None:
    """So many may be opened from now on."""
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[1])
    handler, spare = settings.pop("handler", "echo_once"), settings.pop("spare_descriptors", None)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    census = Census()
    with Server(getattr(census, handler), "127.0.0.1:0", **settings) as server:
        if spare is not None:
            lower_the_limit_of_descriptors(spare)
        print(json.dumps({"address": server.address, "pid": os.getpid(), **memory()}), flush=True)
        for _ in sys.stdin:
            taken = len(server.connections)
            print(json.dumps({"most": census.most, "served": census.served, "open": taken, **memory()}), flush=True)
        server.drain(1.0)


if __name__ == "__main__":
    main()
