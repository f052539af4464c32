"""Forms: how the values of settings are written as text.

Owns      one reader for each kind of value: "30s", "64KiB", "on", "0o660", "60/15/4",
          "10.0.0.0/8 ::1"; and what a word of a list may be.
Promises  text that is not of the form raises `ValueError`, whatever the text.
Refuses   to guess: no "5 minutes", no "64k" (1000 or 1024?), no sums such as "1m30s".
"""

import ipaddress
import os
import re
import shlex
from collections.abc import Callable, Mapping

from .settings import KIB, MIB

SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": 1024 * MIB}
ON = frozenset({"on", "yes", "true", "1"})
OFF = frozenset({"off", "no", "false", "0"})
#: how an operator says None, where a setting takes it
NONE = frozenset({"off", "none"})

_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,30})?) ?([A-Za-z]*)", re.ASCII)
_RATE = re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,30})?) ?(?:/ ?([smh]))?", re.ASCII)
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_OCTAL = re.compile(r"(?:0o)?([0-7]{1,6})", re.ASCII)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)", re.ASCII | re.DOTALL)
_ESCAPES = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def read_time(text: str) -> float:
    """Seconds: `30`, `1.5`, `500ms`, `30s`, `5m`, `2h`, `1d`."""
    number, factor = _quantity(text, SECONDS)
    return float(number) * factor


def read_size(text: str) -> int:
    """Bytes: `65536`, `64KiB`, `1.5MiB`."""
    number, factor = _quantity(text, BYTES)
    size = float(number) * factor if "." in number else int(number) * int(factor)
    if size != int(size):
        raise ValueError(text)
    return int(size)


def read_flag(text: str) -> bool:
    """`on`, `yes`, `true`, `1`, or the opposites."""
    word = text.strip().lower()
    if word not in ON | OFF:
        raise ValueError(text)
    return word in ON


def read_count(text: str) -> int:
    """A whole number."""
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(text)
    return int(text)


def read_workers(text: str) -> int:
    """A whole number; `auto` is one for each CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if text.strip().lower() == "auto" else read_count(text)


def read_octal(text: str) -> int:
    """Permissions: `660` or `0o660`, octal either way."""
    match = _OCTAL.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return int(match[1], 8)


def read_triple(text: str) -> tuple[int, ...]:
    """Whole numbers between slashes; a comma would end the option in `--bind`."""
    return tuple(read_count(part) for part in text.split("/"))


def read_words(text: str) -> tuple[str, ...]:
    """Words between blanks, in quotes where one has blanks itself; `none` and `off` are no word at all."""
    return () if text.strip().lower() in NONE else tuple(shlex.split(text))


def read_rate(text: str) -> float:
    """How many a second: `100`, `0.5`, `100/s`, `30/m`, `10/h`."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return float(match[1]) / SECONDS[match[2] or "s"]


def check_network(text: str) -> None:
    """A network such as `10.0.0.0/8`, `2001:db8::/32`, one address, or `all`."""
    if text != "all":
        ipaddress.ip_network(text)


def check_word(text: str) -> None:
    """One of a list: it can be a path, and does not say that the list is empty."""
    if text.lower() in NONE:
        raise ValueError(text)
    read_text(text)


def read_text(text: str) -> str:
    """Text that can be a path: not empty, no NUL."""
    if not text or "\0" in text:
        raise ValueError(text)
    return text


def read_payload(text: str, shell: bool = False) -> bytes:
    r"""Bytes to send; from a shell `\r`, `\n`, `\t`, `\0`, `\\` and `\xNN` stand for what they say."""
    if not shell:
        return text.encode()
    parts = _ESCAPE.split(text)  # text, escape, text, escape, ..., text
    plain = (part.encode("utf-8", "surrogateescape") for part in parts[::2])
    escapes = [*map(_unescape, parts[1::2]), b""]
    return b"".join(text + escape for text, escape in zip(plain, escapes, strict=True))


def _unescape(escape: str) -> bytes:
    if len(escape) == 3:
        return bytes.fromhex(escape[1:])
    if escape not in _ESCAPES:
        raise ValueError(escape)
    return _ESCAPES[escape]


def _quantity(text: str, units: Mapping[str, float]) -> tuple[str, float]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(text)
    return match[1], units[match[2].lower()]


#: The reader for each kind of value.
READERS: dict[str, Callable[[str], object]] = {
    "choice": str, "count": read_count, "flag": read_flag, "networks": read_words, "octal": read_octal,
    "paths": read_words, "payload": read_payload, "rate": read_rate, "size": read_size, "text": read_text,
    "time": read_time, "triple": read_triple, "words": read_words, "workers": read_workers,
}  # fmt: skip
