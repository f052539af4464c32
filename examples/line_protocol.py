"""A line protocol: a small store of values, shared by all clients.

Run it:  python line_protocol.py [PORT]

SET colour blue     ->  OK
GET colour          ->  VALUE blue
QUIT                ->  BYE
"""

import sys
import threading

from moorage import serve

store = {}
lock = threading.Lock()  # guards `store`


def answer(line):
    match line.decode("utf-8", "replace").split(maxsplit=2):
        case ["SET", key, value]:
            with lock:
                store[key] = value.rstrip("\n")
            return "OK"
        case ["GET", key]:
            with lock:
                return f"VALUE {store[key]}" if key in store else "NONE"
        case ["QUIT"]:
            return "BYE"
        case _:
            return "ERROR the commands are SET key value, GET key, QUIT"


def handle(conn):
    while line := conn.readline():  # a line above line_limit is the client's error, and ends the connection
        reply = answer(line)
        conn.sendall(reply.encode() + b"\n")
        if reply == "BYE":
            return


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "20000"
    sys.exit(serve(handle, f"127.0.0.1:{port}", line_limit=1000))
