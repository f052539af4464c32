"""A server inside a program or a test: port 0, the real address in `server.address`.

Run it:  python embedded_server.py

Leaving the `with` drains: handlers at work finish, then everything is closed.
"""

import socket

from moorage import Server


def upper(conn):
    while line := conn.readline():
        conn.sendall(line.upper())


if __name__ == "__main__":
    with Server(upper, "127.0.0.1:0") as server:
        print("serving on %s:%d" % server.server_address)
        with socket.create_connection(server.server_address) as client:
            client.sendall(b"hello\n")
            print(client.makefile().readline(), end="")
