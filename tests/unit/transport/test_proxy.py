"""ProxyParser: what the specification says, what real load balancers send, at every split; see also test_fuzz_proxy."""

import gc
import re
import weakref
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.transport.proxy import ProxyError, ProxyHeader, ProxyParser
from support.proxy_bytes import (
    FROM_HAPROXY,
    FROM_NGINX,
    FROM_THE_SPECIFICATION,
    GOOD,
    PATHS,
    SIGNATURE,
    V4,
    V6,
    fields,
    v1,
    v2,
)

LOOPBACK = "127.0.0.1"
SHOWN = re.compile(r"header: b.*")  # how much of other bytes is shown depends on how much of them has come


@pytest.fixture
def no_gc() -> Iterator[None]:
    """What is in a cycle stays."""
    gc.disable()
    yield
    gc.enable()


def parse(data: bytes) -> ProxyHeader:
    parser = ProxyParser()
    header = parser.feed(data)
    assert header is not None
    assert (parser.rest, parser.wanted, parser.is_header) == (b"", 0, True)
    return header


def refusal(data: bytes) -> str:
    """The sentence for these bytes; the same one when they come one at a time, with other bytes behind them."""
    with pytest.raises(ProxyError) as whole:
        ProxyParser().feed(data + b"behind")
    parser = ProxyParser()
    with pytest.raises(ProxyError) as bytewise:
        for byte in data + b"behind":
            parser.feed(bytes([byte]))
    sentence = str(whole.value)
    assert SHOWN.sub("", sentence) == SHOWN.sub("", str(bytewise.value))
    assert "\n" not in sentence
    return sentence


# What is sent in the field


@pytest.mark.parametrize(
    ("line", "family", "source", "destination"),
    [
        ("example", "tcp4", ("192.168.0.1", 56324), ("192.168.0.11", 443)),
        ("longest TCP4", "tcp4", ("255.255.255.255", 65535), ("255.255.255.255", 65535)),
        ("longest TCP6", "tcp6", (":".join(["ffff"] * 8), 65535, 0, 0), (":".join(["ffff"] * 8), 65535, 0, 0)),
        ("short UNKNOWN", "unspec", None, None),
        ("longest UNKNOWN", "unspec", None, None),
    ],
)
def test_lines_of_the_specification_are_read(line: str, family: str, source: object, destination: object) -> None:
    header = parse(FROM_THE_SPECIFICATION[line])
    assert (header.version, header.command, header.tlvs, header.via) == (1, "PROXY", (), None)
    assert (header.family, header.source, header.destination) == (family, source, destination)


@pytest.mark.parametrize(
    ("words", "family", "source", "destination"),
    [
        ("send-proxy", "tcp4", (LOOPBACK, 58380), (LOOPBACK, 43863)),
        ("send-proxy, IPv6", "tcp6", ("::1", 58844, 0, 0), ("::1", 38259, 0, 0)),
        ("send-proxy, an IPv4 client at an IPv6 socket", "tcp6", (LOOPBACK, 53252), (LOOPBACK, 41917)),
        ("send-proxy, a client at a Unix socket", "unspec", None, None),
        ("send-proxy check", "tcp4", (LOOPBACK, 60906), (LOOPBACK, 34457)),
        ("send-proxy-v2", "tcp4", (LOOPBACK, 39984), (LOOPBACK, 44399)),
        ("send-proxy-v2, IPv6", "tcp6", ("::1", 35862, 0, 0), ("::1", 35061, 0, 0)),
        ("send-proxy-v2, an IPv4 client at an IPv6 socket", "tcp6", (LOOPBACK, 46130), (LOOPBACK, 41197)),
        ("send-proxy-v2 proxy-v2-options unique-id,crc32c", "tcp4", (LOOPBACK, 54294), (LOOPBACK, 44601)),
    ],
)
def test_addresses_from_haproxy_are_read(words: str, family: str, source: object, destination: object) -> None:
    header = parse(FROM_HAPROXY[words])
    assert (header.version, header.command) == (2 if "v2" in words else 1, "PROXY")
    assert (header.family, header.source, header.destination) == (family, source, destination)


