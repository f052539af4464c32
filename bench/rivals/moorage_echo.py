"""Moorage, function handler, echo: argv[1] is the runner; all else is the default."""

import signal
import sys

from moorage import Connection, Server


def echo(conn: Connection) -> None:
    while data := conn.recv(8192):
        conn.sendall(data)


with Server(echo, "127.0.0.1:0", runner=sys.argv[1]) as server:
    print(server.server_address[1], flush=True)
    signal.pause()
