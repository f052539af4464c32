"""The defects of the standard library's `socketserver`, each as a program that shows it or does not.

Owns      one function for each defect; it takes the module, `socketserver` or `moorage.socketserver`.
Promises  run as `python old_door_defects.py NAME MODULE`, it prints what it saw as JSON and leaves at once,
          however many threads hang by then.
Refuses   to judge: what is a defect is said by the test that reads the JSON.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import resource
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Door = Any
Seen = dict[str, Any]
HOST = ("127.0.0.1", 0)


def wait(seconds: float) -> None:
    """Let time pass, where time passing is what the defect is about."""
    threading.Event().wait(seconds)


def serve(server: Any) -> threading.Thread:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return thread


def returns(call: Callable[[], object], within: float) -> bool:
    """Whether this call returns in time."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(within)
    return not thread.is_alive()


def connect(server: Any, timeout: float = 5.0) -> socket.socket:
    return socket.create_connection(server.server_address, timeout)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def make_echo(door: Door, **settings: Any) -> Any:
    def handle(self: Any) -> None:
        for line in self.rfile:
            self.wfile.write(line)

    return type("Echo", (door.StreamRequestHandler,), {"handle": handle, **settings})


def make(cls: Any, handler: Any, **settings: Any) -> Any:
    return type(cls.__name__, (cls,), {"allow_reuse_address": True, **settings})(HOST, handler)


def asks(client: socket.socket) -> bool:
    """Whether an echo comes back."""
    try:
        client.sendall(b"hello\n")
        return client.recv(100) == b"hello\n"
    except OSError:
        return False


class Lines(logging.Handler):
    """The lines of our logger."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logging.getLogger("moorage.socketserver").addHandler(self)
        logging.getLogger("moorage.socketserver").setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


def out_of_fds(door: Door) -> Seen:
    log = Lines()
    server = make(door.ThreadingTCPServer, make_echo(door), daemon_threads=True)
    serve(server)
    first = connect(server)
    assert asks(first)  # it serves, so it has what descriptors it needs for that
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    hoard: list[Any] = []
    with contextlib.suppress(OSError):
        while True:
            hoard.append(open(os.devnull))  # noqa: SIM115
    hoard.pop().close()
    client = connect(server)  # takes the last descriptor; its other end waits in the backlog
    begun = time.process_time()
    wait(3.0)
    cpu = (time.process_time() - begun) / 3.0
    lines = list(log.lines)
    for file in hoard:
        file.close()
    return {"cpu": cpu, "lines": lines, "recovers": asks(client)}


def shutdown_at_fork_limit(door: Door) -> Seen:
    server = make(door.ForkingTCPServer, make_echo(door), max_children=1)
    serve(server)
    first, _second = connect(server), connect(server)
    assert asks(first)
    return {"returns": returns(server.shutdown, 3.0)}


def server_close_of_threads_with_idle_client(door: Door) -> Seen:
    return _server_close(make(door.ThreadingTCPServer, make_echo(door)))


def server_close_of_forks_with_idle_client(door: Door) -> Seen:
    return _server_close(make(door.ForkingTCPServer, make_echo(door)))


def _server_close(server: Any) -> Seen:
    thread = serve(server)
    client = connect(server)
    assert asks(client)
    server.shutdown()
    thread.join()
    return {"returns": returns(server.server_close, 4.0)}


def mute_client_of_a_tls_listener(door: Door) -> Seen:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["TEST_CERTIFICATE"])
    server = make(door.ThreadingTCPServer, make_echo(door), daemon_threads=True)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serve(server)
    _mute = connect(server)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    plain = connect(server, 3.0)
    try:
        client = trusting.wrap_socket(plain)
    except OSError:
        return {"served": False}
    return {"served": asks(client)}


def tls_close_without_notify(door: Door) -> Seen:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["TEST_CERTIFICATE"])

    class Handler(door.StreamRequestHandler):  # type: ignore[misc]
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())

    server = make(door.ThreadingTCPServer, Handler, daemon_threads=True)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serve(server)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = trusting.wrap_socket(connect(server), suppress_ragged_eofs=False)
    assert asks(client)
    try:
        return {"end": client.recv(1).decode()}
    except OSError as error:
        return {"end": type(error).__name__}


def unbounded_threads(door: Door) -> Seen:
    server = make(
        door.ThreadingTCPServer, make_echo(door), daemon_threads=True, max_connections=10, request_queue_size=100
    )
    serve(server)
    before = threading.active_count()
    clients = [connect(server) for _ in range(60)]
    assert all(asks(client) for client in clients[:10])
    wait(0.5)
    most = threading.active_count() - before
    for client in clients[:10]:
        client.close()
    return {"threads": most, "others": sum(asks(client) for client in clients[10:20])}


def setup_raises(door: Door) -> Seen:
    called = []

    class Handler(door.StreamRequestHandler):  # type: ignore[misc]
        def setup(self) -> None:
            raise LookupError("no setup")

        def finish(self) -> None:
            called.append("finish")
            super().finish()

    server = make(door.TCPServer, Handler)
    server.handle_error = lambda *_: called.append(type(sys.exc_info()[1]).__name__)
    with connect(server):
        server.handle_request()
    return {"called": called}


def resets_are_printed(door: Door) -> Seen:
    log = Lines()
    handled = threading.Semaphore(0)

    class Server(door.ThreadingTCPServer):  # type: ignore[misc]
        def shutdown_request(self, request: Any) -> None:
            super().shutdown_request(request)
            handled.release()

    server = Server(HOST, make_echo(door))
    serve(server)
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        for _ in range(10):
            reset(connect(server))
        for _ in range(10):
            assert handled.acquire(timeout=5)
    return {"printed": len(printed.getvalue().splitlines()), "lines": [x for x in log.lines if "reset" in x]}


def own_errors_are_printed(door: Door) -> Seen:
    """No defect: a handler's own TimeoutError, and a ConnectionError that is not of this client."""
    errors = [TimeoutError("of a future"), ConnectionResetError("of a database"), ValueError("a bug")]

    class Handler(door.StreamRequestHandler):  # type: ignore[misc]
        timeout = 5

        def handle(self) -> None:
            self.rfile.readline()
            raise errors[0]

    server = make(door.TCPServer, Handler)
    printed = []
    while errors:
        with contextlib.redirect_stderr(io.StringIO()) as text, connect(server) as client:
            client.sendall(b"go\n")
            server.handle_request()
        printed.append("Traceback" in text.getvalue() and str(errors.pop(0)) in text.getvalue())
    return {"printed": printed}


