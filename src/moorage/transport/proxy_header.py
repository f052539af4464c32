"""ProxyHeader: what a PROXY header says of a client, and the fields (TLVs) that may come with it.

Owns      the fields of version 2, section 2.2 of haproxy.org's proxy-protocol.txt: their bytes, their rules, their text.
Promises  no property of a header raises whose fields `checked_tlvs` has read; they are as they came, without the padding.
Refuses   text that is not in the encoding of the specification: two clients must not get one name by a lenient decoding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from struct import Struct
from typing import Literal

from ..errors import PeerError

Address = tuple[str, int] | tuple[str, int, int, int] | str | bytes  # as the socket module has them
Family = Literal["tcp4", "tcp6", "udp4", "udp6", "unix", "unspec"]
Tlvs = tuple[tuple[int, bytes], ...]

#: section 2.2.5
UNIQUE_ID_MOST = 128

ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID, SSL = 0x01, 0x02, 0x03, 0x04, 0x05, 0x20
SSL_VERSION, SSL_CN, SSL_CIPHER, SSL_SIG_ALG, SSL_KEY_ALG = 0x21, 0x22, 0x23, 0x24, 0x25

_TLV = Struct("!BH")
_SSL = Struct("!BI")
_SHOWN = 16


class ProxyError(PeerError, ValueError):
    """The bytes are no PROXY header, or one that breaks the rules; one sentence says which."""


@dataclass(frozen=True)
class ProxySsl:
    """What the load balancer says of its TLS with the client (section 2.2.6); `tlvs` are all of it."""

    client: int
    verify: int
    version: str | None = None
    common_name: str | None = None
    cipher: str | None = None
    signature_algorithm: str | None = None
    key_algorithm: str | None = None
    tlvs: Tlvs = ()

    @property
    def is_tls(self) -> bool:
        """Whether the client came over TLS."""
        return bool(self.client & 0x01)

    @property
    def has_certificate(self) -> bool:
        """Whether the client showed a certificate, in this connection or in the session that it resumed."""
        return bool(self.client & 0x06)

    @property
    def is_verified(self) -> bool:
        """Whether the client showed a certificate, and the load balancer found it good."""
        return self.has_certificate and self.verify == 0


@dataclass(frozen=True)
class ProxyHeader:
    """One PROXY header.  `source` and `destination` are None where it says nothing of them: LOCAL, UNKNOWN, UNSPEC."""

    version: int
    command: Literal["PROXY", "LOCAL"]
    family: Family
    source: Address | None = None
    destination: Address | None = None
    tlvs: Tlvs = ()
    #: who sent the header: the real peer
    via: Address | None = None

    @property
    def alpn(self) -> bytes | None:
        """The application protocol that the client chose with the load balancer."""
        return _first(self.tlvs, ALPN)

    @property
    def authority(self) -> str | None:
        """The host name that the client asked for: the server name (SNI) of its TLS."""
        return _authority(self.tlvs)

    @property
    def unique_id(self) -> bytes | None:
        """What the load balancer calls this connection in its own log."""
        return _first(self.tlvs, UNIQUE_ID)

    @property
    def ssl(self) -> ProxySsl | None:
        """What the load balancer says of its TLS with the client; None when it says nothing."""
        return _ssl(self.tlvs)


def are_tlvs(block: bytes, start: int) -> bool:
    """Whether what is there from `start` on divides into fields."""
    try:
        return all(_split_tlvs(block, start))
    except ProxyError:
        return False


def checked_tlvs(block: bytes, start: int) -> Tlvs:
    """The fields of a whole header from `start` on; those that have rules are checked, the padding is left out."""
    tlvs, sums = [], []
    for kind, value, at in _split_tlvs(block, start):
        if kind == CRC32C:
            sums.append((value, at))
        if kind == UNIQUE_ID and len(value) > UNIQUE_ID_MOST:
            raise ProxyError(f"the unique id of the PROXY header has {len(value)} bytes, of at most {UNIQUE_ID_MOST}")
        if kind != NOOP:
            tlvs.append((kind, value))
    if sums:
        _check_sum(block, sums)
    checked = tuple(tlvs)
    _authority(checked), _ssl(checked)  # raise here, and so never again
    return checked


def _check_sum(block: bytes, sums: list[tuple[bytes, int]]) -> None:
    if len(sums) > 1:
        raise ProxyError(f"the PROXY header has {len(sums)} checksums")
    (value, at) = sums[0]
    if len(value) != 4:
        raise ProxyError(f"the checksum of the PROXY header has {len(value)} bytes, not 4")
    if int.from_bytes(value, "big") != crc32c(block[:at] + bytes(4) + block[at + 4 :]):
        raise ProxyError("the checksum of the PROXY header is wrong")


def _split_tlvs(data: bytes, start: int) -> Iterator[tuple[int, bytes, int]]:
    """Type, value, and where the value begins, of each."""
    while start < len(data):
        if len(data) - start < _TLV.size:
            raise ProxyError(f"the PROXY header ends with {len(data) - start} bytes that are no field")
        kind, size = _TLV.unpack_from(data, start)
        start += _TLV.size
        if size > len(data) - start:
            raise ProxyError(
                f"field 0x{kind:02x} of the PROXY header has {size} bytes, and {len(data) - start} are left"
            )
        yield kind, data[start : start + size], start
        start += size


def _authority(tlvs: Tlvs) -> str | None:
    return _text(tlvs, AUTHORITY, "authority", "utf-8")


def _ssl(tlvs: Tlvs) -> ProxySsl | None:
    value = _first(tlvs, SSL)
    if value is None:
        return None
    if len(value) < _SSL.size:
        raise ProxyError(f"the SSL field of the PROXY header has {len(value)} bytes, of at least {_SSL.size}")
    client, verify = _SSL.unpack_from(value)
    parts = tuple((kind, part) for kind, part, _ in _split_tlvs(value, _SSL.size))
    return ProxySsl(
        client,
        verify,
        version=_text(parts, SSL_VERSION, "TLS version", "ascii"),
        common_name=_text(parts, SSL_CN, "common name", "utf-8"),
        cipher=_text(parts, SSL_CIPHER, "cipher", "ascii"),
        signature_algorithm=_text(parts, SSL_SIG_ALG, "signature algorithm", "ascii"),
        key_algorithm=_text(parts, SSL_KEY_ALG, "key algorithm", "ascii"),
        tlvs=parts,
    )


def _first(tlvs: Tlvs, kind: int) -> bytes | None:
    return next((value for found, value in tlvs if found == kind), None)


def _text(tlvs: Tlvs, kind: int, name: str, encoding: str) -> str | None:
    value = _first(tlvs, kind)
    if value is None:
        return None
    try:
        return value.decode(encoding)
    except UnicodeDecodeError:
        raise ProxyError(f"the {name} of the PROXY header is not {encoding.upper()} text: {value[:_SHOWN]!r}") from None


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960, appendix B (Castagnoli); the standard library has only the other polynomial."""
    table, rest = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        rest = rest >> 8 ^ table[(rest ^ byte) & 0xFF]
    return rest ^ 0xFFFFFFFF


@cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for rest in range(256):
        for _ in range(8):
            rest = rest >> 1 ^ (0x82F63B78 if rest & 1 else 0)  # noqa: PLW2901  # the step of a polynomial division
        table.append(rest)
    return tuple(table)
