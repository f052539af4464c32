"""A loop that is collected while the thread that turned it ends: greenlet must not free what the loop still holds."""

import os
import subprocess
import sys

import pytest

from support.twins import BOTH

#: in a process of its own, since what it looks for is a segmentation fault
PROGRAM = """
import gc, os, threading
from collections import deque
from moorage.deadline import monotonic
from moorage.hub.fibers import Fibers
from moorage.twins import Wheel

class Finalizer:
    def __del__(self):
        ready_to_end.set()
        self.thread.join()
        while os.path.exists(f"/proc/self/task/{self.tid}"):  # its C++ destructors run as the very last
            pass
        for _ in range(1000):  # a pending call of greenlet's runs here: the end of the thread's state
            pass

def turn():
    loop = Fibers(Wheel(monotonic), deque(), lambda call: None)
    loop.enter()
    loop.finalizer = finalizer = Finalizer()
    finalizer.thread, finalizer.tid, finalizer.loop = threading.current_thread(), threading.get_native_id(), loop
    loop.retire()
    loop.close()
    del loop, finalizer
    begun.set()
    ready_to_end.wait()

gc.collect()
gc.disable()
for _ in range(20):
    begun, ready_to_end = threading.Event(), threading.Event()
    thread = threading.Thread(target=turn)
    thread.start()
    begun.wait()
    del thread
    gc.collect()
print("survived")
"""


@pytest.mark.parametrize("kind", BOTH)
def test_loop_collected_while_its_thread_ends_is_no_crash(kind: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MOORAGE_PURE"}
    if kind == "pure":
        environment["MOORAGE_PURE"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=False, env=environment
    )
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr
