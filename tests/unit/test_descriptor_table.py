"""The kernel's list of open files, grown before the first client."""

import os
import re
import resource
from pathlib import Path

import pytest

from moorage.descriptor_table import grow_descriptor_table


def size_of_table() -> int:
    found = re.search(r"^FDSize:\s*(\d+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def grown_in_a_child(files: int) -> bool:
    """Whether a forked child, whose table is a small one, has room for so many and nothing more open than before."""
    pid = os.fork()
    if pid == 0:
        before = len(os.listdir("/proc/self/fd"))
        grow_descriptor_table(files)
        os._exit(0 if size_of_table() >= files and len(os.listdir("/proc/self/fd")) == before else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_table_grown_has_room_and_nothing_is_open() -> None:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1_000:
        pytest.skip("the limit of open files is too low for this test")
    assert grown_in_a_child(1_000)


def test_table_above_the_limit_grows_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (700, 700))
    assert grown_in_a_child(700)
    grow_descriptor_table(10_000_000)
    assert size_of_table() < 10_000_000
