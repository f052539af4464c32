"""Recipe, row 7: socket options set by hand, between making the socket and binding it.

Run it:  moorage run 07_options_by_hand.py [PORT]
"""

import socket
import socketserver
import sys


class EchoHandler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = socketserver.TCPServer(("127.0.0.1", port), EchoHandler, bind_and_activate=False)
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    server.server_bind()
    server.server_activate()
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
