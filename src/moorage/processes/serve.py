"""Serve: a supervisor and its workers, from the start of this process to its exit status.

Owns      the order of the start (sockets, user, log, supervisor, control, metrics, signals, PID file) and the same
          list backwards at the end.
Promises  0 for a stop that was asked for, 1 for a server that failed after its start or whose workers cannot boot;
          an operator's mistake is an `OperatorError` before anything serves, and leaves nothing open.
Refuses   to import the handler: a worker does, so that a reload gets new code and no mistake in it ends the server.
Why       what needs root comes before `user` and everything else after it: what this user could not open anew
          later is found out at the start.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from shutil import which
from typing import Any

from ..config import Configuration, ListenerSettings, check_order
from ..config.resolve import from_arguments, read
from ..config.sources import Layer
from ..config.version import VERSION
from ..events import Events, ReloadFinished, SupervisorStarted, UpgradeFailed
from ..listener import Listener, open_listeners
from ..observe.answering import Answering
from ..observe.certificate_warnings import CertificateWarnings
from ..observe.control import open_control
from ..observe.endpoint import MetricsEndpoint
from ..observe.logfile import Logs
from ..observe.logs import LOGGER, log_events
from ..observe.metrics import exposition
from ..rates import SharedRates
from ..runners import check_runner
from ..services import SERVICES
from ..watch import Watch
from .changes import Changes
from .descriptors import fill_standard_descriptors, raise_descriptor_limit
from .handover import Inherited
from .notify import Notifier
from .pid_file import PidFile
from .privileges import drop
from .scoreboard import BOUNDS, FIELDS, Scoreboard
from .signals import SIGNALS, Action, CaughtSignals
from .supervisor import Plan, Supervisor
from .system import System
from .target import check_handler, load
from .tokens import Tokens
from .upgrade import Successor, Upgrade

#: what a client without `nc` does; the reply is there at once, or at the latest after the idle deadline
_HELLO = """s.sendall(b"hello\\n"); print(s.recv(100))'"""
#: where a client on this host finds a server that listens everywhere
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
#: by these names the sockets of ours travel to the new program of an upgrade
CONTROL, METRICS = "control", "metrics"
HOOKS = ("worker_start", "worker_stop")


def serve(handler: Any, bind: Any = None, **settings: Any) -> int:
    """Serve until a signal asks to stop; returns the exit status.

    The settings are those of `Server`; what is not given comes from `MOORAGE_*` variables and from
    `moorage.toml` or `[tool.moorage]` in the working directory.  Raises `OperatorError` for a mistake that is
    found before the server accepts.
    """
    hooks: dict[str, Any] = {name: settings.pop(name) for name in HOOKS if name in settings}
    check_order(handler, bind)
    check_handler(handler, getattr(handler, "__name__", repr(handler)))
    reread = partial(read, from_arguments(bind, settings))
    return _serve(reread, lambda: handler, hooks, _service_name(handler), is_target=False)


def serve_target(target: str, layer: Layer, config: str | None = None) -> int:
    """Serve what the operator named; see `target`.  Afterwards signals are blocked: the command is over."""
    service = target if target in SERVICES else None
    return _serve(partial(read, layer, config), partial(load, target), {}, service, is_target=True)


def _serve(
    reread: Callable[[], Configuration],
    load: Callable[[], Any],
    hooks: Mapping[str, Any],
    service: str | None,
    *,
    is_target: bool,
) -> int:
    def make_plan() -> Plan:
        configuration = reread()
        check_runner(configuration.server)
        return Plan(configuration, load, hooks)

    with ExitStack() as opened:
        return _Process(make_plan, service, opened, is_target).run()