@pytest.mark.parametrize("words", ["send-proxy-v2 check", "send-proxy-v2, a client at a Unix socket"])
def test_local_header_from_haproxy_leaves_the_addresses_as_they_are(words: str) -> None:
    assert parse(FROM_HAPROXY[words]) == ProxyHeader(2, "LOCAL", "unspec")


def test_fields_from_haproxy_are_read() -> None:
    (words,) = (words for words in FROM_HAPROXY if "cert-sig" in words)
    header = parse(FROM_HAPROXY[words])
    assert (header.alpn, header.authority, header.unique_id) == (b"echo", "localhost", b"id-17507-0")
    ssl = header.ssl
    assert ssl is not None
    assert (ssl.client, ssl.verify, ssl.version, ssl.common_name) == (7, 0, "TLSv1.3", "device-7")
    assert (ssl.cipher, ssl.signature_algorithm) == ("TLS_AES_256_GCM_SHA384", "ecdsa-with-SHA256")
    assert (ssl.key_algorithm, ssl.is_tls, ssl.has_certificate, ssl.is_verified) == ("EC256", True, True, True)


def test_tls_without_a_certificate_from_haproxy_is_not_called_verified() -> None:
    ssl = parse(FROM_HAPROXY["send-proxy-v2-ssl, ALPN"]).ssl
    assert ssl is not None
    assert (ssl.client, ssl.verify, ssl.common_name) == (
        1,
        0,
        None,
    )  # 0 says "good", of a certificate that is not there
    assert (ssl.is_tls, ssl.has_certificate, ssl.is_verified) == (True, False, False)


@pytest.mark.parametrize(
    ("words", "family", "source"),
    [
        ("proxy_protocol on", "tcp4", (LOOPBACK, 58746)),
        ("proxy_protocol on, IPv6", "tcp6", ("::1", 58732, 0, 0)),
        ("proxy_protocol on, an IPv4 client at an IPv6 socket", "tcp6", (LOOPBACK, 59944)),
        ("proxy_protocol on, a client at a Unix socket", "unspec", None),
    ],
)
def test_addresses_from_nginx_are_read(words: str, family: str, source: object) -> None:
    header = parse(FROM_NGINX[words])
    assert (header.version, header.command, header.family, header.source) == (1, "PROXY", family, source)


# Pieces


@pytest.mark.parametrize("data", GOOD)
def test_header_that_comes_in_two_pieces_is_the_same_at_every_split(data: bytes) -> None:
    expected = parse(data)
    for split in range(len(data) + 1):
        parser = ProxyParser()
        first = parser.feed(data[:split])
        assert first == (expected if split == len(data) else None)
        assert parser.feed(data[split:] + b"hello") == expected
        assert parser.rest == b"hello"


def test_header_that_comes_in_three_pieces_is_the_same_at_every_split() -> None:
    data = FROM_HAPROXY["send-proxy-v2"]
    expected = parse(data)
    for one, two in combinations(range(len(data) + 1), 2):
        parser = ProxyParser()
        assert parser.feed(data[:one]) is None
        parser.feed(data[one:two])
        assert parser.feed(data[two:]) == expected


@pytest.mark.parametrize("data", GOOD)
def test_header_that_comes_byte_by_byte_wants_no_more_than_there_is(data: bytes) -> None:
    parser = ProxyParser()
    for position in range(len(data)):
        assert 0 < parser.wanted <= len(data) - position
        assert parser.rest == b""
        header = parser.feed(data[position : position + 1])
    assert header == parse(data)
    assert parser.wanted == 0


@pytest.mark.parametrize("data", GOOD)
def test_reader_that_reads_what_is_wanted_never_reads_beyond_the_header(data: bytes) -> None:
    parser, stream, header = ProxyParser(), data + b"hello", None
    while header is None:
        piece, stream = stream[: parser.wanted], stream[parser.wanted :]
        header = parser.feed(piece)
    assert (stream, parser.rest) == (b"hello", b"")


@given(st.sampled_from(GOOD), st.binary(max_size=300), st.data())
def test_header_in_any_pieces_is_the_same(data: bytes, behind: bytes, draw: st.DataObject) -> None:
    stream = data + behind
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parser = ProxyParser()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        header = parser.feed(stream[start:end])
    assert header == parse(data)
    assert parser.rest == behind


