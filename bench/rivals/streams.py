"""asyncio streams: argv[1] is the loop (asyncio, uvloop), argv[2] what it does (echo, lines).

With BENCH_PEM in the environment it serves TLS 1.3 with that certificate, all else as Python's default context has it.
"""

import asyncio
import importlib
import os
import ssl
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


def tls() -> ssl.SSLContext | None:
    if (pem := os.environ.get("BENCH_PEM")) is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pem)
    return context


async def main() -> None:
    handler = {"echo": echo, "lines": lines}[sys.argv[2]]
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=tls())
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


with asyncio.Runner(loop_factory=importlib.import_module(sys.argv[1]).new_event_loop) as runner:
    runner.run(main())
