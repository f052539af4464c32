"""PROXY headers as bytes: from the specification, from real load balancers, and built for a test.

Why       What HAProxy 2.6.12 and nginx 1.22.1 send was taken down by a plain socket behind them, with the
          configurations of `proxies.py`, on 2026-11-23; the words beside each are those of its server line.
          The behaviour tests run the same programs; these bytes are there where they are not installed.
"""

import struct
from collections.abc import Iterable

from moorage.transport.proxy_header import CRC32C, crc32c

__all__ = [
    "FROM_HAPROXY", "FROM_NGINX", "FROM_THE_SPECIFICATION", "GOOD", "beginning", "fields", "v1", "v2", "with_checksum",
]  # fmt: skip

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LOOPBACK_V4 = bytes((127, 0, 0, 1))
_LOOPBACK_V6 = bytes(15) + b"\x01"
_MAPPED_V4 = bytes(10) + b"\xff\xff" + _LOOPBACK_V4

FROM_THE_SPECIFICATION = {
    # section 2.1: the example, and the longest line of each family
    "example": b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
    "longest TCP4": b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
    "longest TCP6": b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
    "short UNKNOWN": b"PROXY UNKNOWN\r\n",
    "longest UNKNOWN": b"PROXY UNKNOWN " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
}
FROM_HAPROXY = {
    "send-proxy": b"PROXY TCP4 127.0.0.1 127.0.0.1 58380 43863\r\n",
    "send-proxy, IPv6": b"PROXY TCP6 ::1 ::1 58844 38259\r\n",
    "send-proxy, an IPv4 client at an IPv6 socket": b"PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1 53252 41917\r\n",
    "send-proxy, a client at a Unix socket": b"PROXY UNKNOWN\r\n",
    "send-proxy check": b"PROXY TCP4 127.0.0.1 127.0.0.1 60906 34457\r\n",
    "send-proxy-v2": SIGNATURE + b"!\x11\0\x0c" + _LOOPBACK_V4 * 2 + b"\x9c0\xad\x6f",
    "send-proxy-v2, IPv6": SIGNATURE + b"!!\0$" + _LOOPBACK_V6 * 2 + b"\x8c\x16\x88\xf5",
    "send-proxy-v2, an IPv4 client at an IPv6 socket": SIGNATURE + b"!!\0$" + _MAPPED_V4 * 2 + b"\xb42\xa0\xed",
    # HAProxy calls what it passes on from a Unix socket LOCAL, and its health checks, too
    "send-proxy-v2, a client at a Unix socket": SIGNATURE + b" \0\0\0",
    "send-proxy-v2 check": SIGNATURE + b" \0\0\0",
    "send-proxy-v2 proxy-v2-options unique-id,crc32c": SIGNATURE
    + b"!\x11\x000" + _LOOPBACK_V4 * 2 + b"\xd4\x16\xae9"
    + b"\x03\0\x04\x07\x05F\xc5" + b"\x05\0\x1aconnection-127.0.0.1-54294",
    "send-proxy-v2-ssl, ALPN": SIGNATURE
    + b"!\x11\0%" + _LOOPBACK_V4 * 2 + b"\xae.\x95\xdf"
    + b"\x01\0\x04echo" + b" \0\x0f\x01\0\0\0\0" + b"!\0\x07TLSv1.3",
    "send-proxy-v2-ssl-cn, ALPN, a client certificate": SIGNATURE
    + b"!\x11\x000" + _LOOPBACK_V4 * 2 + b"\xccb\x92c"
    + b"\x01\0\x04echo" + b" \0\x1a\x07\0\0\0\0" + b"!\0\x07TLSv1.3" + b'"\0\x08device-7',
    "send-proxy-v2 proxy-v2-options ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,crc32c,unique-id": SIGNATURE
    + b"!\x11\0\x85" + _LOOPBACK_V4 * 2 + b"\x99T\xa4y"
    + b"\x03\0\x04\x9d7p\xba" + b"\x01\0\x04echo" + b"\x02\0\tlocalhost" + b"\x05\0\nid-17507-0"
    + b" \0O\x07\0\0\0\0" + b"!\0\x07TLSv1.3" + b'"\0\x08device-7' + b"%\0\x05EC256"
    + b"$\0\x11ecdsa-with-SHA256" + b"#\0\x16TLS_AES_256_GCM_SHA384",
}  # fmt: skip
FROM_NGINX = {
    "proxy_protocol on": b"PROXY TCP4 127.0.0.1 127.0.0.1 58746 37005\r\n",
    "proxy_protocol on, IPv6": b"PROXY TCP6 ::1 ::1 58732 33029\r\n",
    "proxy_protocol on, an IPv4 client at an IPv6 socket": (
        b"PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1 59944 35177\r\n"
    ),
    "proxy_protocol on, a client at a Unix socket": b"PROXY UNKNOWN\r\n",
}


def v1(told: bytes) -> bytes:
    """A line of version 1."""
    return b"PROXY " + told + b"\r\n"


def v2(kind: int, body: bytes = b"", command: int = 0x21, length: int | None = None) -> bytes:
    """A header of version 2; `kind` is the byte of family and transport, `body` all that comes after the fixed part."""
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body) if length is None else length) + body


def fields(*tlvs: tuple[int, bytes]) -> bytes:
    """Types and values as they are sent."""
    return b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in tlvs)


def with_checksum(kind: int, addresses: bytes, before: Iterable[tuple[int, bytes]] = (), after: bytes = b"") -> bytes:
    """A header of version 2 with a checksum that is right."""
    first = addresses + fields(*before)
    blank = v2(kind, first + fields((CRC32C, bytes(4))) + after)
    at = len(SIGNATURE) + 4 + len(first) + 3
    return blank[:at] + struct.pack("!I", crc32c(blank)) + blank[at + 4 :]


def beginning(header: bytes) -> int:
    """How many bytes tell that it is a header, and of which version."""
    return len(SIGNATURE) if header.startswith(SIGNATURE) else len(b"PROXY ")


V4 = bytes((192, 0, 2, 1, 192, 0, 2, 2)) + struct.pack("!HH", 4711, 443)
V6 = bytes.fromhex("20010db8" + "00" * 11 + "01" + "20010db8" + "00" * 11 + "02") + struct.pack("!HH", 4711, 443)
PATHS = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")
_SSL = b"\x01\0\0\0\0" + fields((0x21, b"TLSv1.3"), (0x22, "Zoë".encode()), (0x23, b"AES"), (0x24, b"S"), (0x25, b"K"))
_BUILT = {
    "udp4": v2(0x12, V4),
    "tcp6 with every field": with_checksum(
        0x21, V6, [(1, b"h2"), (2, b"example.com"), (4, b"xx"), (5, b"i" * 128), (0x20, _SSL), (0x30, b"ns")]
    ),
    "udp6, with a field of an application": v2(0x22, V6 + fields((0xE0, b"ours"))),
    "unix": v2(0x31, PATHS),
    "unix datagrams, abstract and unnamed": v2(0x32, b"\0name".ljust(108, b"\0") + bytes(108)),
    "unspecified": v2(0x00),
    "unspecified with fields": with_checksum(0x00, b"", [(2, b"example.com")]),
    "fields that come twice": v2(
        0x11, V4 + fields((2, b"one.example"), (0xE0, b"1"), (2, b"two.example"), (0xE0, b"1"))
    ),
    "local with what is to be ignored": v2(0x99, b"whatever", command=0x20),
}
#: every header of ours that is good
GOOD = [*FROM_THE_SPECIFICATION.values(), *FROM_HAPROXY.values(), *FROM_NGINX.values(), *_BUILT.values()]