def test_bytes_after_the_header_are_kept_in_order() -> None:
    parser = ProxyParser()
    header = parser.feed(v1(b"UNKNOWN") + b"one ")
    assert parser.feed(b"two ") is header
    assert parser.feed(b"") is header
    parser.feed(v1(b"UNKNOWN"))  # only the first one is a header
    assert parser.rest == b"one two PROXY UNKNOWN\r\n"
    parser.end()


# What is built and read again


@given(
    st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4), st.integers(0, 65535), st.integers(0, 65535)
)
def test_ipv4_addresses_are_the_same_in_both_versions(source: bytes, destination: bytes, one: int, two: int) -> None:
    text = [".".join(map(str, packed)) for packed in (source, destination)]
    binary = parse(v2(0x11, source + destination + one.to_bytes(2, "big") + two.to_bytes(2, "big")))
    line = parse(v1(f"TCP4 {text[0]} {text[1]} {one} {two}".encode()))
    assert (binary.source, binary.destination) == ((text[0], one), (text[1], two))
    assert (line.source, line.destination, line.family) == (binary.source, binary.destination, binary.family)


@given(st.ip_addresses(v=6), st.ip_addresses(v=6), st.integers(0, 65535), st.booleans())
def test_ipv6_addresses_are_the_same_in_both_versions_and_notations(
    source: object, destination: object, port: int, long: bool
) -> None:
    packed = source.packed + destination.packed  # type: ignore[attr-defined]  # hypothesis gives both kinds one type
    binary = parse(v2(0x21, packed + port.to_bytes(2, "big") * 2))
    text = [address.exploded.upper() if long else str(address) for address in (source, destination)]  # type: ignore[attr-defined]  # the same
    line = parse(v1(f"TCP6 {text[0]} {text[1]} {port} {port}".encode()))
    assert (line.source, line.destination) == (binary.source, binary.destination)


@pytest.mark.parametrize("kind", [0x11, 0x12])
def test_datagrams_have_addresses_like_streams(kind: int) -> None:
    header = parse(v2(kind, V4))
    assert (header.family, header.source) == ("tcp4" if kind == 0x11 else "udp4", ("192.0.2.1", 4711))
    assert parse(v2(kind + 0x10, V6)).destination == ("2001:db8::2", 443, 0, 0)


def test_unix_addresses_are_paths() -> None:
    header = parse(v2(0x31, PATHS))
    assert (header.family, header.source, header.destination) == ("unix", "/run/client", "/run/server")


def test_unix_addresses_are_what_the_socket_module_calls_them() -> None:
    longest, undecodable = b"/" + b"x" * 107, b"/\xff".ljust(108, b"\0")
    header = parse(v2(0x32, longest + undecodable))
    assert (header.source, header.destination) == (longest.decode(), "/\udcff")
    header = parse(v2(0x31, b"\0name".ljust(108, b"\0") + bytes(108)))
    assert (header.source, header.destination) == (b"\0name", "")


def test_ipv4_clients_of_a_dual_stack_load_balancer_have_ipv4_addresses() -> None:
    header = parse(v1(b"TCP6 ::FFFF:192.0.2.1 ::ffff:c000:202 4711 443"))
    assert (header.source, header.destination) == (("192.0.2.1", 4711), ("192.0.2.2", 443))


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x02, 0x10, 0x20, 0x30])
@pytest.mark.parametrize("body", [b"", b"what nobody knows", V4])
def test_addresses_of_an_unspecified_kind_are_ignored(kind: int, body: bytes) -> None:
    header = parse(v2(kind, body))
    assert (header.command, header.family, header.source, header.destination) == ("PROXY", "unspec", None, None)


def test_fields_behind_an_unspecified_kind_are_read() -> None:
    assert parse(v2(0x00, fields((2, b"example.com")))).authority == "example.com"
    with_others = v2(0x00, fields((2, b"example.com")) + b"x")
    assert parse(with_others).tlvs == ()


@pytest.mark.parametrize("kind", [0x00, 0x11, 0x99])
@pytest.mark.parametrize("body", [b"", b"whatever", V4 + fields((5, b"i" * 129))])
def test_what_a_local_header_brings_is_ignored(kind: int, body: bytes) -> None:
    assert parse(v2(kind, body, command=0x20)) == ProxyHeader(2, "LOCAL", "unspec")


