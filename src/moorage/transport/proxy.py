"""ProxyParser: from the first bytes of a connection to what a load balancer says of its client.

Owns      the PROXY protocol, versions 1 and 2, as haproxy.org's proxy-protocol.txt has it: bytes in, header out.
Promises  pieces of any size give the same header; `feed` raises `ProxyError` and nothing else, whatever the bytes;
          what was checked here cannot fail later: no property of a `ProxyHeader` from a parser raises.
Refuses   to guess: who may send a header, and whether one is required, is said by the listener's settings;
          to keep more than one header (64 KiB and a bit); whatever breaks the rules of the specification.
Why       it holds no socket, so that the watch can feed it without a thread, and a test with anything.
"""

import os
import re
import socket
from collections.abc import Callable
from struct import Struct

from ..config.address import plain_address
from .proxy_header import Address, Family, ProxyError, ProxyHeader, ProxySsl, are_tlvs, checked_tlvs

__all__ = ["Address", "Family", "ProxyError", "ProxyHeader", "ProxyParser", "ProxySsl"]

#: section 2.1: "the first 107 characters", and the shortest line, `PROXY UNKNOWN` with its CRLF
V1_MOST, V1_LEAST = 107, 15
V1_BEGIN = b"PROXY "
V2_BEGIN = b"\r\n\r\n\0\r\nQUIT\n"

_FIXED = Struct("!12sBBH")  # signature, version and command, family and transport, length of the rest
_PORTS = Struct("!HH")
#: family and transport, by their byte; where a half is 0, it is unspecified
_FAMILIES: dict[int, Family] = {0x11: "tcp4", 0x12: "udp4", 0x21: "tcp6", 0x22: "udp6", 0x31: "unix", 0x32: "unix"}
#: how many bytes one address has
_SIZES = {"tcp4": 4, "udp4": 4, "tcp6": 16, "udp6": 16, "unix": 108}
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_SHOWN = 16


