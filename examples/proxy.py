"""A proxy: what a client sends goes to another server, and what that one answers comes back.

Run it:  python proxy.py UPSTREAM [PORT]

One direction is the handler's, the other one that of a sibling, which ends with it.
"""

import socket
import sys

from moorage import connect, serve, spawn


def copy(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)  # end of stream goes on; the other direction may still have something to say
    except OSError:  # one of them has gone, or was silent for too long: so is the other
        source.end()
        sink.end()


def proxy(client):
    with connect(sys.argv[1]) as upstream:
        back = spawn(copy, upstream, client)
        copy(client, upstream)
        back.join()


if __name__ == "__main__":
    port = sys.argv[2] if len(sys.argv) > 2 else "20000"
    sys.exit(serve(proxy, f"127.0.0.1:{port}", runner="fibers"))
