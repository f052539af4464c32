"""The same as a class, the way `socketserver` has it.

Run it:  python echo_class.py [PORT]
"""

import sys

from moorage import StreamRequestHandler, serve


class Echo(StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "20000"
    sys.exit(serve(Echo, f"127.0.0.1:{port}"))