def test_whatever_unknown_brings_is_ignored() -> None:
    for more in (b"", b" ", b" 1 2 3 4 5 6", b" \xff\0", b" \r"):
        assert parse(v1(b"UNKNOWN" + more)) == ProxyHeader(1, "PROXY", "unspec")


def test_header_of_the_greatest_length_is_read() -> None:
    header = parse(v2(0x11, V4 + fields((0xE0, bytes(65535 - 12 - 3)))))
    assert len(header.tlvs[0][1]) == 65520


# What is refused

LINE = b"TCP4 192.0.2.1 192.0.2.2 4711 443"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (b"TCP4 192.0.2.01 192.0.2.2 4711 443", "has the address b'192.0.2.01'"),
        (b"TCP4 192.0.2.256 192.0.2.2 4711 443", "has the address b'192.0.2.256'"),
        (b"TCP4 192.0.2 192.0.2.2 4711 443", "has the address b'192.0.2'"),
        (b"TCP4 192.0.2.1 0x7f.1.1.1 4711 443", "has the address b'0x7f.1.1.1'"),
        (b"TCP4 ::1 192.0.2.2 4711 443", "is for TCP4 and has the address b'::1'"),
        (b"TCP6 192.0.2.1 ::1 4711 443", "is for TCP6 and has the address b'192.0.2.1'"),
        (b"TCP6 ::1%lo ::1 4711 443", "has the address b'::1%lo'"),
        (b"TCP6 [::1] ::1 4711 443", "has the address b'[::1]'"),
        (b"TCP6 1::2::3 ::1 4711 443", "has the address b'1::2::3'"),
        (b"TCP6 12345::1 ::1 4711 443", "has the address b'12345::1'"),
        (b"TCP6 1:2:3:4:5:6:7:8:9 ::1 4711 443", "has the address b'1:2:3:4:5:6:7:8:9'"),
        (b"TCP6 ::\xb2 ::1 4711 443", r"has the address b'::\xb2'"),
        (b"TCP6 ::1\0 ::1 4711 443", r"has the address b'::1\x00'"),
        (b"TCP4 192.0.2.1 192.0.2.2 04711 443", "has the port b'04711'"),
        (b"TCP4 192.0.2.1 192.0.2.2 4711 00", "has the port b'00'"),
        (b"TCP4 192.0.2.1 192.0.2.2 65536 443", "has the port b'65536'"),
        (b"TCP4 192.0.2.1 192.0.2.2 -1 443", "has the port b'-1'"),
        (b"TCP4 192.0.2.1 192.0.2.2 +1 443", "has the port b'+1'"),
        (b"TCP4 192.0.2.1 192.0.2.2 1_0 443", "has the port b'1_0'"),
        (b"TCP4 192.0.2.1 192.0.2.2 4711 443\r", r"has the port b'443\r'"),
        (b"TCP4 192.0.2.1 192.0.2.2 4711 \xd9\xa1", r"has the port b'\xd9\xa1'"),
        (b"TCP4 192.0.2.1 192.0.2.2 4711 ", "has the port b''"),
        (b"TCP4 192.0.2.1 192.0.2.2 4711", "has 3 words after TCP4"),
        (b"TCP4 192.0.2.1 192.0.2.2 4711 443 ", "has 5 words after TCP4"),
        (b"TCP4  192.0.2.1 192.0.2.2 4711 443", "has 5 words after TCP4"),
        (b"TCP4\t192.0.2.1 192.0.2.2 4711 443", r"is for b'TCP4\t192.0.2.1'"),
        (b"TCP4", "has 1 words after TCP4"),
        (b"UDP4 192.0.2.1 192.0.2.2 4711 443", "is for b'UDP4'"),
        (b"tcp4 192.0.2.1 192.0.2.2 4711 443", "is for b'tcp4'"),
        (b" TCP4 192.0.2.1 192.0.2.2 4711 443", "is for b''"),
        (b"UNKNOWNS", "is for b'UNKNOWNS'"),
        (b"", "is for b''"),
    ],
)
def test_line_that_breaks_a_rule_is_refused(told: bytes, reason: str) -> None:
    assert reason in refusal(v1(told))


