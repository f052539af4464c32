"""What the operating system is asked: CPU and memory of a server, cores, compiler, facts.

Owns      reading /proc and the CPU clocks; compiling the C programs into .cache/bench.
Promises  CPU is user + system of the process, of all its threads (ended ones too) and of all its children;
          clocks tick in nanoseconds, save for children that have ended (rounded to 10 ms in total).
Refuses   systems other than Linux, in one sentence.
"""

import contextlib
import functools
import os
import platform
import re
import resource
import shutil
import ssl
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

__all__ = ["CannotMeasure", "compiled", "cores", "cpu_seconds", "facts", "load_average", "need_files", "resident_kib"]

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / ".cache" / "bench"
TICK = os.sysconf("SC_CLK_TCK")
RIVALS = ("moorage", "uvloop", "gevent", "greenlet")


class CannotMeasure(Exception):
    """Nothing can be measured here; the text says what is missing."""


@functools.cache  # asked for the first time before we pin ourselves
def cores() -> tuple[int, int]:
    """The server's core and the load's core."""
    if not hasattr(os, "sched_getaffinity"):
        raise CannotMeasure("the benchmarks read Linux's CPU clocks and need Linux")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise CannotMeasure("the benchmarks need two cores, one for the server and one for the load; this is one")
    return allowed[0], allowed[1]


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used: its threads, its living children, its ended and reaped children."""
    clock = (~pid << 3) | 2  # CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) makes it
    used = time.clock_gettime(clock)
    for child in children(pid):
        with contextlib.suppress(OSError):  # reaped since it was listed: its time is in the next line
            used += cpu_seconds(child)
    return used + reaped_seconds(Path(f"/proc/{pid}/stat").read_text())


def reaped_seconds(stat: str) -> float:
    """cutime + cstime out of the text of /proc/PID/stat; the name in it may hold spaces and brackets."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / TICK


def children(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in lists for child in each.read_text().split()]


def resident_kib(pid: int) -> int:
    """Resident memory of a process, exact (smaps_rollup), unlike VmRSS, which lags by some pages for each CPU."""
    match = re.search(r"^Rss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    if match is None:
        raise CannotMeasure(f"no Rss line in /proc/{pid}/smaps_rollup")
    return int(match[1])


def compiled(source: Path) -> Path:
    """The program made from one C file, compiled again when the file is newer."""
    program = BUILT / source.stem
    if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
        return program
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise CannotMeasure("no C compiler: install one (cc), or name it in CC; the load and one rival are C programs")
    BUILT.mkdir(parents=True, exist_ok=True)
    fresh = program.with_suffix(f".{os.getpid()}")
    command = [compiler, "-O2", "-Wall", "-o", str(fresh), str(source)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise CannotMeasure(f"{source.name} does not compile:\n{done.stderr}")
    fresh.replace(program)
    return program


def need_files(count: int) -> None:
    """Raise our soft limit of open files as far as it goes, for the children to inherit; refuse when that will not do."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < count:
        raise CannotMeasure(f"this needs {count:,} open files in one process, and the hard limit is {hard:,}: raise it")


def load_average() -> float:
    return os.getloadavg()[0]


def facts() -> dict[str, object]:
    """What the numbers depend on."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    siblings = Path(f"/sys/devices/system/cpu/cpu{cores()[0]}/topology/thread_siblings_list")
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "server_core": cores()[0],
        "load_core": cores()[1],
        "siblings_of_server_core": siblings.read_text().strip() if siblings.exists() else "unknown",
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "openssl": ssl.OPENSSL_VERSION,
        "versions": {name: version for name in RIVALS if (version := _version(name))},
        "load_average": load_average(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
