"""What another parser says of damaged PROXY headers: the package proxy-protocol, where it does not crash.

Promises  every difference is of a kind that is named in `DIFFERENCES`, with its reason; each kind is met.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
from proxyprotocol import ProxyProtocolIncompleteError
from proxyprotocol.detect import ProxyProtocolDetect
from proxyprotocol.result import ProxyResult, is_ipv4, is_ipv6, is_unix
from proxyprotocol.tlv import ProxyProtocolSSLTLV

from moorage.transport.proxy import ProxyError, ProxyHeader, ProxyParser, ProxySsl
from support.mutation import mutants
from support.proxy_bytes import GOOD, beginning


@dataclass(frozen=True)
class Opinion:
    """What one parser says: "header", "more", "error", or "crash" for an error that it does not document."""

    verdict: str
    header: Any = None
    reason: str = ""


def ours(data: bytes) -> Opinion:
    try:
        header = ProxyParser().feed(data)
    except ProxyError as error:
        return Opinion("error", reason=str(error))
    return Opinion("more") if header is None else Opinion("header", header)


def theirs(data: bytes) -> Opinion:
    """The package is told each time as many bytes as it wants."""
    detect, size = ProxyProtocolDetect(), 0
    while True:
        try:
            return Opinion("header", detect.unpack(data[:size]))
        except ProxyProtocolIncompleteError as error:
            want = error.want_read
            more = data.find(b"\n", size) + 1 - size if want.want_line else want.want_bytes or 0
            if more <= 0 or size + more > len(data):
                return Opinion("more")
            size += more
        except ValueError:  # with its subclasses for syntax and checksum
            return Opinion("error")
        except Exception:  # struct.error from a short address block, and what else there is
            return Opinion("crash")


@dataclass(frozen=True)
class Case:
    """One input, and both opinions of it."""

    data: bytes
    ours: Opinion
    theirs: Opinion

    @property
    def kind(self) -> int:
        """The byte of family and transport."""
        return self.data[13] if len(self.data) > 13 else 0

    @property
    def types(self) -> list[int]:
        """The types of the fields in our header, in order, and behind them those of its TLS field."""
        header = self.ours.header
        return [kind for kind, _ in (*header.tlvs, *(header.ssl.tlvs if header.ssl else ()))] if header else []

    def refused_for(self, *words: str) -> bool:
        """Whether ours refuses, for one of these reasons."""
        return self.ours.verdict == "error" and any(word in self.ours.reason for word in words)

    def agrees(self) -> bool:
        """Whether both say the same, of the client and of every field that they both look at."""
        if self.ours.verdict != self.theirs.verdict:
            return False
        return self.ours.verdict != "header" or told_alike(self.ours.header, self.theirs.header)


def plain(end: Any) -> tuple[str, int]:
    """An address of either side in one notation."""
    address = ip_address(str(end[0]))
    return str(getattr(address, "ipv4_mapped", None) or address), end[1]


def told_alike(header: ProxyHeader, result: ProxyResult) -> bool:
    if header.source is None or header.destination is None:
        return not (is_ipv4(result) or is_ipv6(result) or is_unix(result))
    if is_ipv4(result) or is_ipv6(result):
        ends = [plain(header.source), plain(header.destination)] == [plain(result.source), plain(result.dest)]
    else:
        ends = is_unix(result) and (header.source, header.destination) == (result.source, result.dest)
    fields = {kind: value for kind, value in result.tlv.items() if kind != 4}
    return ends and dict(reversed(header.tlvs)) == fields and tls_told_alike(header.ssl, result.tlv.ssl)


def tls_told_alike(ours: ProxySsl | None, theirs: ProxyProtocolSSLTLV) -> bool:
    if ours is None:
        return True
    read = (ours.client, ours.verify, ours.version, ours.common_name, ours.cipher, ours.key_algorithm)
    return read == (theirs.client, theirs.verify, theirs.version, theirs.cn, theirs.cipher, theirs.key_alg)


def sums_otherwise(case: Case) -> bool:
    """Fields out of the order of their types, doubled ones, padding: theirs sums up what it would have sent itself."""
    types = [kind for kind, _ in case.ours.header.tlvs] if case.ours.header else []
    return 3 in types and case.theirs.verdict == "error" and (b"\x04\0" in case.data or types != sorted(set(types)))


#: each kind of difference, with what it takes
DIFFERENCES: dict[str, Callable[[Case], bool]] = {
    "theirs decides no sooner than after 8, 16 or all bytes": lambda case: (
        case.ours.verdict == "error" and case.theirs.verdict == "more"
    ),
    "theirs has no limit for a line": lambda case: case.refused_for("within 107 bytes"),
    "theirs reads ports as int() does, with signs and zeros": lambda case: case.refused_for("the port b'"),
    "theirs takes IPv6 addresses with a zone": lambda case: case.refused_for("the address b'") and b"%" in case.data,
    "theirs takes families and transports that do not exist": lambda case: case.refused_for("does not exist"),
    "theirs looks at the fields of LOCAL, which are to be ignored": lambda case: (
        case.theirs.verdict == "error" and case.ours.header is not None and case.ours.header.command == "LOCAL"
    ),
    "theirs takes addresses whose transport is unspecified": lambda case: case.kind in {0x10, 0x20, 0x30},
    "theirs ignores the fields behind an unspecified family": lambda case: (
        case.kind <= 2 and case.ours.verdict == "error" and case.theirs.verdict == "header"
    ),
    "theirs takes what is left of a field that was cut short": lambda case: case.refused_for("no field", "are left"),
    "theirs takes unique ids of any length": lambda case: case.refused_for("unique id"),
    "theirs decodes text when it is asked for, and raises there": lambda case: case.refused_for(
        "is not UTF-8 text", "is not ASCII text"
    ),
    "theirs takes an SSL field without its beginning": lambda case: case.refused_for("of at least 5"),
    "theirs sums the fields in another order than they came": lambda case: (
        sums_otherwise(case) or case.refused_for("checksum")
    ),
    "theirs takes the last of a doubled field": lambda case: len(case.types) > len(set(case.types)),
    "theirs has paths in ASCII only, abstract names as text, and looks behind a NUL": lambda case: (
        case.kind in {0x31, 0x32} and case.ours.verdict == "header"
    ),
}


def compare(count: int, seed: int) -> Counter[str]:
    """How many inputs both read alike, by verdict, and how many there were of each kind of difference."""
    found: Counter[str] = Counter()
    for data in [*GOOD, *mutants(GOOD, count, seed, beginning)]:
        case = Case(data, ours(data), theirs(data))
        if case.agrees():
            found[case.ours.verdict] += 1
        elif case.theirs.verdict == "crash":
            found["crash"] += 1
        else:
            name = next((name for name, fits in DIFFERENCES.items() if fits(case)), None)
            assert name is not None, case
            found[name] += 1
    return found


def test_second_opinion_differs_only_where_it_is_known_to() -> None:
    found = compare(20_000, seed=3)
    assert found["header"] + found["error"] + found["more"] > 10_000, found


@pytest.mark.full
@pytest.mark.timeout(600)
def test_second_opinion_differs_only_where_it_is_known_to_at_length() -> None:
    found = compare(500_000, seed=4)
    assert {"header", "error", "more", "crash"} <= set(found)
    assert sorted(set(DIFFERENCES) - set(found)) == [], "a difference that is gone needs no line"
