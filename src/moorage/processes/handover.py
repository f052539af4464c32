"""Handover: listening sockets that come from whoever started this program, and go to the one that follows it.

Owns      the descriptors of `LISTEN_FDS` until somebody claims them; how a socket is named on its way.
Promises  the protocol of sd_listen_fds(3): descriptors from 3 on, in the order of their names; those meant for
          another process are left alone; what was promised and is not there is one sentence; the variables
          are gone afterwards, and nothing that this program starts inherits a socket by accident.
Refuses   to look what kind of socket it is: the listener does.
Why       systemd and the program before an upgrade speak the same way, so there is one way to begin.  A name may
          hold no colon, so that an address travels percent-encoded.
"""

import logging
import os
import re
import stat
from collections.abc import Mapping, MutableMapping, Sequence
from urllib.parse import quote, unquote

from ..config import parse_address
from ..errors import BindError, InheritError, SettingError
from ..observe.logs import LOGGER

#: SD_LISTEN_FDS_START: the first descriptor that is passed on
FIRST = 3
PID, COUNT, NAMES = "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"
#: all of the protocol; the last one is told by systemd from version 258 on, and says the same as LISTEN_PID
VARIABLES = (PID, COUNT, NAMES, "LISTEN_PIDFDID")
#: what sd_listen_fds_with_names(3) calls those that have no name
NAMELESS = "unknown"
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


class Inherited:
    """The sockets that were passed on, until they are claimed; made by `take`."""

    def __init__(self, named: Sequence[tuple[str, int]] = (), missing: str = "") -> None:
        self._left = list(named)
        self._missing = missing  # why there may be none, as the end of a sentence

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> "Inherited":
        """What this process was given; the variables are removed.  `InheritError` when it is not what they promise."""
        said = {name: environ.pop(name) for name in VARIABLES if name in environ}
        if PID not in said or COUNT not in said:
            return cls()
        if said[PID] != str(os.getpid()):
            return cls(
                missing=f"; {PID} is {said[PID]} and this is process {os.getpid()}, so they are meant for another one: "
                "let a shell start this program with `exec`"
            )
        count = _count(said[COUNT])
        names = _names(said.get(NAMES), count)
        taken = []
        for at, fd in enumerate(range(FIRST, FIRST + count)):
            name = names[at] if names else NAMELESS
            _check(fd, name)
            taken.append((name, fd))
        for _, fd in taken:
            os.set_inheritable(fd, False)
        return cls(taken)

    def named(self, name: str) -> list[int]:
        """The descriptors of this name, whose holder is the caller from here on."""
        taken = [fd for known, fd in self._left if known == name]
        self._left = [pair for pair in self._left if pair[1] not in taken]
        return taken

    def claim(self, bind: str) -> list[int]:
        """The sockets for this address, whose holder is the caller from here on; none when it has to be bound.

        `BindError` for `systemd:name` when there is none of that name.
        """
        found = self.named(encode(bind))
        if found:
            return found
        address = parse_address(bind)
        if address.kind == "fd":  # the operator may name one of them by its number
            found = [fd for _, fd in self._left if fd == address.fd]
            self._left = [pair for pair in self._left if pair[1] not in found]
        elif address.kind == "systemd":
            there_are = self._names()
            found = self.named(address.name)
            if not found:
                raise BindError(f"cannot listen on {bind}: no socket of that name was passed on{there_are}")
        return found

    def addresses(self) -> list[str]:
        """The addresses among those left, as `bind` writes them: the program before this one had bound them."""
        found = dict.fromkeys(unquote(name) for name, _ in self._left)
        return [name for name in found if _is_address(name)]

    def close_rest(self) -> None:
        """Close what nobody has claimed: clients would wait in its backlog for ever."""
        if not self._left:
            return
        rest = ", ".join(f"{unquote(name)} (fd {fd})" for name, fd in self._left)
        for _, fd in self._left:
            os.close(fd)
        self._left = []
        logging.getLogger(LOGGER).warning(
            "sockets were passed on that no setting asks for, and are closed: %s; `bind` takes them by their address, "
            "or as systemd:NAME",
            rest,
        )

    def _names(self) -> str:
        if self._missing:
            return self._missing
        names = dict.fromkeys(name for name, _ in self._left)
        return f"; there is {', '.join(names)}" if names else "; there is none, so start it by its socket unit"


def encode(name: str) -> str:
    """A name that may travel: without colons, blanks and whatever else could be misread."""
    return quote(os.fsencode(name), safe="")


def pass_on(sockets: Mapping[str, Sequence[int]], environ: Mapping[str, str]) -> tuple[dict[str, str], list[int]]:
    """The environment of the new program, and the descriptors in the order in which it finds them from 3 on.

    `LISTEN_PID` is to be set by the new process, which alone knows its number.
    """
    pairs = [(encode(name), fd) for name, fds in sockets.items() for fd in fds]
    passed = {name: value for name, value in environ.items() if name not in VARIABLES}
    passed[COUNT] = str(len(pairs))
    passed[NAMES] = ":".join(name for name, _ in pairs)
    return passed, [fd for _, fd in pairs]


def _is_address(name: str) -> bool:
    try:
        parse_address(name)
    except SettingError:
        return False
    return True


def _count(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise InheritError(f"{COUNT} is {text!r}, which is no number of sockets: whoever started this program erred")
    return int(text)


def _names(text: str | None, count: int) -> list[str]:
    """The names, as many as there are sockets, or none at all."""
    names = text.split(":") if text else []
    if names and len(names) != count:
        raise InheritError(
            f"{COUNT} promises {count} sockets and {NAMES} names {len(names)}: whoever started this program erred"
        )
    return names


def _check(fd: int, name: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        raise InheritError(
            f"{COUNT} promises a socket as descriptor {fd} ({name}), which is not open: "
            "whoever started this program has to leave it open"
        ) from None
    if not is_socket:
        raise InheritError(
            f"{COUNT} promises a socket as descriptor {fd} ({name}), which is none: "
            "whoever started this program has to pass on sockets only"
        )
