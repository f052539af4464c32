"""A server that says goodbye: what a handler can do while its server drains.

Run it:  python graceful_drain.py [PORT]

On TERM or Ctrl-C the server stops accepting and `conn.draining` becomes true.  This handler answers
what it was asked, tells its client to come again elsewhere, and returns.
"""

import sys

from moorage import StreamRequestHandler, serve


class Answer(StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            if self.request.draining:
                self.wfile.write(b"answer to " + line + b"closing, please reconnect\n")
                return
            self.wfile.write(b"answer to " + line)

    def handle_shutdown(self):
        print("draining", flush=True)  # called once for each connection, when a drain begins


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "20000"
    sys.exit(serve(Answer, f"127.0.0.1:{port}"))
