"""Small programs written for the standard library's `socketserver`, as users have them.

Owns      one function for each; it prints what a test reads, and knows nothing of Moorage.
Promises  run as `python old_door_programs.py NAME`, it installs the old door before anything else.
"""

# ruff: noqa: E402

import sys

import moorage.socketserver

moorage.socketserver.install()

import atexit
import http.server
import os
import socket
import socketserver
import ssl
import threading
import time
import xmlrpc.client
import xmlrpc.server
from typing import Any

HOST = ("127.0.0.1", 0)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def serve(server: Any) -> threading.Thread:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return thread


def connect(server: Any) -> socket.socket:
    return socket.create_connection(server.server_address)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def names() -> None:
    """Everything on top of `socketserver` has our classes."""
    say(socketserver.TCPServer in http.server.HTTPServer.__mro__)
    say(socketserver.TCPServer in xmlrpc.server.SimpleXMLRPCServer.__mro__)
    say(http.server.HTTPServer.max_connections)  # type: ignore[attr-defined]
    say(sorted({"click", "msgspec"} & set(sys.modules)))


def xmlrpc_adds() -> None:
    server = xmlrpc.server.SimpleXMLRPCServer(HOST, logRequests=False)
    server.register_function(lambda x, y: x + y, "add")
    serve(server)
    with xmlrpc.client.ServerProxy(f"http://127.0.0.1:{server.server_address[1]}") as proxy:
        say(proxy.add(2, 3))
    server.shutdown()
    server.server_close()


def handler_at_exit() -> None:
    """The program ends while a handler of a server without daemon threads is at work."""
    begun = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            begun.set()
            say("handled", self.request.recv(100).decode())

    server = socketserver.ThreadingTCPServer(HOST, Handler)
    serve(server)
    client = connect(server)
    begun.wait(10)
    atexit.register(client.sendall, b"late")
    say("leaving")


def idle_client_at_exit() -> None:
    """The program ends while a client is idle; the standard library would wait for ever."""
    begun = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            begun.set()
            say("handled", self.request.recv(100))

    server = socketserver.ThreadingTCPServer(HOST, Handler)
    serve(server)
    client = connect(server)
    begun.wait(10)
    say("leaving", client.fileno() > 0)


def wraps_in_get_request() -> None:
    """The widespread way to serve TLS, with a mute client first in the backlog."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["TEST_CERTIFICATE"])

    class Server(socketserver.ThreadingTCPServer):
        setup_timeout = 0.3

        def get_request(self) -> Any:
            sock, address = self.socket.accept()
            return context.wrap_socket(sock, server_side=True), address

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline() + str(self.request.gettimeout()).encode())

    server = Server(HOST, Handler)
    serve(server)
    mute = connect(server)
    begun = time.monotonic()
    with trusting().wrap_socket(connect(server)) as client:
        client.sendall(b"hello\n")
        say(client.recv(100).split(), client.recv(100))
    say("in time" if time.monotonic() - begun < 5 else "late", mute.recv(1))
    server.shutdown()
    server.server_close()


def bad_handshakes() -> None:
    """A plain-text probe at a TLS listener, and a mute one: quiet, and the handler never runs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["TEST_CERTIFICATE"])

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            say("handled")

    for kind in (socketserver.TCPServer, socketserver.ThreadingTCPServer, socketserver.ForkingTCPServer):
        server = kind(HOST, Handler)
        server.setup_timeout = 0.2  # type: ignore[attr-defined]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serve(server)
        for data in (b"GET / HTTP/1.0\r\n\r\n", b""):
            with connect(server) as client:
                client.sendall(data)
                try:
                    while client.recv(100):
                        pass
                except ConnectionResetError:
                    pass
        server.shutdown()
        server.server_close()
    say("done")


def hands_the_socket_on() -> None:
    """`shutdown_request` is skipped: another thread owns the socket by now."""
    kept = []
    arrived = threading.Semaphore(0)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            kept.append(self.request)
            arrived.release()

    class Server(socketserver.ThreadingTCPServer):
        max_connections = 2

        def shutdown_request(self, request: Any) -> None:
            pass

    server = Server(HOST, Handler)
    serve(server)
    clients = [connect(server) for _ in range(3)]
    arrived.acquire(timeout=5)
    arrived.acquire(timeout=5)
    say("two", len(kept), "third waits", not arrived.acquire(timeout=0.3))
    kept[0].sendall(b"still open")
    say(*sorted(bytes.decode(client.recv(20)) for client in clients if client.getsockname() == kept[0].getpeername()))
    kept.pop(0).close()
    say("third", arrived.acquire(timeout=5))
    kept.clear()
    server.shutdown()
    server.server_close()


def own_pool() -> None:
    """The program's own pool: `process_request` puts the request in its queue."""
    import queue

    requests: queue.Queue[Any] = queue.Queue()

    class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
        def process_request(self, request: Any, client_address: Any) -> None:
            requests.put((request, client_address))

        def work(self) -> None:
            while True:
                self.process_request_thread(*requests.get())

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())

    server = Server(HOST, Handler)
    for _ in range(2):
        threading.Thread(target=server.work, daemon=True).start()
    serve(server)
    for _ in range(20):
        with connect(server) as client:
            client.sendall(b"hello\n")
            assert client.recv(10) == b"hello\n"
    server.shutdown()
    server.server_close()
    say("served")


def processes_share_one_object() -> None:
    """Several processes serve one server object; `shutdown()` in one leaves the others alone."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(str(os.getpid()).encode())
            if self.request.recv(10) == b"end":
                self.server.shutdown()

    server = socketserver.TCPServer(HOST, Handler)
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            server.serve_forever()
            os._exit(0)
        pids.append(pid)
    for _ in range(2):
        with connect(server) as client:
            ended = int(client.recv(20))
            client.sendall(b"end")
            os.waitpid(ended, 0)
            pids.remove(ended)
    say("left", len(pids))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