def readline_without_a_limit(door: Door) -> Seen:
    got: list[Any] = []

    class Handler(door.StreamRequestHandler):  # type: ignore[misc]
        def handle(self) -> None:
            try:
                got.append(len(self.rfile.readline()))
            except ValueError as error:
                got.append(type(error).__name__)

    server = make(door.TCPServer, Handler)
    serve(server)
    with connect(server) as client, contextlib.suppress(OSError):
        client.sendall(b"x" * 4_000_000)
        client.shutdown(socket.SHUT_WR)
        while client.recv(4096):
            pass
    return {"got": got}


def backlog_of_five(door: Door) -> Seen:
    server = door.TCPServer(HOST, make_echo(door))
    clients = []
    for _ in range(200):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(server.server_address)
        clients.append(client)
    wait(0.3)
    return {"connected": len(select.select([], clients, [], 0)[1])}


def drip_feed(door: Door) -> Seen:
    done = threading.Event()

    class Handler(door.StreamRequestHandler):  # type: ignore[misc]
        timeout = 1
        message_timeout = 1.0

        def handle(self) -> None:
            try:
                self.rfile.readline()
            except TimeoutError:
                done.set()

    server = make(door.ThreadingTCPServer, Handler, daemon_threads=True)
    serve(server)
    with connect(server) as client:
        for _ in range(12):
            with contextlib.suppress(OSError):
                client.sendall(b"x")
            if done.wait(0.25):
                break
    return {"ends": done.is_set()}


def timeout_loses_the_line(door: Door) -> Seen:
    got: list[str] = []
    timed_out = threading.Event()

    class Handler(door.StreamRequestHandler):  # type: ignore[misc]
        timeout = 0.3

        def handle(self) -> None:
            for _ in range(2):
                try:
                    got.append(self.rfile.readline().decode())
                except OSError as error:
                    got.append(type(error).__name__)
                    timed_out.set()

    server = make(door.TCPServer, Handler)
    serve(server)
    with connect(server) as client:
        client.sendall(b"HEL")
        assert timed_out.wait(5)
        with contextlib.suppress(OSError):
            client.sendall(b"LO\n")
            client.shutdown(socket.SHUT_WR)
            client.recv(1)
    return {"got": got}


def slow_reader_is_cut(door: Door) -> Seen:
    reply = bytes(20_000_000)

    class Handler(door.StreamRequestHandler):  # type: ignore[misc]
        timeout = 0.5

        def handle(self) -> None:
            self.wfile.write(reply)

    server = make(door.ThreadingTCPServer, Handler, daemon_threads=True)
    server.handle_error = lambda *_: None
    serve(server)
    received = 0
    with connect(server) as client:
        for _ in range(12):  # twice the timeout in all, and always reading
            wait(0.1)
            received += len(client.recv(65536))
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                received += len(data)
    return {"whole": received == len(reply)}


def peer_stops_reading(door: Door) -> Seen:
    raised: list[str] = []
    done = threading.Event()

    class Handler(door.StreamRequestHandler):  # type: ignore[misc]
        write_timeout = 0.5

        def handle(self) -> None:
            try:
                self.wfile.write(bytes(50_000_000))
            except OSError as error:
                raised.append(type(error).__name__)
            done.set()

    server = make(door.ThreadingTCPServer, Handler, daemon_threads=True)
    serve(server)
    with connect(server):
        done.wait(3.0)
        return {"raised": list(raised)}


