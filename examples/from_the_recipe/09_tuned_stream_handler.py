"""Recipe, row 9: the class settings of `StreamRequestHandler`.

Run it:  moorage run 09_tuned_stream_handler.py [PORT [TIMEOUT]]
"""

import socket
import socketserver
import sys


class EchoHandler(socketserver.StreamRequestHandler):
    timeout = 5  # for all socket operations
    rbufsize = -1  # read buffer size
    wbufsize = 0  # write buffer size
    disable_nagle_algorithm = False  # whether to set TCP_NODELAY

    def handle(self):
        try:
            for line in self.rfile:
                self.wfile.write(line)
        except socket.timeout:
            print("timed out!", flush=True)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    EchoHandler.timeout = float(sys.argv[2]) if len(sys.argv) > 2 else EchoHandler.timeout
    server = socketserver.TCPServer(("127.0.0.1", port), EchoHandler)
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
