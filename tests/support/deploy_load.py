"""Clients that never stop: each connects, has ten blocks echoed, checks every byte, and closes.

Run as a program: `deploy_load.py HOST PORT CLIENTS`.  Writes a JSON object a line: every failure as it happens, and
the number of visits whenever a line comes on standard input; ends with its input.

Promises  a visit counts only when all its bytes came back and end of stream followed; everything else is a
          failure, with the process that served it, where that was known.
"""

import asyncio
import json
import random
import sys
from typing import Any

BLOCKS = 10
LARGEST = 3000
#: longer than any pause that a deploy may cause, shorter than a test's patience
PATIENCE = 15.0


class Load:
    """All clients and their count."""

    def __init__(self, host: str, port: int, clients: int) -> None:
        self._where = host, port
        self._clients = clients
        self._is_over = False
        self.visits = 0
        self.failures = 0

    async def run(self) -> None:
        """Visit until standard input ends."""
        clients = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        await self._answer()
        self._is_over = True
        await asyncio.gather(*clients)
        self._say(visits=self.visits, failures=self.failures, is_over=True)

    async def _answer(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while await reader.readline():
            self._say(visits=self.visits, failures=self.failures)

    async def _client(self, number: int) -> None:
        chance = random.Random(number)
        while not self._is_over:
            told: dict[str, Any] = {"pid": None, "step": "connect"}
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._visit(chance, told)
                self.visits += 1
            except (OSError, EOFError, ValueError) as error:  # a TimeoutError is an OSError
                self.failures += 1
                self._say(failure=repr(error), **told)
                if told["step"] == "connect":  # refused: there may be nobody to connect to for a while
                    await asyncio.sleep(0.01)

    async def _visit(self, chance: random.Random, told: dict[str, Any]) -> None:
        reader, writer = await asyncio.open_connection(*self._where)
        try:
            told["step"] = "hello"
            told["pid"] = int(await reader.readuntil(b"\n"))
            for block in range(BLOCKS):
                told["step"] = f"block {block}"
                data = chance.randbytes(chance.randrange(1, LARGEST))
                writer.write(data)
                await writer.drain()
                if await reader.readexactly(len(data)) != data:
                    raise ValueError("other bytes came back")
            told["step"] = "end"
            writer.write_eof()
            if await reader.read(1):
                raise ValueError("more came back than was sent")
        finally:
            writer.transport.abort()

    def _say(self, **what: Any) -> None:
        print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(Load(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).run())
