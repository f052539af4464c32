"""Services: the small protocols of RFC 862 to 868, ready to serve.

Owns      echo, discard, chargen, daytime and time, each as a function handler.
Promises  each ends when its client does, and stops at a drain; none holds more than one buffer.
Why       they try out an installation, and are the shortest examples of a function handler.
"""

import time as clock
from collections.abc import Callable

from .connection import Connection

#: as in the recipe; larger buffers gain nothing below 64 KiB messages
BUFFER = 8192
#: seconds from 1900-01-01, where RFC 868 begins, to 1970-01-01, where Unix does
EPOCH_1900 = 2_208_988_800

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_PRINTABLE = bytes(range(32, 127))
#: RFC 864: 95 lines of 72 characters, each beginning one character later; joined, one full turn
CHARGEN = b"".join((_PRINTABLE * 2)[start : start + 72] + b"\r\n" for start in range(len(_PRINTABLE)))


def echo(conn: Connection) -> None:
    """Send back what comes (RFC 862)."""
    while data := conn.recv(BUFFER):
        conn.sendall(data)


def discard(conn: Connection) -> None:
    """Throw away what comes (RFC 863)."""
    while conn.recv(BUFFER):
        pass


def chargen(conn: Connection) -> None:
    """Send lines of characters until the client has enough (RFC 864)."""
    while not conn.draining:
        conn.sendall(CHARGEN)


def daytime(conn: Connection) -> None:
    """Send the date and time as a line for people, in UTC whatever the locale (RFC 867)."""
    conn.sendall(daytime_line(clock.time()))


def time(conn: Connection) -> None:
    """Send the seconds since 1900 as four bytes (RFC 868); they begin anew in 2036."""
    conn.sendall(time_bytes(clock.time()))


def daytime_line(now: float) -> bytes:
    """The line that `daytime` sends at a moment."""
    moment = clock.gmtime(now)
    day, month = _DAYS[moment.tm_wday], _MONTHS[moment.tm_mon - 1]
    return f"{day}, {month} {moment.tm_mday}, {moment.tm_year} {clock.strftime('%H:%M:%S', moment)}-UTC\r\n".encode()


def time_bytes(now: float) -> bytes:
    """The bytes that `time` sends at a moment."""
    return ((int(now) + EPOCH_1900) % 2**32).to_bytes(4, "big")


#: What `moorage serve NAME` serves.
SERVICES: dict[str, Callable[[Connection], None]] = {
    "chargen": chargen, "daytime": daytime, "discard": discard, "echo": echo, "time": time,
}  # fmt: skip