class ProxyParser:
    """Bytes in, header out.

    optional    bytes that begin otherwise are no error: see `is_header`
    only_looks  that is all there is to know: of a header nothing is read and nothing kept
    """

    def __init__(self, *, optional: bool = False, only_looks: bool = False) -> None:
        #: whether these bytes are a header; None while that is open, False only with `optional`
        self.is_header: bool | None = None
        #: what came after the header; everything, when there is none
        self.rest = b""
        self._optional = optional
        self._only_looks = only_looks
        self._seen = bytearray()
        self._header: ProxyHeader | None = None
        self._error = ""  # the sentence alone: the traceback of an error leads back to us

    @property
    def wanted(self) -> int:
        """How many bytes at least are still wanted before there can be a header; 0 when it is decided."""
        seen = self._seen
        if self._is_decided or self._error:
            return 0
        if seen.startswith(V2_BEGIN[:1]):
            whole = _FIXED.size
            if len(seen) >= whole:
                whole += int.from_bytes(seen[14:16], "big")
            return whole - len(seen)
        return max(V1_LEAST - len(seen), 1 if seen.endswith(b"\r") else 2)

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Take what was received; the header when it is complete, None while more is needed or when there is none."""
        if self._error:
            raise ProxyError(self._error)
        if self._is_decided:
            if not self._only_looks or not self.is_header:
                self.rest += data
            return self._header
        self._seen += data
        try:
            return self._look()
        except ProxyError as error:
            self._error = str(error)
            self._seen.clear()
            raise

    def end(self) -> None:
        """Nothing more will come: what was undecided is no header, and a part of one is an error."""
        if self._error:
            raise ProxyError(self._error)
        if self._is_decided:
            return
        if self._optional and self.is_header is None:
            self._is_other()
            return
        self._error = f"the connection ended after {len(self._seen)} bytes, in the middle of a PROXY header"
        raise ProxyError(self._error)

    @property
    def _is_decided(self) -> bool:
        """Whether what is still to come changes nothing."""
        return self._header is not None or self.is_header is False or (self._only_looks and self.is_header is True)

    def _look(self) -> ProxyHeader | None:
        seen = self._seen
        if seen.startswith(V2_BEGIN):
            return self._look_closer(self._look_v2)
        if seen.startswith(V1_BEGIN):
            return self._look_closer(self._look_v1)
        if V2_BEGIN.startswith(seen) or V1_BEGIN.startswith(seen):
            return None
        if not self._optional:
            raise ProxyError(f"the connection does not begin with a PROXY header: {bytes(seen[:_SHOWN])!r}")
        self._is_other()
        return None

    def _look_closer(self, look: Callable[[], ProxyHeader | None]) -> ProxyHeader | None:
        """It is a header."""
        self.is_header = True
        if self._only_looks:
            self._seen.clear()
            return None
        return look()

    def _is_other(self) -> None:
        self.is_header = False
        self.rest, self._seen = bytes(self._seen), bytearray()

    def _look_v1(self) -> ProxyHeader | None:
        seen = self._seen
        end = seen.find(b"\n", 0, V1_MOST)
        if end < 0:
            if len(seen) >= V1_MOST:
                raise ProxyError(f"the PROXY line does not end within {V1_MOST} bytes")
            return None
        if seen[end - 1] != ord("\r"):
            raise ProxyError("the PROXY line ends with LF alone, not with CR and LF")
        return self._complete(_from_line(bytes(seen[: end - 1])), end + 1)

    def _look_v2(self) -> ProxyHeader | None:
        seen = self._seen
        if len(seen) < _FIXED.size:
            return None
        _, version_command, kind, length = _FIXED.unpack_from(seen)
        _check_fixed(version_command, kind, length)
        whole = _FIXED.size + length
        if len(seen) < whole:
            return None
        return self._complete(_from_block(version_command & 0x0F, kind, bytes(seen[:whole])), whole)

    def _complete(self, header: ProxyHeader, size: int) -> ProxyHeader:
        self._header, self.rest = header, bytes(self._seen[size:])
        self._seen.clear()
        return header


# version 1


def _from_line(line: bytes) -> ProxyHeader:
    """The header of a line without its CRLF."""
    word, _, told = line[len(V1_BEGIN) :].partition(b" ")
    if word == b"UNKNOWN":  # "the receiver must ignore anything presented before the CRLF"
        return ProxyHeader(1, "PROXY", "unspec")
    if word not in (b"TCP4", b"TCP6"):
        raise ProxyError(f"the PROXY line is for {word!r}, which is none of TCP4, TCP6 and UNKNOWN")
    parts = told.split(b" ")
    if len(parts) != 4:
        raise ProxyError(
            f"the PROXY line has {len(parts)} words after {word.decode()}, not two addresses and two ports"
        )
    hosts = [_v1_host(part, word) for part in parts[:2]]
    ports = [_v1_port(part) for part in parts[2:]]
    family: Family = "tcp4" if word == b"TCP4" else "tcp6"
    return ProxyHeader(1, "PROXY", family, _ip(family, hosts[0], ports[0]), _ip(family, hosts[1], ports[1]))


def _v1_host(text: bytes, word: bytes) -> bytes:
    """The packed address; inet_pton knows no leading zeros, no blanks and no zones."""
    try:
        return socket.inet_pton(socket.AF_INET if word == b"TCP4" else socket.AF_INET6, text.decode("ascii"))
    except (OSError, ValueError):  # ValueError: a NUL in it, or bytes beyond ASCII
        raise ProxyError(f"the PROXY line is for {word.decode()} and has the address {text!r}") from None


def _v1_port(text: bytes) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ProxyError(f"the PROXY line has the port {text!r}, not a number from 0 to 65535 without leading zeros")
    return int(text)


# version 2


def _check_fixed(version_command: int, kind: int, length: int) -> None:
    """Whatever can be known to be wrong before the rest has come."""
    version, command = divmod(version_command, 16)
    if version != 2:
        raise ProxyError(f"the PROXY header is of version {version}, and a binary one has to be of version 2")
    if command > 1:
        raise ProxyError(f"the PROXY header has the command {command}, which is neither LOCAL (0) nor PROXY (1)")
    if command == 0:
        return  # "discard the protocol block including the family which is ignored"
    if kind >> 4 > 3 or kind & 0x0F > 2:
        raise ProxyError(f"the PROXY header has the family and transport 0x{kind:02x}, which does not exist")
    if kind in _FAMILIES and length < (least := _addresses_size(_FAMILIES[kind])):
        raise ProxyError(f"the PROXY header has {length} bytes for addresses, and {_FAMILIES[kind]} needs {least}")


def _from_block(command: int, kind: int, block: bytes) -> ProxyHeader:
    """The header of a whole binary block whose fixed part was checked."""
    if command == 0:
        return ProxyHeader(2, "LOCAL", "unspec")
    if kind not in _FAMILIES:
        return _from_unspecified(block)
    family = _FAMILIES[kind]
    size, start = _SIZES[family], _FIXED.size
    source, destination = block[start : start + size], block[start + size : start + 2 * size]
    tlvs = checked_tlvs(block, start + _addresses_size(family))
    if family == "unix":
        return ProxyHeader(2, "PROXY", family, _path(source), _path(destination), tlvs)
    ports = _PORTS.unpack_from(block, start + 2 * size)
    return ProxyHeader(2, "PROXY", family, _ip(family, source, ports[0]), _ip(family, destination, ports[1]), tlvs)


def _from_unspecified(block: bytes) -> ProxyHeader:
    """What follows may be addresses of a layout that nobody knows, to be ignored, or TLVs; HAProxy sends TLVs."""
    tlvs = checked_tlvs(block, _FIXED.size) if are_tlvs(block, _FIXED.size) else ()
    return ProxyHeader(2, "PROXY", "unspec", tlvs=tlvs)


def _addresses_size(family: Family) -> int:
    return 2 * _SIZES[family] + (0 if family == "unix" else _PORTS.size)


def _ip(family: Family, packed: bytes, port: int) -> Address:
    if family in ("tcp4", "udp4"):
        return socket.inet_ntop(socket.AF_INET, packed), port
    address: Address = plain_address((socket.inet_ntop(socket.AF_INET6, packed), port, 0, 0))
    return address


def _path(packed: bytes) -> Address:
    """A path, as text; a name of the abstract namespace, which begins with NUL, as bytes, like the socket module."""
    if packed[0] == 0:
        return packed.rstrip(b"\0") or ""
    return os.fsdecode(packed.partition(b"\0")[0])
