"""Machine: what the system says about itself, and about who is to serve.

Owns      every look at /proc, at control groups, limits and accounts; the checks see nothing else but files by `stat`.
Promises  None stands for "no limit" and for "the system does not tell"; reading never fails.
Why       one seam: a test of a check makes a machine of any size, and none of ours.
"""

import grp
import os
import pwd
import resource
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
#: include/uapi/linux/capability.h
_CAP_NET_BIND_SERVICE = 10
#: control groups of version 1 say "no limit" with a number near this
_NO_LIMIT = 1 << 60
#: in memory.stat of versions 2 and 1: files the kernel has read for the group, which it gives back before it kills
_CACHE = frozenset({"inactive_file", "active_file"})
_CACHE_1 = frozenset({"total_inactive_file", "total_active_file"})


@dataclass(frozen=True)
class Account:
    """The user who serves, and all its groups."""

    name: str
    uid: int
    groups: frozenset[int]

    def may(self, found: os.stat_result, bits: int) -> bool:
        """Whether the mode lets this user read (4), write (2), enter (1), or several of them (their sum)."""
        if self.uid == 0:
            return True
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.groups else 0
        return stat.S_IMODE(found.st_mode) >> shift & bits == bits


@dataclass(frozen=True)
class Machine:
    """Numbers of this machine; None: no limit, or unknown."""

    #: open files of a process: the soft limit, which is raised as needed, and the hard one
    soft_files: int | None = None
    hard_files: int | None = None
    #: processes and threads: of this user, of this control group (what is left), of the whole system
    user_tasks: int | None = None
    group_tasks: int | None = None
    system_tasks: int | None = None
    #: bytes that are left: of the host, of this control group
    memory: int | None = None
    group_memory: int | None = None
    #: net.core.somaxconn, net.ipv4.tcp_max_syn_backlog, tcp_syncookies, tcp_fastopen, ip_unprivileged_port_start
    somaxconn: int | None = None
    syn_backlog: int | None = None
    has_syn_cookies: bool = True
    fast_open: int | None = None
    first_free_port: int = 1024
    #: the most a program may ask for (net.core), the most the kernel chooses itself (tcp_rmem), for all sockets (tcp_mem)
    receive_buffer: int | None = None
    send_buffer: int | None = None
    own_receive_buffer: int | None = None
    own_send_buffer: int | None = None
    tcp_memory: int | None = None
    cpus: int = 1
    #: who starts the server, and who serves (None: no such user or group)
    starter: int = 0
    may_bind_low: bool = True
    account: Account | None = field(default_factory=lambda: Account("root", 0, frozenset({0})))
    now: float = 0.0
    stat: Callable[[str], os.stat_result] = os.stat


def read_machine(
    user: str | None = None, group: str | None = None, proc: Path = PROC, cgroups: Path = CGROUPS
) -> Machine:
    """This machine, for a server that becomes this user and group."""
    net = proc / "sys" / "net"
    memory = _numbers(net / "ipv4" / "tcp_mem")
    return Machine(
        soft_files=_limit(resource.RLIMIT_NOFILE, 0),
        hard_files=_limit(resource.RLIMIT_NOFILE, 1),
        user_tasks=_limit(resource.RLIMIT_NPROC, 0),
        group_tasks=_least(_left(proc, cgroups, "pids", "pids.max", "pids.current")),
        system_tasks=_least([_number(proc / "sys/kernel/threads-max"), _number(proc / "sys/kernel/pid_max")]),
        memory=_available(proc),
        group_memory=_least([
            *_left(proc, cgroups, "", "memory.max", "memory.current", _CACHE),
            *_left(proc, cgroups, "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", _CACHE_1),
        ]),
        somaxconn=_number(net / "core/somaxconn"),
        syn_backlog=_number(net / "ipv4/tcp_max_syn_backlog"),
        has_syn_cookies=_number(net / "ipv4/tcp_syncookies") != 0,
        fast_open=_number(net / "ipv4/tcp_fastopen"),
        first_free_port=_number(net / "ipv4/ip_unprivileged_port_start") or 0,
        receive_buffer=_number(net / "core/rmem_max"),
        send_buffer=_number(net / "core/wmem_max"),
        own_receive_buffer=_last(net / "ipv4/tcp_rmem"),
        own_send_buffer=_last(net / "ipv4/tcp_wmem"),
        tcp_memory=memory[-1] * resource.getpagesize() if memory else None,
        cpus=len(os.sched_getaffinity(0)),
        starter=os.geteuid(),
        may_bind_low=bool(_capabilities(proc) >> _CAP_NET_BIND_SERVICE & 1),
        account=find_account(user, group),
        now=time.time(),
    )  # fmt: skip


def find_account(user: str | None, group: str | None) -> Account | None:
    """Who serves with these settings; None when this host does not know the user or the group."""
    try:
        if user is None:
            name, uid, gid, groups = str(os.geteuid()), os.geteuid(), os.getegid(), set(os.getgroups())
        else:
            entry = _entry(user)
            name, uid, gid = user, entry.pw_uid, entry.pw_gid
            groups = set(os.getgrouplist(entry.pw_name, gid))
        if group is not None:
            groups.discard(gid)
            gid = _gid(group)
    except (KeyError, ValueError, OverflowError):
        return None
    return Account(name, uid, frozenset({*groups, gid}))


def _entry(user: str) -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam(user)
    return pwd.getpwuid(int(user))


def _gid(group: str) -> int:
    with suppress(KeyError):
        return grp.getgrnam(group).gr_gid
    return int(group)


def _limit(which: int, number: int) -> int | None:
    value = resource.getrlimit(which)[number]
    return None if value == resource.RLIM_INFINITY else value


def _available(proc: Path) -> int | None:
    for line in _text(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _sum(path: Path, names: frozenset[str]) -> int:
    """What these lines of a file `NAME NUMBER` say together."""
    found = (line.partition(" ") for line in _text(path).splitlines())
    return sum(int(value) for name, _, value in found if name in names and value.isdecimal())


def _capabilities(proc: Path) -> int:
    for line in _text(proc / "self/status").splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0


def _left(
    proc: Path, cgroups: Path, controller: str, limit: str, used: str, cache: frozenset[str] = frozenset()
) -> Iterator[int]:
    """What is left in our control group and in each above it; a controller of version 1 has a tree of its own."""
    for line in _text(proc / "self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names == "":
            root = cgroups
        elif controller in names.split(","):
            root = cgroups / controller
        else:
            continue
        folder = root / path.lstrip("/")
        for one in (folder, *folder.parents):
            most, now = _number(one / limit), _number(one / used)
            if most is not None and most < _NO_LIMIT:
                held = (now or 0) - _sum(one / "memory.stat", cache)
                yield max(0, most - max(0, held))
            if one == root:
                break


def _least(numbers: "Iterator[int] | list[int | None]") -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _number(path: Path) -> int | None:
    numbers = _numbers(path)
    return numbers[0] if numbers else None


def _last(path: Path) -> int | None:
    numbers = _numbers(path)
    return numbers[-1] if numbers else None


def _numbers(path: Path) -> list[int]:
    try:
        return [int(word) for word in _text(path).split()]
    except ValueError:  # "max"
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
