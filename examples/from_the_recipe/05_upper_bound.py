"""Recipe, row 5: the upper bound that the recipe says is missing.

Run it:  python 05_upper_bound.py [PORT]

At most `max_connections` clients are served at once.  The others wait in the listener's backlog, where
they cost this process nothing, and are served as places become free.
"""

import sys

from moorage import socketserver


class EchoHandler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class BoundedServer(socketserver.ThreadingTCPServer):
    max_connections = 10


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = BoundedServer(("127.0.0.1", port), EchoHandler)
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
