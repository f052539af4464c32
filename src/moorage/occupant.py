"""Occupant: the process that already listens where we want to.

Owns      the search through /proc, and the words for a process: `nginx (pid 812)`.
Promises  a name or None; never an exception: it only adorns the sentence of an error.
Refuses   to be asked in the normal course of things: the search reads every process's descriptors.
Why       "address already in use" sends every operator to look for exactly this.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"  # TCP_LISTEN in the column `st` of /proc/net/tcp
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


def occupant_of_port(port: int) -> str | None:
    """The process that listens on this TCP port; None when /proc does not tell."""
    inodes = set(_listening_inodes(port))
    if not inodes:
        return None
    pid = next((pid for pid in _processes() if not inodes.isdisjoint(_socket_inodes(pid))), None)
    return None if pid is None else describe_process(pid)


def occupant_of_peer(sock: socket.socket) -> str | None:
    """The process that listens at the other end of this connected Unix socket."""
    with suppress(OSError):
        pid, _, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if pid > 0:  # 0: of another pid namespace, or not connected
            return describe_process(pid)
    return None


def describe_process(pid: int) -> str:
    """`name (pid N)`, or only the number when the process is gone or hidden."""
    with suppress(OSError):
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
    return f"pid {pid}"


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                    yield columns[9]


def _processes() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def _socket_inodes(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # closed meanwhile
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("socket:["):
                    yield target[8:-1]
