"""Real load balancers in front of a server under test: HAProxy and nginx with its stream module.

Owns      their processes, their configuration and their listening sockets.
Promises  the listening sockets are made here, on port 0, and passed on: a client that comes before the program is
          ready waits in the backlog, and no port is guessed; when the `with` block ends, the program is gone.
          Where a program is missing the test is skipped, saying so; in CI (variable CI) it fails.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from .client import SOON, Client

__all__ = ["Proxy", "haproxy", "nginx"]

#: the server behind the load balancer, on a page of the documentation
EXAMPLE = "192.0.2.10:20000"
ANY = {"tcp4": ("127.0.0.1", 0), "tcp6": ("::1", 0), "dual": ("::", 0)}
HAPROXY_GLOBAL = """\
global
    stats socket fd@{control} level admin
"""
HAPROXY = """\
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    timeout check 5s
frontend front
    bind fd@{fd} {bind}
    {front}
    default_backend back
backend back
    {back}
    server moorage {backend} {server}
"""
NGINX_GLOBAL = """\
daemon off;
{module}
pid {folder}/pid;
error_log {folder}/log;
events {{ worker_connections 64; }}
"""
NGINX_STREAM = """\
stream {{
    server {{
        listen {listen};
        proxy_pass {backend};
        {server}
    }}
}}
"""


class Proxy:
    """A load balancer that runs, and its clients, which are closed at the end."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: Any, folder: Path) -> None:
        self._process, self._folder = process, folder
        self.address = address

    def client(self) -> Client:
        """A client of the load balancer."""
        return Client(self.address)

    def ask(self, command: str) -> str:
        """What HAProxy answers at its control socket."""
        with Client(str(self._folder / "stats")) as client:
            client.sendall(command.encode() + b"\n")
            return client.rest().decode()

    def is_serving(self) -> bool:
        """Whether HAProxy finds the server good."""
        return self._of_server("status").startswith("UP")

    def check(self) -> str:
        """How HAProxy's last health check went: INI, L4OK, L4CON, L6OK, L7OK, ..."""
        return self._of_server("check_status").removeprefix("* ")  # an asterisk: the next one is under way

    def _of_server(self, column: str) -> str:
        lines = [line.split(",") for line in self.ask("show stat").splitlines()]
        return next(line[lines[0].index(column)] for line in lines if line[:2] == ["back", "moorage"])


@contextmanager
def haproxy(
    backend: Any,
    server: str = "send-proxy",
    *,
    family: str = "tcp4",
    bind: str = "",
    front: str = "",
    back: str = "",
    page: str = "",
) -> Iterator[Proxy]:
    """HAProxy that passes connections on to `backend`; the other arguments are words and lines of its configuration.

    Or its sections are those of a `page`, where `bind :PORT` and the address EXAMPLE stand for the two ends.
    """
    program = _found("haproxy")
    with _folder() as folder, _listening(family, folder) as front_door, _listening("unix", folder, "stats") as control:
        address, fd, there = front_door.getsockname(), front_door.fileno(), _haproxy_address(backend)
        if page:
            text = re.sub(r"bind :\d+", f"bind fd@{fd}", page).replace(EXAMPLE, there)
        else:
            text = HAPROXY.format(fd=fd, backend=there, server=server, bind=bind, front=front, back=back)
        (folder / "haproxy.cfg").write_text(HAPROXY_GLOBAL.format(control=control.fileno()) + text)
        command = [program, "-db", "-f", str(folder / "haproxy.cfg")]
        with _running(command, dict(os.environ), front_door, control) as process:
            yield Proxy(process, address, folder)


@contextmanager
def nginx(backend: Any, server: str = "proxy_protocol on;", *, family: str = "tcp4", page: str = "") -> Iterator[Proxy]:
    """nginx that passes connections on to `backend`; `server` are lines of its configuration.

    Or its stream section is that of a `page`, where `listen PORT` and the address EXAMPLE stand for the two ends.
    """
    program = _found("nginx")
    module = _stream_module(program)
    with _folder() as folder, _listening(family, folder) as front_door:
        address = front_door.getsockname()
        here, there = _nginx_address(address), _nginx_address(backend)
        if page:
            text = re.sub(r"listen \d+", f"listen {here}", page).replace(EXAMPLE, there)
        else:
            text = NGINX_STREAM.format(server=server, listen=here, backend=there)
        head = NGINX_GLOBAL.format(folder=folder, module=f"{module} {_user()}")
        (folder / "nginx.conf").write_text(head + text)
        command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "log")]
        # what an old nginx passes on to the one that replaces it: the sockets, by this variable
        with _running(command, {**os.environ, "NGINX": f"{front_door.fileno()};"}, front_door) as process:
            yield Proxy(process, address, folder)


def _found(name: str) -> str:
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    return path or _missing(f"{name} is not installed")


def _stream_module(program: str) -> str:
    """The line that loads the stream module, empty where it is built in."""
    built = subprocess.run([program, "-V"], capture_output=True, text=True, check=True, timeout=SOON).stderr
    if "--with-stream=dynamic" in built:
        folder = re.search(r"--modules-path=(\S+)", built)
        path = Path(folder[1] if folder else "/usr/lib/nginx/modules", "ngx_stream_module.so")
        return f"load_module {path};" if path.exists() else _missing("nginx has no stream module (libnginx-mod-stream)")
    return "" if "--with-stream" in built else _missing("nginx was built without its stream module")


def _user() -> str:
    """Who serves: as root it would be somebody who may not enter our folders."""
    return "" if os.geteuid() else "user root;"


def _missing(reason: str) -> Any:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must not go without it")
    pytest.skip(reason)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="moorage-proxy-") as folder:
        yield Path(folder)


@contextmanager
def _listening(family: str, folder: Path, name: str = "front") -> Iterator[socket.socket]:
    """A listening socket; ours is closed when the program has its own copy."""
    if family == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / name))
        listener.listen(64)
    else:
        kind = socket.AF_INET if family == "tcp4" else socket.AF_INET6
        listener = socket.create_server(ANY[family], family=kind, dualstack_ipv6=family == "dual")
    with listener:
        yield listener


@contextmanager
def _running(command: list[str], env: dict[str, str], *doors: socket.socket) -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen(
        command, env=env, pass_fds=[door.fileno() for door in doors], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    for door in doors:
        door.close()  # a program that does not start refuses its clients
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(SOON)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what it has started
        _, errors = process.communicate()
        print(errors.decode(errors="replace"))  # shown with a test that fails


def _haproxy_address(address: Any) -> str:
    if isinstance(address, str):
        return f"unix@{address}"
    return f"[{address[0]}]:{address[1]}" if len(address) == 4 else f"{address[0]}:{address[1]}"


def _nginx_address(address: Any) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    return f"[{address[0]}]:{address[1]}" if len(address) == 4 else f"{address[0]}:{address[1]}"
