"""A million damaged PROXY headers: one kind of error, one answer however they are cut."""

import re
from collections import Counter
from typing import Any

import pytest

from moorage.transport.proxy import ProxyError, ProxyParser
from support.mutation import mutants
from support.proxy_bytes import GOOD, beginning

#: how much of other bytes an error shows depends on how much of them has come
SHOWN = re.compile(r"(?<=begin with a PROXY header): .*")
#: what comes behind a header: none of it may be lost or looked at
BEHIND = b"PROXY behind"
Outcome = tuple[str, Any, bytes]


def outcome(pieces: list[bytes]) -> Outcome:
    """What the parser says of these pieces: a header and the rest, an error, or that more is needed."""
    parser, header = ProxyParser(), None
    try:
        for piece in pieces:
            header = parser.feed(piece)
    except ProxyError as error:
        assert parser.wanted == 0
        return "error", SHOWN.sub("", str(error)), b""
    if header is None:
        assert parser.wanted > 0
        return "more", None, b""
    _ = header.authority, header.alpn, header.unique_id, header.ssl  # none of them may raise
    return "header", header, parser.rest


def survey(count: int, seed: int) -> Counter[str]:
    """How many outcomes of each kind; every input is fed whole, in two pieces, and byte by byte."""
    kinds: Counter[str] = Counter()
    for number, data in enumerate(mutants(GOOD, count, seed, beginning)):
        stream = data + BEHIND
        whole = outcome([stream])
        cut = number % len(stream)
        assert outcome([stream[:cut], stream[cut:]]) == whole, (seed, number, data, cut)
        assert outcome([stream[i : i + 1] for i in range(len(stream))]) == whole, (seed, number, data)
        kinds[whole[0]] += 1
    return kinds


def test_damaged_headers_raise_proxy_error_alone_however_they_are_cut() -> None:
    kinds = survey(20_000, seed=1)
    assert min(kinds["header"], kinds["error"], kinds["more"]) > 500, kinds


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(10, 20))
def test_a_million_damaged_headers_raise_proxy_error_alone(seed: int) -> None:
    kinds = survey(100_000, seed)
    assert min(kinds["header"], kinds["error"], kinds["more"]) > 5000, kinds
