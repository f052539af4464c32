"""TLS in memory and over a socket, for the tests of streams: one certificate, contexts, and a real `ssl` peer.

Owns      `shake`, two sessions that have shaken hands without a socket; `Peer`, what a stream talks to.
Promises  a peer that meets an end of stream without close_notify raises `ssl.SSLEOFError`.
"""

import functools
import socket
import ssl

from moorage.transport.tls import Session

from . import certificates
from .sockets import PATIENCE
from .waiting import Running

__all__ = ["NAME", "Peer", "client_context", "server_context", "shake"]

NAME = "localhost"


@functools.cache
def client_context() -> ssl.SSLContext:
    """What a client has."""
    return certificates.client_context()


@functools.cache
def server_context() -> ssl.SSLContext:
    """What a server has."""
    files = certificates.certificates().server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    return context


def shake(
    server: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None, name: str | None = NAME
) -> tuple[Session, Session]:
    """A server's session and its client's, both with the handshake behind them and nothing under way."""
    ours = Session(server or server_context())
    theirs = Session(client or client_context(), server_hostname=name, server_side=False)
    is_done = False
    while not is_done:
        is_done = True
        for session, other in ((theirs, ours), (ours, theirs)):
            is_done = session.handshake() and is_done
            if flight := session.take():
                other.feed(flight)
    theirs.read(1)  # tickets
    return ours, theirs


class Peer:
    """The other end of a stream's socket, an `SSLSocket`, made while `session` shakes hands over `ours`."""

    def __init__(self, ours: socket.socket, theirs: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.session = Session(server_context())
        self.sock = (context or client_context()).wrap_socket(
            theirs, server_hostname=NAME, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        self.sock.settimeout(PATIENCE)
        shaking = Running(self.sock.do_handshake)
        while not self.session.handshake():
            ours.sendall(self.session.take())
            self.session.feed(ours.recv(65536))
        shaking.result()
