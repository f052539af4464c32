"""Recipe, row 4: many clients at once, each served by a thread of its own.

Run it:  moorage run 04_threading_server.py [PORT]

Under Moorage the threads have an upper bound, `max_connections`, and are used again.
"""

import socketserver
import sys


class EchoHandler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = socketserver.ThreadingTCPServer(("127.0.0.1", port), EchoHandler)
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
