"""The load of a soak: clients of every kind, one after the other, for some time.

Run as a program: the argument is JSON with `address`, `clients` (at once), `seconds` and `seed`.  It prints one line
of JSON at the end: how often each kind was there, and what went otherwise than it should, a few of each kind.  It
ends when `seconds` are over and the last clients have left, which they do after `PATIENCE` seconds at the latest.
"""

import asyncio
import json
import random
import socket
import struct
import sys
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from .soak_handlers import LENGTH, POUR

PATIENCE = 20.0
PAUSE = 0.02  # seconds between two visits of one client, on average
ABORT = struct.pack("ii", 1, 0)

Talk = Callable[[StreamReader, StreamWriter, random.Random], Awaitable[None]]
KINDS: dict[str, tuple[str, Talk]] = {}


def kind(word: str) -> Callable[[Talk], Talk]:
    """A kind of client, and the first line that it says; one without a word says nothing by itself."""

    def add(talk: Talk) -> Talk:
        KINDS[talk.__name__] = (word, talk)
        return talk

    return add


async def ask(reader: StreamReader, writer: StreamWriter, data: bytes) -> None:
    """Send, and have it echoed."""
    writer.write(data)
    answer = await reader.readexactly(len(data))
    assert answer == data, "another answer than what was sent"


@kind("blocks")
async def churn(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    await ask(reader, writer, b"x" * 128)


@kind("blocks")
async def half_close(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    writer.write(b"x" * 5000)
    writer.write_eof()
    assert await reader.read() == b"x" * 5000


@kind("blocks")
async def reset(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    await ask(reader, writer, b"x" * 1000)
    writer.write(b"x" * chance.randrange(100_000))
    abort(writer)


@kind("pour")
async def reset_of_a_reply(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    await reader.readexactly(10_000)
    abort(writer)


@kind("pour")
async def slow_reader(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    left = POUR
    while left:
        left -= len(await reader.readexactly(min(left, 150_000)))
        await asyncio.sleep(0.02)
    assert await reader.read() == b""


@kind("pour")
async def no_reader(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    """Until the server gives up."""
    await asyncio.sleep(2.0)


@kind("lines")
async def many_lines(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    for _ in range(5):
        await ask(reader, writer, b"".join(b"%d\n" % chance.getrandbits(64) for _ in range(200)))


@kind("lines")
async def cut_line(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    await ask(reader, writer, b"whole\n")
    writer.write(b"half")
    writer.write_eof()
    assert await reader.read() == b"half"


@kind("counted")
async def big_messages(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    for size in (0, 10, 1_000_000, 300):
        await ask(reader, writer, LENGTH.pack(size) + bytes(size))


@kind("counted")
async def cut_message(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    writer.write(LENGTH.pack(5000) + bytes(chance.randrange(4999)))
    writer.write_eof()
    assert await reader.read() == b""


@kind("counted")
async def message_without_end(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    """The server gives up."""
    writer.write(LENGTH.pack(5000) + bytes(100))
    assert await reader.read() == b""


@kind("paragraphs")
async def paragraphs(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    for size in (1, 9000, 100):
        await ask(reader, writer, b"x" * size + b"\r\n\r\n")


@kind("impatient")
async def late(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    await asyncio.sleep(0.12)
    await ask(reader, writer, b"late")


@kind("siblings")
async def siblings(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    for _ in range(5):
        await ask(reader, writer, b"x" * 900)


@kind("busy")
async def busy(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    for _ in range(3):
        await ask(reader, writer, b"hello, world\n")


@kind("proxy")
async def proxied(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    await ask(reader, writer, b"x" * 700)


@kind("fail")
async def failing(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    assert await reader.read() == b""


@kind("leave")
async def unread(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    writer.write(bytes(10_000))
    assert await reader.read() == b"bye\n"


@kind("")
async def health_check(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    if chance.random() < 0.5:
        abort(writer)


@kind("")
async def idle(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    """Says nothing until it is told to go."""
    assert await reader.read() == b""


@kind("lines")
async def idle_between(reader: StreamReader, writer: StreamWriter, chance: random.Random) -> None:
    await ask(reader, writer, b"one\n")
    await asyncio.sleep(chance.random())
    await ask(reader, writer, b"two\n")


def abort(writer: StreamWriter) -> None:
    """Leave by a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    writer.transport.abort()


class Load:
    """All of them."""

    def __init__(self, address: Any, clients: int, seconds: float, seed: int) -> None:
        self._address = tuple(address)
        self._clients = clients
        self._seconds = seconds
        self._chance = random.Random(seed)
        self.visits: Counter[str] = Counter()
        self.faults: dict[str, list[str]] = {}

    async def run(self) -> None:
        until = asyncio.get_running_loop().time() + self._seconds
        await asyncio.gather(*(self._come_again(until) for _ in range(self._clients)))

    async def _come_again(self, until: float) -> None:
        names = list(KINDS)
        while asyncio.get_running_loop().time() < until:
            name = self._chance.choice(names)
            try:
                await asyncio.wait_for(self._visit(*KINDS[name]), PATIENCE)
            except (OSError, AssertionError, EOFError, TimeoutError) as error:
                self.faults.setdefault(name, []).append(repr(error)[:200])
            self.visits[name] += 1
            await asyncio.sleep(self._chance.random() * 2 * PAUSE)

    async def _visit(self, word: str, talk: Talk) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            if word:
                writer.write(f"{word}\n".encode())
            await talk(reader, writer, self._chance)
        finally:
            writer.transport.abort() if word == "pour" else writer.close()


def main() -> None:
    load = Load(**json.loads(sys.argv[1]))
    asyncio.run(load.run())
    print(json.dumps({"visits": load.visits, "faults": {name: said[:5] for name, said in load.faults.items()}}))


if __name__ == "__main__":
    main()
