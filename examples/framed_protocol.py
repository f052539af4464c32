"""A framed protocol: each message is four bytes of length and then so many bytes of JSON.

Run it:  python framed_protocol.py [PORT]

Adds the numbers it is sent: {"add": [1, 2]} is answered with {"sum": 3}.
"""

import json
import struct
import sys

from moorage import serve

LENGTH = struct.Struct("!I")
LONGEST = 64 * 1024


def read_message(conn):
    (length,) = LENGTH.unpack(conn.read_exactly(LENGTH.size))
    return json.loads(conn.read_exactly(length))  # raises above message_limit, before a byte is read


def write_message(conn, message):
    body = json.dumps(message).encode()
    conn.sendall(LENGTH.pack(len(body)) + body)


def handle(conn):
    while conn.peek():  # empty when the client has closed between two messages
        message = read_message(conn)
        write_message(conn, {"sum": sum(message["add"])})


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "20000"
    sys.exit(serve(handle, f"127.0.0.1:{port}", message_limit=LONGEST))
