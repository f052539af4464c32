"""Rules: which networks' clients may come in.

Owns      the networks that are allowed and denied, in the settings and in a file, and what follows for an address.
Promises  of all networks that hold an address the most specific one decides, `deny` where two are equal; where none
          does, everybody may come in unless some network is allowed; a mistake names its file and line; a file
          that changes while we serve is read again when it is left alone, and when it will not do, or has lost all its
          rules, those from before still decide.
Refuses   to speak of peers that have no network: those of a Unix socket are admitted, its permissions say who.
Why       networks are disjoint or nested, so that all of them make one row of intervals, each with its verdict:
          one search in a sorted list, about a microsecond whether there are ten networks or ten thousand.
"""

import os
import socket
import stat
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

from .config import ListenerSettings
from .deadline import Clock, monotonic
from .errors import SettingError
from .events import Address, Events, RulesLoaded, RulesRejected
from .freshness import Freshness

#: RFC 4291 2.5.5.2: where IPv4 lies in IPv6
_MAPPED = IPv6Network("::ffff:0:0/96")
_MAPPED_BYTES = bytes(10) + b"\xff\xff"
_EVERYWHERE = ("0.0.0.0/0", "::/0")
#: a longer line is shown shortened in a sentence
_SHOWN = 60
#: a file that was written so lately may still be written
QUIET_SECONDS = 1.0
#: a file that could not be read is tried again after this time though it has not changed: descriptors may have run out
RETRY_SECONDS = 1.0
_VERDICTS = {"allow": True, "deny": False}

Network = IPv4Network | IPv6Network


class Rules:
    """What `allow`, `deny` and the file of rules say together.

    `names` is what the settings of `allow` and `deny` are called, for sentences.  Raises `SettingError`.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        deny: Sequence[str] = (),
        path: str | None = None,
        *,
        names: tuple[str, str] = ("allow", "deny"),
        clock: Clock = monotonic,
    ) -> None:
        #: who is told that a file has changed; set by the server
        self.events: Events | None = None
        self._said = [(network, False) for text in deny for network in _networks(text, names[1])]
        self._said += [(network, True) for text in allow for network in _networks(text, names[0])]
        self._path = path
        # made before the file is read, so that no change is missed
        self._freshness = None if path is None else Freshness([path], clock=clock, quiet=QUIET_SECONDS)
        self._clock = clock
        #: why the file was refused when it was last read, and when to try again
        self._refusal = ""
        self._retry_at: float | None = None
        self._take([] if path is None else _read(path))

    def admits(self, addr: Address) -> bool:
        """Whether a client of this address may come in."""
        if type(addr) is not tuple:
            return True
        host = addr[0]
        if ":" not in host:
            return self._v4.admits(int.from_bytes(socket.inet_aton(host)))
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])  # after it: the scope of a local address
        if packed.startswith(_MAPPED_BYTES):
            return self._v4.admits(int.from_bytes(packed[12:]))
        return self._v6.admits(int.from_bytes(packed))

    def refresh(self) -> None:
        """Read the file again if it has changed; cheap when it has not, or when there is none."""
        if self._freshness is None:
            return
        is_changed = self._freshness.changed()
        if is_changed or (self._retry_at is not None and self._clock() >= self._retry_at):
            self._read_again(self._freshness, is_changed)

    def _read_again(self, freshness: Freshness, is_changed: bool) -> None:
        path, refusal = self._path or "", ""
        self._retry_at = None
        try:
            found = _read(path)
            if self._in_file and not found:
                raise _lost_all(path)
        except SettingError as error:
            refusal = str(error)
            if isinstance(error, _Unreadable):
                self._retry_at = self._clock() + RETRY_SECONDS
        if not freshness.holds():  # it was written meanwhile: what was read may be half of it, and a look will tell
            return
        if not refusal:
            self._take(found)
            self._tell(RulesLoaded(path, self.networks))
        elif is_changed or refusal != self._refusal:
            self._tell(RulesRejected(path, refusal))
        self._refusal = refusal

    def _tell(self, event: RulesLoaded | RulesRejected) -> None:
        if self.events is not None and type(event) in self.events.wanted:
            self.events.emit(event)

    def _take(self, found: list[tuple[Network, bool]]) -> None:
        networks: dict[Network, bool] = {}
        for network, verdict in (*self._said, *found):
            networks[network] = networks.get(network, True) and verdict
        otherwise = True not in networks.values()
        #: how many rules the file has
        self._in_file = len(found)
        #: how many networks there are
        self.networks = len(networks)
        self._v4 = _Intervals(networks.items(), 4, otherwise)
        self._v6 = _Intervals(networks.items(), 6, otherwise)


class _Intervals:
    """All addresses of one family, cut where the verdict may change."""

    def __init__(self, networks: Iterable[tuple[Network, bool]], version: int, otherwise: bool) -> None:
        self._starts = [0]
        self._verdicts = [otherwise]
        around: list[tuple[int, bool]] = [(1 << 128, otherwise)]  # the networks that hold the next one: end, verdict
        ours = [one for one in networks if one[0].version == version]
        for network, verdict in sorted(ours, key=lambda one: (int(one[0].network_address), one[0].prefixlen)):
            first, last = int(network.network_address), int(network.broadcast_address)
            self._leave(around, first)
            self._cut(first, verdict)
            around.append((last, verdict))
        self._leave(around, 1 << 128)

    def admits(self, number: int) -> bool:
        return self._verdicts[bisect_right(self._starts, number) - 1]

    def _leave(self, around: list[tuple[int, bool]], until: int) -> None:
        """What lies behind the networks that end before this address is as the one around them says."""
        while around[-1][0] < until:
            last, _ = around.pop()
            self._cut(last + 1, around[-1][1])

    def _cut(self, at: int, verdict: bool) -> None:
        if self._starts[-1] == at:
            self._verdicts[-1] = verdict
        else:
            self._starts.append(at)
            self._verdicts.append(verdict)


def load_rules(settings: ListenerSettings) -> Rules | None:
    """The rules of a listener, None where it has none; raises `SettingError`."""
    if not (settings.allow or settings.deny or settings.rules_file):
        return None
    return Rules(settings.allow, settings.deny, settings.rules_file)


def load_trusted(settings: ListenerSettings) -> Rules | None:
    """Whose PROXY header is believed at a listener, None where nobody's on TCP is; raises `SettingError`."""
    return Rules(settings.proxy_trusted, names=("proxy_trusted", "")) if settings.proxy_trusted else None


