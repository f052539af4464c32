"""The smallest server: a function that is called with each connection.

Run it:  python echo_function.py [PORT]
"""

import sys

from moorage import serve


def echo(conn):
    while data := conn.recv(8192):
        conn.sendall(data)


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "20000"
    sys.exit(serve(echo, f"127.0.0.1:{port}"))
