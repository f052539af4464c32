"""Machine: what is read from the system, and from a system that tells nothing."""

import grp
import os
import pwd
import stat
from pathlib import Path

import pytest

from moorage.doctor.machine import Account, find_account, read_machine

GIB = 1 << 30


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A /proc and control groups of version 2, of our making."""
    for path, text in {
        "proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    2048 kB\n",
        "proc/self/status": "Name:\tx\nCapEff:\t0000000000000400\n",
        "proc/self/cgroup": "0::/a/b\n",
        "proc/sys/kernel/threads-max": "9000\n",
        "proc/sys/kernel/pid_max": "8000\n",
        "proc/sys/net/core/somaxconn": "128\n",
        "proc/sys/net/core/rmem_max": "1\n",
        "proc/sys/net/core/wmem_max": "2\n",
        "proc/sys/net/ipv4/tcp_max_syn_backlog": "256\n",
        "proc/sys/net/ipv4/tcp_syncookies": "0\n",
        "proc/sys/net/ipv4/tcp_fastopen": "1\n",
        "proc/sys/net/ipv4/ip_unprivileged_port_start": "80\n",
        "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
        "proc/sys/net/ipv4/tcp_wmem": "4096\t16384\t4194304\n",
        "proc/sys/net/ipv4/tcp_mem": "10 20 30\n",
        "groups/a/memory.max": f"{4 * GIB}\n",
        "groups/a/memory.current": f"{3 * GIB}\n",
        "groups/a/b/memory.max": "max\n",
        "groups/a/b/memory.current": "5\n",
        "groups/a/b/pids.max": "100\n",
        "groups/a/b/pids.current": "40\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_every_number_is_read(fake: Path) -> None:
    found = read_machine(proc=fake / "proc", cgroups=fake / "groups")
    assert (found.memory, found.group_memory, found.group_tasks, found.system_tasks) == (2 << 20, GIB, 60, 8000)
    assert (found.somaxconn, found.syn_backlog, found.has_syn_cookies, found.fast_open) == (128, 256, False, 1)
    assert (found.receive_buffer, found.send_buffer, found.first_free_port, found.may_bind_low) == (1, 2, 80, True)
    assert (found.own_receive_buffer, found.own_send_buffer) == (6291456, 4194304)
    assert found.tcp_memory == 30 * os.sysconf("SC_PAGESIZE")


def test_control_groups_of_version_1_are_read(fake: Path) -> None:
    (fake / "proc/self/cgroup").write_text("9:cpu,memory:/m\n8:pids:/\n0::/\n")
    for path, text in {
        "memory/m/memory.limit_in_bytes": f"{GIB}",
        "memory/m/memory.usage_in_bytes": f"{GIB // 4}",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "pids/pids.max": "max",
    }.items():
        (fake / "groups" / path).parent.mkdir(parents=True, exist_ok=True)
        (fake / "groups" / path).write_text(text)
    found = read_machine(proc=fake / "proc", cgroups=fake / "groups")
    assert (found.group_memory, found.group_tasks) == (GIB * 3 // 4, None)


def test_files_that_the_kernel_keeps_for_a_group_count_as_left(fake: Path) -> None:
    (fake / "groups/a/memory.stat").write_text(
        f"anon {GIB}\nfile {2 * GIB}\ninactive_file {GIB}\nactive_file {GIB // 2}\nslab 7\n"
    )
    found = read_machine(proc=fake / "proc", cgroups=fake / "groups")
    assert found.group_memory == GIB * 5 // 2


def test_files_that_the_kernel_keeps_for_a_group_of_version_1_count_as_left(fake: Path) -> None:
    (fake / "proc/self/cgroup").write_text("9:memory:/m\n")
    (fake / "groups/memory/m").mkdir(parents=True)
    for name, text in {
        "memory.limit_in_bytes": f"{GIB}",
        "memory.usage_in_bytes": f"{GIB}",
        # the lines without `total_` leave out the groups below, whose use the number above counts
        "memory.stat": "inactive_file 1\nactive_file 2\ntotal_inactive_file 4096\ntotal_active_file 8192\n",
    }.items():
        (fake / "groups/memory/m" / name).write_text(text)
    assert read_machine(proc=fake / "proc", cgroups=fake / "groups").group_memory == 12288


def test_more_cache_than_use_leaves_no_more_than_the_limit(fake: Path) -> None:
    (fake / "groups/a/memory.stat").write_text(f"inactive_file {9 * GIB}\nactive_file damaged\n")
    assert read_machine(proc=fake / "proc", cgroups=fake / "groups").group_memory == 4 * GIB


def test_system_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    found = read_machine(proc=tmp_path, cgroups=tmp_path)
    assert (found.memory, found.group_memory, found.somaxconn, found.tcp_memory) == (None, None, None, None)
    assert not found.may_bind_low


def test_this_machine_is_read() -> None:
    found = read_machine()
    assert found.memory is None or found.memory > 0
    assert found.cpus == len(os.sched_getaffinity(0))
    assert found.starter == os.geteuid()
    assert found.account is not None
    assert found.account.uid == os.geteuid()


def test_account_is_found_by_name_and_number() -> None:
    entry = pwd.getpwuid(os.geteuid())
    by_name, by_number = find_account(entry.pw_name, None), find_account(str(entry.pw_uid), None)
    assert by_name is not None
    assert by_number is not None
    assert (by_name.uid, by_name.groups) == (by_number.uid, by_number.groups)
    assert entry.pw_gid in by_name.groups


def test_account_with_another_group_has_that_one() -> None:
    entry, group = pwd.getpwnam("nobody"), grp.getgrall()[0]
    account = find_account("nobody", group.gr_name)
    assert account is not None
    assert group.gr_gid in account.groups
    assert entry.pw_gid not in account.groups or entry.pw_gid == group.gr_gid


@pytest.mark.parametrize(
    ("user", "group"), [("nobody-at-all", None), (None, "nobody-at-all"), ("4000000000", None), ("-1", None)]
)
def test_account_that_this_host_does_not_know_is_none(user: str | None, group: str | None) -> None:
    assert find_account(user, group) is None


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "may"),
    [
        (0o400, 33, 0, True),
        (0o040, 33, 33, False),  # the owner is judged as the owner
        (0o040, 0, 44, True),
        (0o004, 0, 44, False),  # and the group as the group
        (0o004, 0, 0, True),
        (0o000, 33, 33, False),
    ],
)
def test_account_may_what_the_mode_lets_it(mode: int, uid: int, gid: int, may: bool) -> None:
    found = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))
    assert Account("www", 33, frozenset({33, 44})).may(found, 4) is may
    assert Account("root", 0, frozenset({0})).may(found, 4)
