"""Addresses: where a listener listens, as written by the operator.

Owns      the four kinds of address and how they are written.
Promises  what `parse_address` takes, `str()` gives back; a mistake is one sentence saying how to write it.
Refuses   to resolve names or to touch the file system: the listener does, once, at start;
          an empty host, which would open the server to the world by accident.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Any, Literal

from ..errors import SettingError

#: `sockaddr_un.sun_path` has 108 bytes, the last of them a NUL (unix(7))
UNIX_PATH_LIMIT = 107
#: a host name: no blanks, slashes or control characters; whether it exists is found out at start
_HOST = re.compile(r"[A-Za-z0-9_.\-]{1,253}", re.ASCII)
#: RFC 4291 2.5.5.2: an IPv4 address as an IPv6 socket sees it
_MAPPED = "::ffff:"
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
#: systemd.socket(5), FileDescriptorName=: at most 255 ASCII characters, neither control characters nor a colon
_FD_NAME = re.compile(r"[\x20-\x39\x3b-\x7e]{1,255}")
_CONTROL = re.compile(r"[\x01-\x1f\x7f-\x9f]")
#: a longer address is shown shortened in a sentence; a path of the greatest length is shown whole
_SHOWN = 120
FORMS = "host:port, [v6]:port, unix:/path, unix:@abstract, fd://3 or systemd:name"


@dataclass(frozen=True)
class Address:
    """One address; `path` of a name in the abstract namespace begins with `@`."""

    kind: Literal["tcp", "unix", "fd", "systemd"]
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1
    #: what the service manager calls its socket (`FileDescriptorName=`)
    name: str = ""

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "fd":
            return f"fd://{self.fd}"
        if self.kind == "systemd":
            return f"systemd:{self.name}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, place: str = "") -> Address:
    """The address that `text` means; `SettingError`, which names the place, when it means none."""
    try:
        return _parse(text)
    except ValueError as error:
        where = f" ({place})" if place else ""
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        raise SettingError(f"the address {shown!r}{where} cannot be used: {error}") from None


def describe(address: object) -> str:
    """An address of the socket module as one word without control characters; never resolves a name."""
    match address:
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case "" | None:
            return "unix"
        case bytes():
            return "unix:" + _printable(os.fsdecode(address).replace("\0", "@", 1))
        case str():
            return "unix:" + _printable(address.replace("\0", "@", 1))
    return _printable(str(address))


def plain_address(addr: Any) -> Any:
    """The address of an IPv4 peer or end as IPv4 writes it, also where a dual-stack socket maps it."""
    if type(addr) is tuple and len(addr) == 4 and addr[0].startswith(_MAPPED) and "." in addr[0]:
        return addr[0][len(_MAPPED) :], addr[1]
    return addr


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _parse(text: str) -> Address:
    for prefix, parse in _KINDS.items():
        if text.startswith(prefix):
            return parse(text.removeprefix(prefix))
    return _parse_host(text)


def _parse_unix(path: str) -> Address:
    if path in ("", "@"):
        raise ValueError("it has no path: write unix:/path or unix:@name")
    if "\0" in path:
        raise ValueError("a path cannot hold a NUL byte; write unix:@name for the abstract namespace")
    if _CONTROL.search(path):  # it would write lines of its own into logs and sentences
        raise ValueError("a path cannot hold control characters")
    if len(path.encode("utf-8", "surrogateescape")) > UNIX_PATH_LIMIT:
        raise ValueError(f"the kernel allows a Unix socket's path at most {UNIX_PATH_LIMIT} bytes")
    return Address("unix", path=path)


def _parse_fd(number: str) -> Address:
    if not _NUMBER.fullmatch(number) or int(number) >= 1 << 31:
        raise ValueError("write fd:// and the number of an inherited descriptor, such as fd://3")
    return Address("fd", fd=int(number))


def _parse_systemd(name: str) -> Address:
    if not _FD_NAME.fullmatch(name):
        raise ValueError("write systemd: and the name that the socket unit gives with FileDescriptorName=")
    return Address("systemd", name=name)


def _parse_v6(text: str) -> Address:
    host, bracket, port = text.partition("]")
    try:
        IPv6Address(host)
    except AddressValueError:
        raise ValueError("between the brackets belongs an IPv6 address, such as [::1]:20000") from None
    if not bracket or not port.startswith(":"):
        raise ValueError("the port is missing: write [::1]:20000")
    return Address("tcp", host=host, port=_parse_port(port[1:]))


def _parse_host(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"write {FORMS}")
    if not host:
        raise ValueError(f"the host is missing: write 127.0.0.1:{port}, or 0.0.0.0:{port} to serve every network")
    if ":" in host and not host.strip("0123456789abcdefABCDEF:."):
        raise ValueError(f"an IPv6 address goes in brackets: [{host}]:{port}")
    if not _HOST.fullmatch(host) or not port.strip("/").isdecimal():
        raise ValueError(f"it is of no known kind: write {FORMS}, with a number for the port")
    return Address("tcp", host=host, port=_parse_port(port))


def _parse_port(port: str) -> int:
    if not _NUMBER.fullmatch(port) or int(port) > 65535:
        raise ValueError("a port is a number from 0 to 65535, of which 0 lets the kernel choose")
    return int(port)


_KINDS: dict[str, Callable[[str], Address]] = {
    "unix:": _parse_unix,
    "fd://": _parse_fd,
    "systemd:": _parse_systemd,
    "[": _parse_v6,
}