class _Process:
    """The supervisor's process; `opened` closes, in the opposite order, what it opens."""

    def __init__(self, make_plan: Callable[[], Plan], service: str | None, opened: ExitStack, is_target: bool) -> None:
        self._service, self._is_target = service, is_target
        self._make_plan = make_plan
        fill_standard_descriptors()
        plan = make_plan()
        self._settings, self._file = plan.settings, plan.configuration.file
        self._successor = Successor.from_environ(os.environ)
        self._notifier = Notifier(os.environ)
        inherited = Inherited.take(os.environ)
        self._listeners = open_listeners(plan.configuration.listeners, inherited)
        self._dropped = self._take_what_is_dropped(inherited)
        for listener in (*self._listeners, *self._dropped):
            opened.callback(listener.close)
        drop(self._settings.user, self._settings.group)
        self._logs = Logs(self._settings)
        opened.callback(self._close_logs)
        raise_descriptor_limit(self._settings)
        self._watch, self._events = Watch(), Events()
        opened.callback(self._watch.close)
        log_events(self._events, self._settings)
        self._events.subscribe(self._say_how_to_try, SupervisorStarted)
        self._events.subscribe(self._keep_pid_file, UpgradeFailed)
        if not is_target:
            self._events.subscribe(_say_that_code_stays, ReloadFinished)
        self._system = System()
        self._certificate_warnings = CertificateWarnings()
        self._open_shared(opened)
        self._supervisor = self._make_supervisor(plan)
        self._endpoints = self._open_endpoints(inherited, opened)
        if self._successor is not None:
            for endpoint in self._endpoints.values():
                endpoint.suspend()  # until then it is the program before this one that knows the answers
        inherited.close_rest()
        self._changes = Changes(
            self._system, self._watch, self._supervisor.reload, settings_file=str(self._file) if self._file else None
        )
        self._pid_file = None if self._settings.pid_file is None else PidFile(self._settings.pid_file)
        self._opened = opened

    def run(self) -> int:
        """Serve; the exit status."""
        _warn_of_threads()
        self._certificate_warnings.say(self._listeners)
        # What was opened is closed within: an impatient second TERM would leave the files behind.
        with CaughtSignals(self._act), self._opened:
            if self._pid_file is not None:
                self._opened.callback(self._pid_file.remove)
                if self._successor is None:
                    self._pid_file.write()
            if self._settings.reload_on_change:
                self._opened.callback(self._changes.stop)
                self._changes.start()
            try:
                return self._supervisor.run()
            finally:
                if self._is_target:  # the command ends with this, and its status is known
                    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    # What it is made of

    def _take_what_is_dropped(self, inherited: Inherited) -> list[Listener]:
        """Addresses of the program before this one that no setting names any more: closed when it leaves."""
        if self._successor is None:
            return []
        return open_listeners([ListenerSettings(bind=bind) for bind in inherited.addresses()], inherited)

    def _open_shared(self, opened: ExitStack) -> None:
        """What the workers share: made before the first of them is forked."""
        most = self._settings.max_connections
        self._scoreboard = Scoreboard(clients=0 if self._settings.max_per_client is None else most)
        opened.callback(self._scoreboard.close)
        self._tokens = Tokens(most)
        opened.callback(self._tokens.close)
        self._rates = SharedRates()
        opened.callback(self._rates.close)

    def _make_supervisor(self, plan: Plan) -> Supervisor:
        return Supervisor(
            plan, listeners=self._listeners, events=self._events, reread=self._make_plan, watch=self._watch,
            scoreboard=self._scoreboard, tokens=self._tokens, rates=self._rates, system=self._system, notifier=self._notifier,
            make_upgrade=self._make_upgrade, set_up=self._set_up, reopen_logs=self._reopen_logs,
            forget=self._forget, on_look=self._look_at_certificates, reap=self._reap, on_started=self._started,
            on_stopping=self._stop_watching, on_handed_over=self._handed_over,
        )  # fmt: skip

    def _make_upgrade(self, done: Callable[[int], None]) -> Upgrade:
        return Upgrade(
            self._watch, self._events, system=self._system, sockets=self._sockets,
            boot_timeout=self._settings.boot_timeout, done=done,
        )  # fmt: skip

    def _open_endpoints(self, inherited: Inherited, opened: ExitStack) -> dict[str, Answering]:
        """The sockets on which this server is asked about itself."""
        settings, supervisor = self._settings, self._supervisor
        commands: dict[str, Callable[[], object]] = {
            "status": supervisor.status,
            "reload": partial(supervisor.reload, "asked by the control socket"),
            "upgrade": supervisor.upgrade,
            "stop": partial(supervisor.stop, "asked by the control socket"),
            "end": partial(supervisor.end, "asked by the control socket"),
            "more": supervisor.more,
            "fewer": supervisor.fewer,
            "reopen": supervisor.reopen,
        }
        opened_here: dict[str, Answering] = {}
        if settings.metrics is not None:
            endpoint = MetricsEndpoint(
                settings.metrics, self._watch, self._tell, lambda: supervisor.is_serving, inherited.named(METRICS)
            )
            opened.callback(endpoint.close)
            opened_here[METRICS] = endpoint
        control = open_control(settings.control, settings.name, self._watch, commands, inherited.named(CONTROL))
        if control is not None:
            opened.callback(control.close)
            opened_here[CONTROL] = control
        return opened_here

    def _tell(self) -> bytes:
        about = {"name": self._settings.name, "version": VERSION, "runner": self._supervisor.settings.runner}
        return exposition(self._scoreboard, FIELDS, BOUNDS, about)

    # What happens meanwhile

    def _act(self, action: Action, caught: signal.Signals) -> None:
        supervisor = self._supervisor
        match action:
            case Action.DRAIN:
                supervisor.stop(caught.name)
            case Action.END:
                supervisor.end(caught.name)
            case Action.REOPEN:
                supervisor.reopen()
            case Action.RELOAD:
                supervisor.reload(caught.name)
            case Action.UPGRADE:
                supervisor.upgrade()
            case Action.MORE:
                supervisor.more()
            case Action.FEWER:
                supervisor.fewer()

    def _started(self) -> None:
        """Every worker is ready: whoever was here before may leave."""
        if self._successor is None:
            return
        if self._pid_file is not None:
            self._pid_file.write(replaces=self._successor.old_pid)
        self._successor.say_ready()
        for listener in (*self._listeners, *self._dropped):
            listener.adopt()
        for listener in self._dropped:
            listener.close()
        for endpoint in self._endpoints.values():
            endpoint.adopt()
            endpoint.resume()

    def _handed_over(self, _pid: int) -> None:
        """The new program has everything."""
        self._changes.stop()
        if self._pid_file is not None:
            self._pid_file.disown()
        for endpoint in self._endpoints.values():
            endpoint.disown()
            endpoint.close()

    def _keep_pid_file(self, _event: UpgradeFailed) -> None:
        """A new program that was killed on its way may have taken it."""
        if self._pid_file is not None:
            self._pid_file.write()

    def _sockets(self) -> dict[str, list[int]]:
        """What an upgrade passes on, by name."""
        sockets: dict[str, list[int]] = {}
        for listener in self._supervisor.listeners:
            sockets.setdefault(listener.settings.bind, []).append(listener.fileno())
        return sockets | {name: endpoint.sockets() for name, endpoint in self._endpoints.items()}

    def _look_at_certificates(self) -> None:
        """Renew them here as workers do: a reload judges by what is in use, and a new worker begins with it."""
        listeners = self._supervisor.listeners
        for listener in listeners:
            if listener.certificates is not None:
                listener.certificates.context()
        self._certificate_warnings.say(listeners)

    def _reap(self) -> None:
        self._changes.reap()

    def _stop_watching(self) -> None:
        self._changes.stop()

    def _reopen_logs(self) -> None:
        self._logs.reopen()

    def _close_logs(self) -> None:
        """Whichever there are by then."""
        self._logs.close()

    def _set_up(self, configuration: Configuration) -> None:
        """As new settings say: here after a reload, and in each worker of it before."""
        self._logs = self._logs.renew(configuration.server)
        raise_descriptor_limit(configuration.server)

    def _forget(self) -> None:
        """In a worker: leave to the supervisor what is its own."""
        for endpoint in self._endpoints.values():
            endpoint.leave_to_parent()
        for listener in self._dropped:
            listener.close()
        self._changes.disown()
        if self._successor is not None:
            self._successor.close()

    def _say_how_to_try(self, event: SupervisorStarted) -> None:
        logger = logging.getLogger(LOGGER)
        if self._file is not None:
            logger.info("settings read from %s", self._file)
        if self._service is not None:
            is_tls = self._listeners[0].settings.tls_mode == "implicit" and bool(self._listeners[0].settings.tls_cert)
            logger.info("%s is ready; try: %s", self._service, how_to_try(event.addresses[0], is_tls=is_tls))


def how_to_try(address: Any, *, is_tls: bool = False) -> str:
    """The command line of a client on this host."""
    match address:
        case (str(host), int(port), *_) if is_tls:
            host = _LOOPBACK.get(host, host)
            return f"openssl s_client -quiet -connect {f'[{host}]' if ':' in host else host}:{port}"
        case str() if is_tls and not address.startswith("\0"):
            return f"openssl s_client -quiet -unix {address}"
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


def _say_that_code_stays(_event: ReloadFinished) -> None:
    logging.getLogger(LOGGER).info(
        "the handler came from the program that called serve(), so its code is as before: "
        "an upgrade (SIGUSR2) runs that program again"
    )


def _warn_of_threads() -> None:
    """A forked process has none of them, and whatever lock they held stays held there."""
    others = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    if others:
        logging.getLogger(LOGGER).warning(
            "this program runs threads (%s), and its workers are forked: they will lack them, and may find their locks "
            "held; call serve() before anything starts a thread, or start them in `worker_start`",
            ", ".join(others),
        )
