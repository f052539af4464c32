"""Recipe, row 8: `allow_reuse_address`, to bind the same port again at once after a restart.

Run it:  moorage run 08_reuse_address.py [PORT]
"""

import socketserver
import sys


class EchoHandler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    socketserver.TCPServer.allow_reuse_address = True
    server = socketserver.TCPServer(("127.0.0.1", port), EchoHandler)
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
