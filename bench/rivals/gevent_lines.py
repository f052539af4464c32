"""gevent's StreamServer, lines through makefile, as gevent's own example does it."""

import importlib
import socket


def lines(sock: socket.socket, address: object) -> None:
    with sock.makefile("rb") as rfile:
        for line in rfile:
            sock.sendall(line)


server = importlib.import_module("gevent.server").StreamServer(("127.0.0.1", 0), lines)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
