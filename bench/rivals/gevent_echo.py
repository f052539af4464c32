"""gevent's StreamServer, echo."""

import importlib
import socket


def echo(sock: socket.socket, address: object) -> None:
    while data := sock.recv(8192):
        sock.sendall(data)


server = importlib.import_module("gevent.server").StreamServer(("127.0.0.1", 0), echo)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
