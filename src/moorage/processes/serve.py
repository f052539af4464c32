"""Serve: one Server in this process, from its start to its exit status.

Owns      the signals, the logging set-up and the exit status while it serves.
Promises  0 for a stop that was asked for (connections cut are one warning with their count), 1 for a server
          that failed after its start; an operator's mistake is an `OperatorError` before anything serves.
Refuses   to reload or upgrade: that needs a supervisor, and a signal that asks for it is told so in one line.
"""

import logging
import signal
from collections.abc import Callable
from contextlib import closing
from shutil import which
from typing import Any

from ..config import Configuration, check_order
from ..config.resolve import from_arguments, read
from ..errors import OperatorError
from ..events import ServerStarted
from ..observe.logfile import Logs, setup_logging
from ..observe.logs import LOGGER
from ..server import Server
from ..services import SERVICES
from .descriptors import raise_descriptor_limit
from .signals import Action, CaughtSignals

NO_SUPERVISOR = "there is no supervisor here, so nothing changes: start the server anew"
#: what a client without `nc` does; the reply is there at once, or at the latest after the idle deadline
_HELLO = """s.sendall(b"hello\\n"); print(s.recv(100))'"""
#: where a client on this host finds a server that listens everywhere
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def serve(handler: Any, bind: Any = None, **settings: Any) -> int:
    """Serve until a signal asks to stop; returns the exit status.

    The settings are those of `Server`; what is not given comes from `MOORAGE_*` variables and from
    `moorage.toml` or `[tool.moorage]` in the working directory.  Raises `OperatorError` for a mistake that is
    found before the server accepts.
    """
    hooks = {name: settings.pop(name) for name in ("worker_start", "worker_stop") if name in settings}
    check_order(handler, bind)
    return run(handler, read(from_arguments(bind, settings)), **hooks)


def run(handler: Any, configuration: Configuration, **hooks: Any) -> int:
    """Serve with settings that are resolved already; returns the exit status."""
    with closing(setup_logging(configuration.server)) as logs:  # first: what is logged decides what is told
        raise_descriptor_limit(configuration.server)
        server = Server(handler, configuration=configuration, **hooks)
        with closing(server):
            return _Run(server, logs, configuration).status()


class _Run:
    """One run of one server."""

    def __init__(self, server: Server, logs: Logs, configuration: Configuration) -> None:
        self._server, self._logs = server, logs
        self._logger = logging.getLogger(LOGGER)
        self._file = configuration.file
        self._is_started = False
        server.events.subscribe(self._started, ServerStarted)

    def status(self) -> int:
        """Serve, and say how it went."""
        try:
            with CaughtSignals(self._act):
                self._server.serve_forever()
        except OperatorError:
            if not self._is_started:
                raise
            self._logger.exception("the server failed")
            return 1
        except Exception:
            self._logger.exception("the server failed")
            return 1
        return 0

    def _act(self, action: Action, caught: signal.Signals) -> None:
        match action:
            case Action.DRAIN:
                self._server.drain()
            case Action.END:
                self._server.close()
            case Action.REOPEN:
                self._logs.reopen()
            case _:
                self._logger.warning("%s asks for: %s; %s", caught.name, action.value, NO_SUPERVISOR)

    def _started(self, event: ServerStarted) -> None:
        self._is_started = True
        if self._file is not None:
            self._logger.info("settings read from %s", self._file)
        name = _service_name(self._server.RequestHandlerClass)
        if name is not None:
            self._logger.info("%s is ready; try: %s", name, how_to_try(event.addresses[0]))


def how_to_try(address: Any) -> str:
    """The command line of a client on this host."""
    match address:
        case (str(host), int(port), *_):
            host = _LOOPBACK.get(host, host)
            if which("nc"):
                return f"nc {host} {port}"
            return f"""python3 -c 'import socket; s = socket.create_connection(("{host}", {port})); """ + _HELLO
        case str() if address.startswith("\0"):
            return f"socat - ABSTRACT-CONNECT:{address[1:]}"
    return f"nc -U {address}"


def _service_name(handler: Callable[..., Any]) -> str | None:
    return next((name for name, service in SERVICES.items() if service is handler), None)
