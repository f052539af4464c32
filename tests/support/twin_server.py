"""A server in a process of its own, on the twin that its environment chooses, and what it holds at a moment.

Run as a program: the argument is JSON with `handler` ("module:function"), `bind`, settings, and perhaps `collector`:
false turns the collector of cycles off, so that what only it would find is found by the test.  It prints one line
of JSON when it serves, and another one for each line that it reads: "count" tells what there is, "search" searches
its heap, too, "settle" waits until nobody is here and then searches, "close" closes the server before that.  It leaves
when there is nothing to read any more.
"""

import gc
import json
import logging
import os
import resource
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from moorage import Server, twins

PATIENCE = 30.0
SOUGHT = ("Connection", "Timer", "Fiber")  # names of types
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


def resident() -> int:
    """KiB of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB


def counted(server: Server) -> dict[str, Any]:
    """What there is now, as far as it is known without a search; in the thread that serves."""
    loop: Any = getattr(server.watch, "loop", None)
    return {
        "KiB": resident(),
        "blocks": sys.getallocatedblocks(),
        "fds": len(os.listdir("/proc/self/fd")) - 1,  # that of the listing itself
        "connections": len(server.connections),
        "fibers": loop.fibers if loop is not None else 0,
        "idle": loop.idle if loop is not None else 0,
    }


def found(server: Server) -> dict[str, Any]:
    """What a search of the whole heap finds besides.

    Without a collection before: what only the collector finds is left behind, too.
    """
    answer = {**counted(server), **dict.fromkeys(SOUGHT, 0), "dead": 0}
    for thing in gc.get_objects():
        name = type(thing).__name__
        if name in SOUGHT:
            answer[name] += 1
            answer["dead"] += name == "Fiber" and thing.dead
    return answer


def in_its_thread(server: Server, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Make this call where the server is turned."""
    answers: list[dict[str, Any]] = []
    made = threading.Event()

    def make() -> None:
        answers.append(call())
        made.set()

    server.watch.call_soon(make)
    assert made.wait(PATIENCE), "the server does not turn"
    return answers[0]


def answer(server: Server, word: str) -> dict[str, Any]:
    """What is to be printed for this word."""
    if word == "close":
        server.close()
        return found(server)
    if word == "settle":
        server.wait_for_connections(0, PATIENCE)
    return in_its_thread(server, lambda: counted(server) if word == "count" else found(server))


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[1])
    module, _, name = settings.pop("handler").partition(":")
    if not settings.pop("collector", True):
        gc.disable()
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with Server(getattr(import_module(module), name), settings.pop("bind"), **settings) as server:
        started = {"address": server.address, "pid": os.getpid(), "twin": "native" if twins.NATIVE else "pure"}
        print(json.dumps(started), flush=True)
        for word in sys.stdin:
            print(json.dumps(answer(server, word.strip())), flush=True)
        server.drain(1.0)


if __name__ == "__main__":
    main()
