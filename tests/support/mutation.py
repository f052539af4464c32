"""Mutation: what a good input becomes when something happens to it on its way.

Owns      the kinds of damage; the same seed gives the same inputs, so that a failure can be seen again.
"""

import random
from collections.abc import Callable, Iterator, Sequence

__all__ = ["mutants"]

#: bytes that mean something to one parser or another
TELLING = b"\0\x01\x02\x03\x04\x05\x0a\x0d\x10\x11\x12\x20\x21\x22\x30\x31\x32\x7f\x80\xff .:019+-_%[]{}=\"'#\\aAfFgPT"
MOST_DAMAGES = 3
KEPT = 0.8


def mutants(
    seeds: Sequence[bytes], count: int, seed: int, intact: Callable[[bytes], int] = lambda data: 0
) -> Iterator[bytes]:
    """So many damaged inputs, each from one of these good ones.

    `intact` says how many bytes of an input have to be right for the rest to be looked at; most mutants keep them.
    """
    chance = random.Random(seed)
    for _ in range(count):
        good = chance.choice(seeds)
        keep = intact(good) if chance.random() < KEPT else 0
        data = bytearray(good[keep:])
        for _ in range(chance.randint(1, MOST_DAMAGES)):
            chance.choice(_DAMAGES)(data, chance, seeds)
        yield good[:keep] + data


def _somewhere(data: bytearray, chance: random.Random) -> int:
    return int(chance.random() * len(data))


def _flip(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[_somewhere(data, chance)] ^= 1 << chance.getrandbits(3)


def _replace(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[_somewhere(data, chance)] = chance.choice(TELLING)


def _step(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    """A number becomes the next one."""
    if data:
        at = _somewhere(data, chance)
        data[at] = (data[at] + chance.choice((1, 255))) & 0xFF


def _insert(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    data.insert(_somewhere(data, chance), chance.choice(TELLING))


def _remove(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    at = _somewhere(data, chance)
    del data[at : at + chance.choice((1, 1, 2, 8))]


def _repeat(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    at = _somewhere(data, chance)
    data[at:at] = data[at : at + chance.choice((1, 4, 16, 64))]


def _swap(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    if data:
        one, two = _somewhere(data, chance), _somewhere(data, chance)
        data[one], data[two] = data[two], data[one]


def _truncate(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    del data[_somewhere(data, chance) :]


def _splice(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    """The end of another one."""
    other = chance.choice(seeds)
    at = _somewhere(data, chance)
    data[at:] = other[min(at, len(other)) :]


_DAMAGES: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    _flip, _replace, _step, _insert, _remove, _repeat, _swap, _truncate, _splice,
)  # fmt: skip
