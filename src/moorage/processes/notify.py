"""Notify: tells the service manager how this program is.

Owns      the variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, which it takes out of the environment:
          a worker, or what a handler starts, does not speak for the service.
Promises  the protocol of sd_notify(3); never blocks; never raises, for a service is no worse when nobody listens:
          one warning when a manager cannot be told.  What its full socket did not take goes out with the next word.
Refuses   to keep a socket open, which every fork would have to close.
"""

import logging
import os
import socket
import time
from collections.abc import MutableMapping

from ..observe.logs import LOGGER

SOCKET, WATCHDOG_USEC, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class Notifier:
    """The way to the service manager of this environment; without one every call does nothing."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        said = {name: environ.pop(name, "") for name in (SOCKET, WATCHDOG_USEC, WATCHDOG_PID)}
        self._late: list[str] = []  # what the manager's full socket did not take
        self._is_warned = False
        self._address = self._read(said[SOCKET])
        #: how often to call `watchdog`: at half of the time that the manager waits for it; None: it does not
        self.watchdog_seconds = _half(said[WATCHDOG_USEC], said[WATCHDOG_PID]) if self._address else None

    def ready(self, status: str = "") -> None:
        """The start, or a reload, is complete."""
        self._say("READY=1", *_status(status))

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it, also when it failed."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The end has begun."""
        self._say("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for people: `systemctl status` shows it."""
        self._say(*_status(text))

    def main_pid(self, pid: int) -> None:
        """Another process is the service from now on; the manager takes this only from the one before."""
        self._say(f"MAINPID={pid}")

    def watchdog(self) -> None:
        """This process turns; to be called every `watchdog_seconds`, if not oftener."""
        if self.watchdog_seconds is not None:
            self._say("WATCHDOG=1")

    def _read(self, text: str) -> str:
        """The address for the socket module; empty when there is nobody to tell."""
        if not text:
            return ""
        if text[0] not in "/@" or len(text) == 1:
            self._warn(f"{SOCKET} is {text!r}, and neither a path nor an abstract name")
            return ""
        return f"\0{text[1:]}" if text[0] == "@" else text

    def _say(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        self._late += lines
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(self._late).encode("utf-8", "replace"), self._address)
        except BlockingIOError:
            self._late = list(dict.fromkeys(self._late))  # bounded: there are few different words
            return
        except (OSError, ValueError) as error:  # ValueError: an address with a NUL
            self._warn(f"the service manager at {self._address.replace(chr(0), '@')} cannot be told: {error}")
        self._late = []

    def _warn(self, sentence: str) -> None:
        if not self._is_warned:
            self._is_warned = True
            logging.getLogger(LOGGER).warning("%s", sentence)


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.split())}"] if text else []


def _half(microseconds: str, pid: str) -> float | None:
    if pid and pid != str(os.getpid()):
        return None
    try:
        return int(microseconds) / 2e6 if int(microseconds) > 0 else None
    except ValueError:
        return None
