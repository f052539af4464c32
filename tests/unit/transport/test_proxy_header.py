"""ProxyHeader: its fields, their rules, and the checksum."""

import dataclasses

import crc32c as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.transport.proxy import ProxyParser
from moorage.transport.proxy_header import ProxyError, ProxyHeader, ProxySsl, checked_tlvs, crc32c
from support.proxy_bytes import PATHS, V4, V6, fields, v2, with_checksum


def header(*tlvs: tuple[int, bytes]) -> ProxyHeader:
    """What a parser makes of these fields."""
    parsed = ProxyParser().feed(v2(0x11, V4 + fields(*tlvs)))
    assert parsed is not None
    return parsed


def refusal(more: bytes) -> str:
    """The sentence for these bytes behind the addresses."""
    with pytest.raises(ProxyError) as caught:
        ProxyParser().feed(v2(0x11, V4 + more))
    return str(caught.value)


def test_header_without_fields_says_nothing() -> None:
    bare = header()
    assert (bare.tlvs, bare.alpn, bare.authority, bare.unique_id, bare.ssl) == ((), None, None, None, None)


def test_fields_are_kept_in_their_order_also_those_that_nobody_knows() -> None:
    sent = ((0xE0, b"ours"), (0x30, b"space"), (0x00, b""), (0xFF, b"\0"), (0xE0, b"again"))
    assert header(*sent).tlvs == sent


def test_padding_is_left_out() -> None:
    assert header((4, b""), (1, b"h2"), (4, bytes(40))).tlvs == ((1, b"h2"),)


def test_field_that_comes_twice_counts_as_it_came_first() -> None:
    twice = header((2, b"one.example"), (2, b"two.example"), (5, b"1"), (5, b"2"), (1, b"a"), (1, b"b"))
    assert (twice.authority, twice.unique_id, twice.alpn) == ("one.example", b"1", b"a")
    assert len(twice.tlvs) == 6


def test_empty_field_is_there() -> None:
    empty = header((2, b""), (5, b""), (1, b""))
    assert (empty.authority, empty.unique_id, empty.alpn) == ("", b"", b"")


def test_authority_is_text() -> None:
    assert header((2, "bücher.example".encode())).authority == "bücher.example"
    assert "the authority of the PROXY header is not UTF-8 text: b'\\xff'" in refusal(fields((2, b"\xff")))
    assert len(refusal(fields((2, b"\xff" * 60_000)))) < 200


def test_unique_id_has_at_most_128_bytes() -> None:
    assert header((5, b"\xff" * 128)).unique_id == b"\xff" * 128
    assert "has 129 bytes, of at most 128" in refusal(fields((5, b"x" * 129)))


@pytest.mark.parametrize("kind", [0x00, 0xE0])
def test_bytes_that_are_no_field_are_refused(kind: int) -> None:
    good = fields((kind, b"value"))
    for size in range(1, len(good)):
        reason = "are no field" if size < 3 else f"has 5 bytes, and {size - 3} are left"
        assert reason in refusal(fields((1, b"h2")) + good[:size])


# TLS at the load balancer

SUBFIELDS = ((0x21, b"TLSv1.3"), (0x22, "Zoë".encode()), (0x23, b"AES"), (0x24, b"SHA256"), (0x25, b"RSA2048"))


def test_tls_field_tells_of_the_clients_tls() -> None:
    told = header((0x20, b"\x03\0\0\0\x0a" + fields(*SUBFIELDS))).ssl
    assert told == ProxySsl(3, 10, "TLSv1.3", "Zoë", "AES", "SHA256", "RSA2048", SUBFIELDS)
    assert (told.is_tls, told.has_certificate, told.is_verified) == (True, True, False)


def test_tls_field_may_be_bare() -> None:
    assert header((0x20, bytes(5))).ssl == ProxySsl(0, 0)


@pytest.mark.parametrize(
    ("client", "verify", "certificate", "verified"),
    [(1, 0, False, False), (1, 1, False, False), (3, 0, True, True), (5, 0, True, True), (7, 1, True, False)],
)
def test_client_is_verified_when_its_certificate_was_found_good(
    client: int, verify: int, certificate: bool, verified: bool
) -> None:
    told = ProxySsl(client, verify)
    assert (told.is_tls, told.has_certificate, told.is_verified) == (True, certificate, verified)


