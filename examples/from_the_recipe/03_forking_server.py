"""Recipe, row 3: many clients at once, each served by a process of its own.

Run it:  moorage run 03_forking_server.py [PORT]

Under Moorage the number of processes has an upper bound, `max_children`.
"""

import os
import socketserver
import sys


class EchoHandler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"%d: " % os.getpid() + line)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = socketserver.ForkingTCPServer(("127.0.0.1", port), EchoHandler)
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
