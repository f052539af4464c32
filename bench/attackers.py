"""Attackers: thousands of clients that mean no good, in a process of their own: one epoll loop, no threads.

Run as a program: the argument is JSON, the fields of `Task`.  Each attacker comes from an address of its own in
127.0.0.0/8 and waits until the server ends its connection.  It prints a line of JSON when all have come, and one at the
end: what became of each kind.  It ends when all are gone, or when `seconds` are over.

Owns      the sockets of the attackers.
Promises  how long each stayed is measured from what the server's deadline begins with: the connection, the first byte
          of a begun line, the request whose answer nobody reads.
          With `is_meek` it gives way to every other process on its core: who measures beside it measures the server.

mute      says nothing
drip      begins a line and goes on with a byte every `drip_every` seconds
unread    asks for much, three times, and does not read
hello     sends the first byte of a TLS ClientHello and stops
"""

import contextlib
import errno
import heapq
import json
import os
import random
import resource
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
FIRST_WORDS = {"mute": b"", "drip": b"x", "unread": b"big\n" * 3, "hello": b"\x16"}
IN_PROGRESS = {0, errno.EINPROGRESS}
BACKLOG_FULL = {errno.EAGAIN, errno.ECONNREFUSED}  # what a Unix socket says; TCP tries again by itself
IP_BIND_ADDRESS_NO_PORT = 24  # from linux/in.h; else each would search for a port among thousands
NARROW = 4096  # bytes that the kernel takes for one who does not read
NETWORK = 0x7F420000  # 127.66.0.0/16: room for 65,536 addresses
AT_ONCE = 100  # connections begun in one turn of the loop


@dataclass(frozen=True)
class Task:
    """What to do: `crowd` is how many of each kind, `address` what the socket module calls one."""

    address: Any
    crowd: dict[str, int]
    seconds: float
    pace: float = 4000.0  # connections a second
    drip_every: float = 10.0
    is_meek: bool = False


@dataclass
class Fate:
    """What became of those of one kind; times are seconds of their stay."""

    count: int = 0
    gone: int = 0  # ended by the server
    soonest: float = 1e9
    latest: float = 0.0
    ends: dict[str, int] = field(default_factory=dict)  # end of stream, or the name of an error

    def add(self, stay: float, end: str) -> None:
        self.gone += 1
        self.soonest, self.latest = min(self.soonest, stay), max(self.latest, stay)
        self.ends[end] = self.ends.get(end, 0) + 1


class Attacker:
    """One of them."""

    __slots__ = ("begun", "kind", "number", "sock")

    def __init__(self, number: int, kind: str) -> None:
        self.number = number
        self.kind = kind
        self.sock: socket.socket
        self.begun = 0.0  # 0: not connected yet

    def go(self, address: Any) -> int:
        """Begin to connect; the error number."""
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.sock.setblocking(False)
        if self.kind == "unread":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
        if self.sock.family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            self.sock.bind((socket.inet_ntoa((NETWORK + self.number).to_bytes(4, "big")), 0))
        return self.sock.connect_ex(address)

    def begin(self) -> None:
        """Connected: say the first words."""
        self.begun = time.monotonic()
        if words := FIRST_WORDS[self.kind]:
            self.sock.send(words)

    def end(self) -> str:
        """How the server has ended it."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.sock.close()
        return errno.errorcode[code] if code else "end of stream"


class Attack:
    """All of them."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._address = tuple(task.address) if isinstance(task.address, list) else task.address
        kinds = list(Counter(task.crowd).elements())
        random.Random(1).shuffle(kinds)  # a crowd comes mixed: each kind at its share of the pace, in each run the same
        self._coming = [Attacker(number, kind) for number, kind in enumerate(kinds)]
        self._all = len(self._coming)
        self._here: dict[int, Attacker] = {}
        self._drips: list[tuple[float, int, Attacker]] = []
        self._connected = 0
        self._epoll = select.epoll()
        self.fates = {kind: Fate(count) for kind, count in task.crowd.items()}

    def run(self) -> None:
        self._begun = time.monotonic()
        is_told = False
        while (self._here or self._coming) and time.monotonic() < self._begun + self._task.seconds:
            self._send_in()
            self._drip()
            for fd, mask in self._epoll.poll(0.01, 1000):
                self._look(fd, mask)
            if not is_told and self._connected == self._all:
                is_told = True
                say({"here": self._connected, "seconds": round(time.monotonic() - self._begun, 2)})

    def _send_in(self) -> None:
        """As many as the pace allows by now."""
        allowed = int((time.monotonic() - self._begun) * self._task.pace)
        for _ in range(min(AT_ONCE, allowed - (self._all - len(self._coming)))):
            if not self._coming:
                return
            attacker = self._coming.pop()
            code = attacker.go(self._address)
            if code in BACKLOG_FULL:
                attacker.sock.close()
                self._coming.append(attacker)
                return
            if code not in IN_PROGRESS:
                raise OSError(code, os.strerror(code))
            self._here[attacker.sock.fileno()] = attacker
            self._epoll.register(attacker.sock.fileno(), select.EPOLLOUT | ENDED)

    def _look(self, fd: int, mask: int) -> None:
        attacker = self._here[fd]
        if mask & ENDED:
            self._over(fd, attacker)
        elif not attacker.begun:
            with contextlib.suppress(ConnectionError):  # ended at once: seen in the next turn
                attacker.begin()
            self._connected += 1
            self._epoll.modify(fd, ENDED)
            if attacker.kind == "drip":
                heapq.heappush(self._drips, (attacker.begun + self._task.drip_every, attacker.number, attacker))

    def _drip(self) -> None:
        now = time.monotonic()
        while self._drips and self._drips[0][0] <= now:
            _, number, attacker = heapq.heappop(self._drips)
            if attacker.sock.fileno() < 0:  # gone
                continue
            with contextlib.suppress(ConnectionError):  # just gone
                attacker.sock.send(b"x")
            heapq.heappush(self._drips, (now + self._task.drip_every, number, attacker))

    def _over(self, fd: int, attacker: Attacker) -> None:
        self._epoll.unregister(fd)
        del self._here[fd]
        if not attacker.begun:  # refused, before it was connected as far as we know
            self._connected += 1
        stay = time.monotonic() - (attacker.begun or time.monotonic())
        self.fates[attacker.kind].add(stay, attacker.end())


def say(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    if task.is_meek:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    attack = Attack(task)
    attack.run()
    say({"fates": {kind: asdict(fate) for kind, fate in attack.fates.items()}})


if __name__ == "__main__":
    main()