class _Unreadable(SettingError):
    """The file may be good, and we could not look."""


def _lost_all(path: str) -> SettingError:
    """Of a file that was cut short to be written anew, which would let everybody in."""
    return SettingError(
        f"rules_file {path} is empty, and it had rules: write `allow all` to let everybody in, "
        "or reload the server to have it taken as it is"
    )


def _read(path: str) -> list[tuple[Network, bool]]:
    """What a file says; raises `SettingError`, which names the line."""
    return [rule for number, line in enumerate(_lines(path), 1) for rule in _parse(line, f"{path}, line {number}")]


def _lines(path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a pipe we would wait for somebody to write
        with closing(os.fdopen(fd, "rb")) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SettingError(f"rules_file {path} cannot be used: it is not a file")
            return [line.decode("utf-8", "backslashreplace") for line in file.read().splitlines()]
    except IsADirectoryError:
        raise SettingError(f"rules_file {path} cannot be used: it is not a file") from None
    except OSError as error:
        raise _Unreadable(f"rules_file {path} cannot be read: {error.strerror}") from None


def _parse(line: str, place: str) -> Iterator[tuple[Network, bool]]:
    words = line.partition("#")[0].split()
    if not words:
        return
    if len(words) != 2 or words[0] not in _VERDICTS:
        shown = repr(line if len(line) <= _SHOWN else line[:_SHOWN] + "...")
        raise SettingError(f"{place}: {shown} is no rule: write `allow NETWORK` or `deny NETWORK`")
    for network in _networks(words[1], place):
        yield network, _VERDICTS[words[0]]


def _networks(text: str, place: str) -> Iterator[Network]:
    """The networks of a rule: one, save that `all` is two; IPv4 that is written as IPv6 is IPv4."""
    for one in _EVERYWHERE if text == "all" else (text.partition("%")[0],):
        try:
            network = ip_network(one)
        except ValueError:
            raise SettingError(
                f"{place}: {text[:_SHOWN]!r} is no network: write one such as 10.0.0.0/8 or 2001:db8::/32, "
                "with no bit set behind the prefix, an address, or all"
            ) from None
        yield _plain(network) if isinstance(network, IPv6Network) else network


def _plain(network: IPv6Network) -> Network:
    if not network.subnet_of(_MAPPED):
        return network
    inner: IPv6Address = network.network_address
    return IPv4Network((int(inner) & 0xFFFFFFFF, network.prefixlen - _MAPPED.prefixlen))
