"""A deadline over several calls: a client has ten seconds in all to say who it is.

Run it:  python deadline.py [PORT [SECONDS]]

`conn.deadline` is the recoverable kind: it raises TimeoutError, loses no byte, and the handler may go on.
"""

import sys

from moorage import serve

SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0


def greet(conn):
    try:
        with conn.deadline(SECONDS):
            conn.sendall(b"name? ")
            name = conn.readline().strip()
            conn.sendall(b"password? ")
            conn.readline()
    except TimeoutError:
        conn.sendall(b"too slow\n")
        return
    conn.sendall(b"welcome, " + name + b"\n")


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "20000"
    sys.exit(serve(greet, f"127.0.0.1:{port}"))
