"""Recipe, row 6: a pre-allocated pool of threads, as a class.

Run it:  python 06_thread_pool.py [PORT]
"""

import sys

from moorage import socketserver


class EchoHandler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class PooledServer(socketserver.ThreadPoolTCPServer):
    threads = 17


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = PooledServer(("127.0.0.1", port), EchoHandler)
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
