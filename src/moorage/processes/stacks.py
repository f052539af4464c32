"""Stacks: where the threads of a worker are that does not turn its loop any more.

Owns      one file in memory for each worker, which the worker writes in and the supervisor reads.
Promises  a worker that stands still tells its stacks also while it runs no Python: inside a call of C, or while
          another thread has the interpreter.  The file is in no folder, and is gone with its last descriptor.
Refuses   to send the signal: who asks (SIGABRT) also decides when to kill.
Why       `faulthandler` writes from within the signal handler and needs a descriptor for it; a pipe would need a
          reader at that moment, and would be full after 64 KiB.

The interpreter tells at most the hundred threads that were started last, and "..." for the rest.  A worker that
crashes by itself (SIGSEGV, SIGBUS) leaves its stacks here, too.  While other threads run, `faulthandler` may crash at
their stacks: then there is what it had written until then, and the worker, which was to be killed, is dead.
"""

import faulthandler
import os

#: more than a hundred threads of usual depth take (measured: 150 threads that wait for a lock, 53 KB)
MOST_BYTES = 256 * 1024


def arm(fd: int) -> None:
    """In the worker: have SIGABRT, and a crash, write the stacks of all threads to this descriptor."""
    faulthandler.enable(fd, all_threads=True)


class StackFile:
    """The file of one worker; made by the supervisor before the fork."""

    def __init__(self) -> None:
        #: the same number in the worker, where it is given to `arm`
        self.fd = os.memfd_create("moorage stacks")  # closed by exec

    def read(self) -> str:
        """What was written so far; threads that are at the same place are told once.  Empty: nothing was."""
        # From the start, and without moving the position: the worker writes at it, since a fork shares it.
        return fold(os.pread(self.fd, MOST_BYTES, 0).decode(errors="replace"))

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def fold(stacks: str) -> str:
    """Stacks as `faulthandler` writes them, with equal ones told once: a pool has a thousand that wait for work."""
    places: dict[str, list[str]] = {}  # in the order of their first thread
    for paragraph in stacks.strip().split("\n\n"):
        heading, _, place = paragraph.partition("\n")
        key = place if heading.startswith("Thread ") else paragraph
        places.setdefault(key, []).append(paragraph)
    return "\n\n".join(
        same[0] if len(same) == 1 else f"{len(same)} threads (most recent call first):\n{place}"
        for place, same in places.items()
    )
