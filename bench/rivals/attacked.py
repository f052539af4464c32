"""A server for the attack: lines are echoed, `big` is answered with a mebibyte.

argv[1] is JSON: `bind`, `runner`, `settings`. With BENCH_PEM in the environment it serves TLS with that certificate. It
prints its address as JSON, and for each line that it reads how many connections are open, and how many ended by which
cause.
"""

import json
import os
import sys
from collections import Counter
from typing import Any

from moorage import Connection, Server
from moorage.events import ConnectionClosed

BIG = b"x" * (1 << 20)


def serve(conn: Connection) -> None:
    while line := conn.readline():
        conn.sendall(BIG if line == b"big\n" else line)


def count(event: Any) -> None:
    causes[event.cause.value] += 1


causes: Counter[str] = Counter()
given = json.loads(sys.argv[1])
settings: dict[str, Any] = {
    name: tuple(value) if isinstance(value, list) else value for name, value in given["settings"].items()
}
if pem := os.environ.get("BENCH_PEM"):
    settings["tls_cert"] = (pem,)
with Server(serve, given["bind"], runner=given["runner"], **settings) as server:
    server.events.subscribe(count, ConnectionClosed)
    print(json.dumps(server.address), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"open": len(server.connections), "causes": causes}), flush=True)