def test_tls_field_keeps_what_nobody_knows() -> None:
    told = header((0x20, bytes(5) + fields((0x26, b"X25519"), (0x21, b"TLSv1.3")))).ssl
    assert told is not None
    assert told.tlvs == ((0x26, b"X25519"), (0x21, b"TLSv1.3"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "has 0 bytes, of at least 5"),
        (bytes(4), "has 4 bytes, of at least 5"),
        (bytes(7), "ends with 2 bytes that are no field"),
        (bytes(5) + b"\x21\0\x02x", "field 0x21 of the PROXY header has 2 bytes, and 1 are left"),
        (bytes(5) + fields((0x21, b"\xff")), "the TLS version of the PROXY header is not ASCII text"),
        (bytes(5) + fields((0x22, b"\xff")), "the common name of the PROXY header is not UTF-8 text"),
        (bytes(5) + fields((0x23, b"\xff")), "the cipher of the PROXY header is not ASCII text"),
        (bytes(5) + fields((0x24, b"\xff")), "the signature algorithm of the PROXY header is not ASCII text"),
        (bytes(5) + fields((0x25, b"\xff")), "the key algorithm of the PROXY header is not ASCII text"),
    ],
)
def test_tls_field_that_breaks_a_rule_is_refused(value: bytes, reason: str) -> None:
    assert reason in refusal(fields((0x20, value)))


# The checksum


def test_checksum_has_the_value_that_everybody_has() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert crc32c(b"") == 0


@given(st.binary(max_size=300))
def test_checksum_is_that_of_another_implementation(data: bytes) -> None:
    assert crc32c(data) == oracle.crc32c(data)


@pytest.mark.parametrize(("kind", "addresses"), [(0x11, V4), (0x21, V6), (0x31, PATHS), (0x00, b"")])
def test_checksum_that_is_right_is_taken_wherever_it_stands(kind: int, addresses: bytes) -> None:
    for before, after in ([], b""), ([(1, b"h2"), (4, b"pad")], fields((2, b"example.com"))):
        assert ProxyParser().feed(with_checksum(kind, addresses, before, after)) is not None


@pytest.mark.parametrize("kind", [0x11, 0x00])
def test_checksum_that_is_wrong_in_any_bit_of_the_header_is_refused(kind: int) -> None:
    good = with_checksum(kind, V4 if kind else b"", [(1, b"h2")], fields((0xE0, b"x")))
    for position in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            parser, answer = ProxyParser(), None
            try:
                answer = parser.feed(bytes(bad))
            except ProxyError:
                continue
            # a longer length waits for more; LOCAL, no fields or other fields: there is no checksum left to look at
            assert answer is None or (3 not in dict(answer.tlvs))


def test_checksum_has_four_bytes_and_comes_once() -> None:
    assert "has 3 bytes, not 4" in refusal(fields((3, bytes(3))))
    assert "has 5 bytes, not 4" in refusal(fields((3, bytes(5))))
    assert "is wrong" in refusal(fields((3, bytes(4))))
    assert "has 2 checksums" in refusal(fields((3, bytes(4)), (3, bytes(4))))


# What is promised


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8))
def test_fields_that_were_checked_have_no_property_that_raises(tlvs: list[tuple[int, bytes]]) -> None:
    try:
        checked = checked_tlvs(fields(*tlvs), 0)
    except ProxyError:
        return
    found = ProxyHeader(2, "PROXY", "unspec", tlvs=checked)
    assert checked == tuple((kind, value) for kind, value in tlvs if kind != 4)
    for kind, said in (1, found.alpn), (2, found.authority), (5, found.unique_id), (0x20, found.ssl):
        assert (said is None) == (kind not in dict(tlvs))


def test_header_cannot_be_changed_but_told_who_sent_it() -> None:
    found = header((1, b"h2"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.version = 3  # type: ignore[misc]  # what the test is about
    sent = dataclasses.replace(found, via=("10.0.0.1", 4711))
    assert (sent.via, sent.source, sent.alpn) == (("10.0.0.1", 4711), found.source, b"h2")