def early_reply_is_lost(door: Door) -> Seen:
    reply = bytes(2_000_000)
    closed = threading.Semaphore(0)

    class Handler(door.BaseRequestHandler):  # type: ignore[misc]
        def handle(self) -> None:
            self.request.recv(1)
            self.request.sendall(reply)

    class Server(door.ThreadingTCPServer):  # type: ignore[misc]
        daemon_threads = True

        def close_request(self, request: Any) -> None:
            super().close_request(request)
            closed.release()

    server = Server(HOST, Handler)
    serve(server)
    whole = 0
    for _ in range(20):
        with connect(server) as client, contextlib.suppress(OSError):
            client.sendall(bytes(50_000))
            closed.acquire(timeout=5)
            received = 0
            while data := client.recv(1 << 20):
                received += len(data)
            whole += received == len(reply)
    return {"whole": whole}


def shutdown_latency(door: Door) -> Seen:
    server = make(door.TCPServer, make_echo(door))
    thread = serve(server)
    with connect(server) as client:
        assert asks(client)
    wait(0.1)
    begun = time.monotonic()
    server.shutdown()
    thread.join()
    return {"seconds": time.monotonic() - begun}


def idle_wakeups(door: Door) -> Seen:
    server = make(door.TCPServer, make_echo(door))
    thread = serve(server)
    with connect(server) as client:
        assert asks(client)
    wait(0.2)
    before = _switches(thread)
    wait(2.2)
    return {"wakeups": _switches(thread) - before}


def _switches(thread: threading.Thread) -> int:
    with open(f"/proc/self/task/{thread.native_id}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("voluntary"))


def status_is_stolen(door: Door) -> Seen:
    """The program's own subprocess ends with 7 while the server is at its limit."""

    class Handler(door.BaseRequestHandler):  # type: ignore[misc]
        def handle(self) -> None:
            self.request.recv(1)

    server = make(door.ForkingTCPServer, Handler, max_children=2)
    own = subprocess.Popen([sys.executable, "-I", "-c", "raise SystemExit(7)"])
    os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
    serve(server)
    clients = [connect(server) for _ in range(2)]
    wait(0.5)
    for client in clients:
        client.close()
    wait(0.3)
    return {"status": own.wait()}


def shutdown_from_a_handler(door: Door) -> Seen:
    class Handler(door.BaseRequestHandler):  # type: ignore[misc]
        def handle(self) -> None:
            self.server.shutdown()

    server = make(door.TCPServer, Handler)
    thread = serve(server)
    connect(server).close()
    thread.join(2.0)
    return {"ends": not thread.is_alive()}


def shutdown_before_serving(door: Door) -> Seen:
    server = make(door.TCPServer, make_echo(door))
    returned = returns(server.shutdown, 1.0)
    return {"returns": returned, "ends": returned and returns(server.serve_forever, 2.0)}


def shutdown_from_a_signal_handler(door: Door) -> Seen:
    server = make(door.TCPServer, make_echo(door))
    signal.signal(signal.SIGUSR1, lambda *_: server.shutdown())

    def give_up() -> None:
        leave({"ends": False})

    patience = threading.Timer(3.0, give_up)
    patience.daemon = True
    patience.start()
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
    server.serve_forever()
    return {"ends": True}


def seventeen_loops(door: Door) -> Seen:
    """The recipe's pool: `serve_forever()` of one server in 17 threads."""
    together = threading.Barrier(18)

    class Handler(door.BaseRequestHandler):  # type: ignore[misc]
        def handle(self) -> None:
            together.wait(5)
            self.request.sendall(b"ok")

    server = make(door.TCPServer, Handler, request_queue_size=64)
    threads = [serve(server) for _ in range(17)]
    clients = [connect(server) for _ in range(17)]
    together.wait(5)
    served = sum(client.recv(2) == b"ok" for client in clients)
    for client in clients:
        client.close()
    wait(0.2)
    returned = returns(server.shutdown, 3.0)
    wait(0.7)
    return {"served": served, "returns": returned, "alive": sum(thread.is_alive() for thread in threads)}


def child_keeps_the_listener(door: Door) -> Seen:
    server = make(door.ForkingTCPServer, make_echo(door), block_on_close=False)
    thread = serve(server)
    client = connect(server)
    assert asks(client)
    server.shutdown()
    thread.join()
    server.server_close()
    try:
        type(server)(server.server_address, make_echo(door)).server_close()
    except OSError as error:
        return {"rebinds": False, "error": str(error), "still": asks(client)}
    return {"rebinds": True, "still": asks(client)}


def leave(seen: Seen) -> None:
    sys.__stdout__.write(json.dumps(seen) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]
    os._exit(0)


if __name__ == "__main__":
    leave(globals()[sys.argv[1]](importlib.import_module(sys.argv[2])))
