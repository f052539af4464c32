"""A crowd of clients, in a process of its own: one epoll loop, thousands of sockets.

Run as a program: the argument is JSON with `address`, `good`, `mute` and `seconds`.  Good clients connect, echo
once and close, and try again whatever goes wrong; mute ones connect, say nothing, and leave when they are told.
Mute ones come first, so that the good ones find them in their way.  It prints one line of JSON at the end.
"""

import errno
import json
import resource
import select
import socket
import sys
import time
from typing import Any

HELLO = b"hello, server\n"
IN_PROGRESS = {0, errno.EINPROGRESS}
AGAIN = 0.2  # seconds before another try


class Visit:
    """One client."""

    def __init__(self, is_mute: bool) -> None:
        self.is_mute = is_mute
        self.sock: socket.socket | None = None
        self.answer = b""
        self.is_connected = False
        self.tries = 0
        self.again_at = 0.0

    def go(self, address: Any) -> int:
        """Begin to connect; returns the descriptor."""
        self.leave()
        self.tries += 1
        self.sock = socket.socket()
        self.sock.setblocking(False)
        code = self.sock.connect_ex(address)
        if code not in IN_PROGRESS:
            raise OSError(code, "connect")
        return self.sock.fileno()

    def proceed(self, mask: int) -> bool:
        """Do what can be done; whether this visit is over, and well."""
        assert self.sock is not None
        if not self.is_connected:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, "connect")
            self.is_connected = True
            if not self.is_mute:
                self.sock.send(HELLO)
            return False
        if not mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return False
        data = self.sock.recv(1000)
        self.answer += data
        if self.answer == HELLO or (self.is_mute and not data):
            return True
        if not data:
            raise ConnectionError("the stream ended before the answer")
        return False

    def leave(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock, self.answer, self.is_connected = None, b"", False


class Crowd:
    """All of them."""

    def __init__(self, address: Any, good: int, mute: int, seconds: float) -> None:
        self._address = tuple(address)
        self._deadline = time.monotonic() + seconds
        self._epoll = select.epoll()
        self._here: dict[int, Visit] = {}
        self._waiting = [Visit(True) for _ in range(mute)] + [Visit(False) for _ in range(good)]
        self._good = good
        self.served = self.dismissed = self.errors = self.most = 0

    def run(self) -> None:
        while self.served < self._good and time.monotonic() < self._deadline:
            self._send_in()
            for fd, mask in self._epoll.poll(0.05, 1000):
                visit = self._here[fd]
                try:
                    if visit.proceed(mask):
                        self._over(fd, visit)
                    else:
                        self._epoll.modify(fd, select.EPOLLIN)
                except OSError:
                    self._again(fd, visit)

    def _send_in(self) -> None:
        now, later = time.monotonic(), []
        for visit in self._waiting:
            if visit.again_at > now:
                later.append(visit)
                continue
            fd = visit.go(self._address)
            self._here[fd] = visit
            self._epoll.register(fd, select.EPOLLOUT)
        self._waiting = later
        self.most = max(self.most, len(self._here))

    def _over(self, fd: int, visit: Visit) -> None:
        self._gone(fd, visit)
        if visit.is_mute:
            self.dismissed += 1
        else:
            self.served += 1

    def _again(self, fd: int, visit: Visit) -> None:
        self._gone(fd, visit)
        self.errors += 1
        if not visit.is_mute:
            visit.again_at = time.monotonic() + AGAIN
            self._waiting.append(visit)

    def _gone(self, fd: int, visit: Visit) -> None:
        self._epoll.unregister(fd)
        del self._here[fd]
        visit.leave()

    def close(self) -> None:
        for visit in self._here.values():
            visit.leave()
        self._epoll.close()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    begun = time.monotonic()
    crowd = Crowd(**json.loads(sys.argv[1]))
    crowd.run()
    result = {name: getattr(crowd, name) for name in ("served", "dismissed", "errors", "most")}
    print(json.dumps({**result, "seconds": round(time.monotonic() - begun, 2)}))
    crowd.close()


if __name__ == "__main__":
    main()
