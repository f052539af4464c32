"""Recipe, row 1: an echo server, one client at a time.

Run it:  moorage run 01_tcp_server.py [PORT]

The program is the book's: nothing in it knows of Moorage.
"""

import socketserver
import sys


class EchoHandler(socketserver.BaseRequestHandler):
    def handle(self):
        print("got a connection from", self.client_address, flush=True)
        while True:
            msg = self.request.recv(8192)
            if not msg:
                break
            self.request.send(msg)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = socketserver.TCPServer(("127.0.0.1", port), EchoHandler)
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
