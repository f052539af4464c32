"""Recipe, row 6, with processes: one server made before the fork, a loop in each process.

Run it:  moorage run 06_processes_by_hand.py [PORT]

Three children and the parent each run `serve_forever()`: four clients at once.
"""

import multiprocessing
import os
import signal
import socketserver
import sys

NWORKERS = 3


class EchoHandler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"%d: " % os.getpid() + line)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = socketserver.TCPServer(("127.0.0.1", port), EchoHandler)
    fork = multiprocessing.get_context("fork")
    for _ in range(NWORKERS):
        fork.Process(target=server.serve_forever, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # leave in good order: daemons are ended at exit
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