def test_line_that_ends_with_lf_alone_is_refused() -> None:
    assert "LF alone" in refusal(b"PROXY " + LINE + b"\n")
    assert "LF alone" in refusal(b"PROXY UNKNOWN\n\r\n")
    assert "LF alone" in refusal(b"PROXY \n")


def test_line_that_ends_with_cr_alone_waits_for_its_end() -> None:
    parser = ProxyParser()
    assert parser.feed(b"PROXY " + LINE + b"\r") is None
    assert parser.wanted == 1


def test_line_has_its_end_within_107_bytes() -> None:
    longest = b"PROXY UNKNOWN ".ljust(105, b"x")
    assert parse(longest + b"\r\n").family == "unspec"
    assert "within 107 bytes" in refusal(longest + b"x\r\n")
    assert "within 107 bytes" in refusal(longest + b"xx\r\n")
    parser = ProxyParser()
    with pytest.raises(ProxyError, match="within 107 bytes"):
        parser.feed(b"PROXY " + bytes(1_000_000))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (v2(0x11, V4, command=0x11), "is of version 1"),
        (v2(0x11, V4, command=0x31), "is of version 3"),
        (v2(0x11, V4, command=0x22), "has the command 2"),
        (v2(0x11, V4, command=0x2F), "has the command 15"),
        (v2(0x41, V4), "0x41, which does not exist"),
        (v2(0x13, V4), "0x13, which does not exist"),
        (v2(0xFF, V4), "0xff, which does not exist"),
        (v2(0x11, V4[:-1]), "has 11 bytes for addresses, and tcp4 needs 12"),
        (v2(0x12, b""), "has 0 bytes for addresses, and udp4 needs 12"),
        (v2(0x21, V6[:-1]), "has 35 bytes for addresses, and tcp6 needs 36"),
        (v2(0x32, PATHS[:-1]), "has 215 bytes for addresses, and unix needs 216"),
    ],
)
def test_binary_header_that_breaks_a_rule_is_refused(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


@pytest.mark.parametrize("data", [v2(0x11, command=0x11), v2(0x11, V4, command=0x22), v2(0x41), v2(0x11, length=11)])
def test_binary_header_is_refused_as_soon_as_its_fixed_part_is_there(data: bytes) -> None:
    parser = ProxyParser()
    assert parser.feed(data[:15]) is None
    with pytest.raises(ProxyError):
        parser.feed(data[15:16])


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\0", b"PROXY\r\n", b"PROXYTCP4", b"\r\n\r\nx"]
)
def test_connection_that_begins_otherwise_is_refused(data: bytes) -> None:
    assert "does not begin with a PROXY header" in refusal(data)


@pytest.mark.parametrize("begin", [b"PROXY ", SIGNATURE])
def test_connection_that_begins_otherwise_is_refused_at_its_first_other_byte(begin: bytes) -> None:
    for position in range(len(begin)):
        parser = ProxyParser()
        assert parser.feed(begin[:position]) is None
        with pytest.raises(ProxyError, match="does not begin"):
            parser.feed(b"?")


def test_parser_that_has_refused_goes_on_refusing() -> None:
    parser = ProxyParser()
    with pytest.raises(ProxyError) as first:
        parser.feed(v1(b"TCP5"))
    with pytest.raises(ProxyError) as again:
        parser.feed(v1(b"UNKNOWN"))
    with pytest.raises(ProxyError) as at_the_end:
        parser.end()
    assert str(again.value) == str(at_the_end.value) == str(first.value)
    assert (parser.wanted, parser.rest) == (0, b"")


@pytest.mark.parametrize("fed", [v1(b"TCP5"), v1(LINE)[:20]], ids=["at its header", "at its end"])
def test_parser_that_has_refused_is_gone_with_its_last_user(fed: bytes, no_gc: None) -> None:
    parser = ProxyParser()
    with suppress(ProxyError):
        parser.feed(fed)
    with suppress(ProxyError):
        parser.end()
    gone = weakref.ref(parser)
    del parser
    assert gone() is None, "it is kept by its own error"


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("data", [v1(LINE), v2(0x11, V4)])
def test_connection_that_ends_in_the_header_is_refused(data: bytes, optional: bool) -> None:
    for size in range(13, len(data)):
        parser = ProxyParser(optional=optional)
        assert parser.feed(data[:size]) is None
        with pytest.raises(ProxyError, match=f"ended after {size} bytes"):
            parser.end()


