"""Descriptor table: the kernel's list of this process's open files, grown before the first client.

Owns      the one call that makes it large enough.
Promises  that nothing stays open, and that nothing fails: at a lower limit of open files it makes what room there is.
Refuses   to raise that limit; see processes.descriptors.
Why       Linux doubles the table when it is full, and in a process with threads waits for all CPUs to see the new one
          (`synchronize_rcu` in `expand_fdtable`): with 256, 512, 1,024, ... connections everybody stood still for 8 to
          20 ms.  A fork takes along only what is in use, so every worker does it for itself.
"""

import contextlib
import fcntl
import os
import resource


def grow_descriptor_table(files: int) -> None:
    """Have room for so many open files at once."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = files if soft == resource.RLIM_INFINITY else min(files, soft)
    with contextlib.suppress(OSError), open(os.devnull, "rb") as null:
        os.close(fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, highest - 1))
