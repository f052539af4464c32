"""Recipe, row 10: a higher-level module on top, `http.server`.

Run it:  moorage run 10_http_server.py [PORT]
"""

import http.server
import sys


class HelloHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), HelloHandler)
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