# Where a header is optional


@pytest.mark.parametrize("data", GOOD)
def test_optional_header_is_read_at_every_split(data: bytes) -> None:
    for split in range(len(data) + 1):
        parser = ProxyParser(optional=True)
        parser.feed(data[:split])
        assert parser.is_header is (True if split >= (6 if data[0] == ord("P") else 12) else None)
        assert parser.feed(data[split:] + b"hello") == parse(data)
        assert (parser.rest, parser.is_header) == (b"hello", True)


@pytest.mark.parametrize(
    "data", [b"hello\r\n", b"PROXY\r\nQUIT\r\n", b"P", b"PROX", SIGNATURE[:11], b"\r\n\r\n\r\n\r\n"]
)
def test_optional_header_that_is_none_leaves_every_byte_at_every_split(data: bytes) -> None:
    for split in range(len(data) + 1):
        parser = ProxyParser(optional=True)
        assert parser.feed(data[:split]) is None
        assert parser.feed(data[split:]) is None
        parser.end()
        assert (parser.rest, parser.is_header, parser.wanted) == (data, False, 0)
        assert parser.feed(b" more") is None
        parser.end()
        assert parser.rest == data + b" more"


def test_optional_header_that_breaks_a_rule_is_refused() -> None:
    with pytest.raises(ProxyError, match="TCP5"):
        ProxyParser(optional=True).feed(v1(b"TCP5"))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_optional_header_never_loses_a_byte(data: bytes, split: int) -> None:
    parser = ProxyParser(optional=True)
    header = None
    try:
        parser.feed(data[:split])
        header = parser.feed(data[split:])
        parser.end()
    except ProxyError:
        assert data.startswith((b"PROXY ", SIGNATURE))
        return
    assert data.endswith(parser.rest)
    assert (header is None) == (parser.rest == data)


# Where a header is only looked for


@pytest.mark.parametrize("begin", [b"PROXY ", SIGNATURE])
@pytest.mark.parametrize("behind", [b"", b"TCP5\r\n", b"\x99" * 100])
def test_looking_parser_says_that_a_header_has_begun_and_keeps_and_reads_nothing_of_it(
    begin: bytes, behind: bytes
) -> None:
    for cut in range(len(begin)):
        parser = ProxyParser(optional=True, only_looks=True)
        if cut:
            assert parser.feed(begin[:cut]) is None
            assert parser.is_header is None
            assert parser.wanted > 0
        assert parser.feed(begin[cut:] + behind) is None
        assert (parser.is_header, parser.wanted) == (True, 0)
        assert parser.feed(b"more") is None
        parser.end()
        assert (parser.rest, bytes(parser._seen)) == (b"", b"")


def test_looking_parser_does_not_compute_a_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.transport.proxy._from_block", lambda *_: pytest.fail("the header was read"))
    data = v2(0x11, V4 + fields((3, b"bad!"), (4, b"x" * 16000)))
    parser = ProxyParser(optional=True, only_looks=True)
    assert parser.feed(data) is None
    assert parser.is_header


@pytest.mark.parametrize("only_looks", [False, True])
@pytest.mark.parametrize("data", [b"GET / HTTP/1.1", b"PROXXY", b"\r\n\r\nhello", b"\x16\x03\x01"])
def test_looking_parser_leaves_every_byte_of_what_is_no_header(data: bytes, only_looks: bool) -> None:
    for cut in range(len(data)):
        parser = ProxyParser(optional=True, only_looks=only_looks)
        for piece in (data[:cut], data[cut:], b" behind"):
            assert parser.feed(piece) is None
        assert (parser.is_header, parser.rest) == (False, data + b" behind")


def test_looking_parser_takes_a_beginning_that_ends_for_no_header() -> None:
    parser = ProxyParser(optional=True, only_looks=True)
    assert parser.feed(b"PRO") is None
    parser.end()
    assert (parser.is_header, parser.rest) == (False, b"PRO")
