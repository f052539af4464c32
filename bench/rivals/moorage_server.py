"""Moorage: argv[1] is the handler, argv[2] the runner, argv[3] the Connection it must have (native, pure or any).

Further arguments are settings, NAME=NUMBER; all else is the default. With BENCH_PEM in the environment it serves TLS
1.3 with that certificate. A server that has the other Connection than the
one asked for ends with a sentence, so that no number stands under the wrong name.
"""

import inspect
import os
import signal
import sys
from typing import Any

from moorage import Connection, Server, StreamRequestHandler


def echo(conn: Connection) -> None:
    while data := conn.recv(8192):
        conn.sendall(data)


def big(conn: Connection) -> None:
    while data := conn.recv(1 << 20):
        conn.sendall(data)


class Lines(StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


handlers = {"echo": echo, "big": big, "lines": Lines}
handler, runner, wanted, *given = sys.argv[1:]
settings: dict[str, Any] = {name: int(value) for name, _, value in (each.partition("=") for each in given)}
if pem := os.environ.get("BENCH_PEM"):
    settings |= {"tls_cert": (pem,), "tls_min_version": "1.3"}
found = "pure" if inspect.isfunction(Connection.recv) else "native"
if wanted not in ("any", found):
    sys.exit(f"asked for the {wanted} Connection, and this is the {found} one")
with Server(handlers[handler], "127.0.0.1:0", runner=runner, **settings) as server:
    print(server.server_address[1], flush=True)
    signal.pause()
