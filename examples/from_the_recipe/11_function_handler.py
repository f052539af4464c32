"""Recipe, row 11: a server written directly on sockets; here it is a function.

Run it:  python 11_function_handler.py [PORT]

What the book writes around it (socket, bind, listen, the accept loop, a thread for each client) is
what `serve` does, with bounds, deadlines, a drain on TERM and a log.
"""

import sys

from moorage import serve


def echo(conn):
    while data := conn.recv(8192):
        conn.sendall(data)


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "20000"
    sys.exit(serve(echo, f"127.0.0.1:{port}"))
