"""Moorage, the recipe's StreamRequestHandler, lines: argv[1] is the runner; all else is the default."""

import signal
import sys

from moorage import Server, StreamRequestHandler


class Echo(StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


with Server(Echo, "127.0.0.1:0", runner=sys.argv[1]) as server:
    print(server.server_address[1], flush=True)
    signal.pause()
