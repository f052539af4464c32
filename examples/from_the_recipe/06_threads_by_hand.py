"""Recipe, row 6: a pre-allocated pool of threads, as the recipe makes it: one server, many loops.

Run it:  moorage run 06_threads_by_hand.py [PORT]

Sixteen threads and the main one each run `serve_forever()`: 17 clients at once, no more.  TERM ends
all the loops; with the standard library alone, 16 of them would go on.
"""

import signal
import socketserver
import sys
from threading import Thread

NWORKERS = 16


class EchoHandler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = socketserver.TCPServer(("127.0.0.1", port), EchoHandler)
    signal.signal(signal.SIGTERM, lambda *_: Thread(target=server.shutdown).start())
    workers = [Thread(target=server.serve_forever) for _ in range(NWORKERS)]
    for worker in workers:
        worker.start()
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
    for worker in workers:
        worker.join()
    print("all loops ended", flush=True)
