"""Recipe, row 2: the same with a file-like interface; the echo is line by line.

Run it:  moorage run 02_stream_handler.py [PORT]
"""

import socketserver
import sys


class EchoHandler(socketserver.StreamRequestHandler):
    def handle(self):
        print("got a connection from", self.client_address, flush=True)
        for line in self.rfile:  # self.rfile is a file-like object for reading
            self.wfile.write(line)  # self.wfile is a file-like object for writing


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = socketserver.TCPServer(("127.0.0.1", port), EchoHandler)
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
