"""asyncio streams: argv[1] is the loop (asyncio, uvloop), argv[2] what it does (echo, lines)."""

import asyncio
import importlib
import sys
from asyncio import StreamReader, StreamWriter


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(8192):
        writer.write(data)
        await writer.drain()
    writer.close()


async def lines(reader: StreamReader, writer: StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def main() -> None:
    handler = {"echo": echo, "lines": lines}[sys.argv[2]]
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


with asyncio.Runner(loop_factory=importlib.import_module(sys.argv[1]).new_event_loop) as runner:
    runner.run(main())
