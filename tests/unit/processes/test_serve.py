"""Serve: the order of the start and of the end, with a supervisor whose life is in the hands of the test."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage import twins
from moorage.certificates import Certificates
from moorage.config.resolve import from_arguments
from moorage.errors import BindError, OperatorError, PidFileError, SettingError, TargetError
from moorage.events import SupervisorStarted
from moorage.processes import serve as serving
from moorage.processes.scoreboard import Scoreboard
from moorage.processes.serve import how_to_try, serve, serve_target
from moorage.processes.signals import SIGNALS
from moorage.processes.supervisor import Plan
from moorage.services import echo
from support.certificates import HOSTS, issue, write
from support.client import Client
from support.clock import FakeClock


class Scripted:
    """Instead of supervising does what the test says."""

    script: Callable[[Any], object] = staticmethod(lambda supervisor: None)
    status_of_run = 0
    is_serving = True

    def __init__(self, plan: Plan, *, listeners: Any, events: Any, reread: Any, **rest: Any) -> None:
        self.plan, self.listeners, self.events, self.reread, self.rest = plan, listeners, events, reread, rest
        self.calls: list[tuple[str, ...]] = []

    def run(self) -> int:
        type(self).script(self)
        return self.status_of_run

    def status(self) -> dict[str, object]:
        return {"state": "scripted"}

    def __getattr__(self, verb: str) -> Callable[..., None]:
        return lambda *arguments: self.calls.append((verb, *arguments))


Script = Callable[[Callable[[Any], object]], None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return lambda action: monkeypatch.setattr(Scripted, "script", staticmethod(action))


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`serve()` with a scripted supervisor, in a folder without a settings file, with a control socket of its own."""
    monkeypatch.setattr(serving, "Supervisor", Scripted)
    monkeypatch.setattr(Scripted, "script", staticmethod(lambda supervisor: None))
    monkeypatch.setattr(serving, "_warn_of_threads", lambda: None)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.chdir(tmp_path)


def started(supervisor: Scripted) -> None:
    supervisor.events.emit(SupervisorStarted((("127.0.0.1", 4000),), "threads", 1))


@pytest.mark.parametrize("status", [0, 1])
def test_status_is_that_of_the_supervisor(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(Scripted, "status_of_run", status)
    assert serve(echo, "127.0.0.1:0") == status
    assert serve_target("echo", from_arguments("127.0.0.1:0", {})) == status


def test_mistake_before_serving_is_raised_and_leaves_nothing(script: Script, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="max_connections = 0"):
        serve(echo, "127.0.0.1:0", max_connections=0)
    with pytest.raises(OperatorError, match="handler comes first"):
        serve("127.0.0.1:0", echo)
    with pytest.raises(TargetError, match="no handler"):
        serve(5, "127.0.0.1:0")
    with taken(tmp_path / "taken"), pytest.raises(BindError, match="in use"):
        serve(echo, [f"unix:{tmp_path}/first", f"unix:{tmp_path}/taken"])
    assert not (tmp_path / "first").exists()


class taken:  # noqa: N801  # used like a function: with taken(path)
    """Somebody else listens at this path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self._path))
        self._socket.listen()

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@pytest.mark.parametrize(
    ("number", "call"),
    [
        (signal.SIGTERM, ("stop", "SIGTERM")),
        (signal.SIGINT, ("stop", "SIGINT")),
        (signal.SIGQUIT, ("end", "SIGQUIT")),
        (signal.SIGUSR1, ("reopen",)),
        (signal.SIGHUP, ("reload", "SIGHUP")),
        (signal.SIGUSR2, ("upgrade",)),
        (signal.SIGTTIN, ("more",)),
        (signal.SIGTTOU, ("fewer",)),
    ],
)
def test_signal_does_what_its_row_says(script: Script, number: signal.Signals, call: tuple[str, ...]) -> None:
    seen: list[tuple[str, ...]] = []

    def signalled(supervisor: Scripted) -> None:
        os.kill(os.getpid(), number)
        seen.extend(supervisor.calls)

    script(signalled)
    assert serve(echo, "127.0.0.1:0") == 0
    assert seen == [call]


def test_signal_while_everything_is_closed_cuts_nothing_short(
    script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It raised KeyboardInterrupt, or ended the process, with files left behind."""
    seen: list[Any] = []
    close = Scoreboard.close

    def interrupted(scoreboard: Scoreboard) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        close(scoreboard)

    monkeypatch.setattr(Scoreboard, "close", interrupted)
    script(seen.append)
    assert serve(echo, f"unix:{tmp_path}/s", pid_file=str(tmp_path / "pid")) == 0
    assert seen[0].calls == [("stop", "SIGINT")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moorage"]


def test_command_that_is_over_hears_no_signal_any_more() -> None:
    assert serve_target("echo", from_arguments("127.0.0.1:0", {})) == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= SIGNALS.keys()


def test_program_that_called_serve_hears_signals_again() -> None:
    assert serve(echo, "127.0.0.1:0") == 0
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & SIGNALS.keys()


def test_start_of_a_service_says_how_to_try_it(
    script: Script, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "moorage.toml").write_text("backlog = 5")
    script(started)
    monkeypatch.setattr(serving, "which", lambda name: f"/bin/{name}")
    serve(echo, "127.0.0.1:0")
    which = "native" if twins.NATIVE else "pure"
    assert [record.getMessage() for record in caplog.records] == [
        f"listening on 127.0.0.1:4000 with 1 worker and runner threads ({which})",
        f"settings read from {tmp_path / 'moorage.toml'}",
        "echo is ready; try: nc 127.0.0.1 4000",
    ]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_start_of_a_handler_of_ones_own_says_no_more_than_where(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script(started)
    serve(lambda conn: None, "127.0.0.1:0")
    assert len(caplog.records) == 1


def test_plan_has_settings_of_environment_and_arguments_and_the_hooks(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []
    script(lambda supervisor: plans.extend([supervisor.plan, supervisor.reread()]))
    monkeypatch.setenv("MOORAGE_THREADS", "3")
    monkeypatch.setenv("MOORAGE_LINE_LIMIT", "3")
    serve(echo, "127.0.0.1:0", line_limit="4KiB", worker_start=print)
    for plan in plans:
        assert (plan.settings.threads, plan.settings.line_limit) == (3, 4096)
        assert plan.hooks == {"worker_start": print}
        assert plan.load() is echo


def test_target_is_loaded_by_the_worker_alone(script: Script, tmp_path: Path) -> None:
    errors: list[str] = []

    def load(supervisor: Scripted) -> None:
        with pytest.raises(TargetError) as caught:
            supervisor.plan.load()
        errors.append(str(caught.value))

    script(load)
    assert serve_target("absent.py:x", from_arguments("127.0.0.1:0", {})) == 0
    assert errors == ["there is no file 'absent.py'"]


# --- what it opens and closes ------------------------------------------------------------------------


def test_pid_file_names_this_process_while_it_serves(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    read: list[str] = []
    script(lambda supervisor: read.append(path.read_text()))
    assert serve(echo, "127.0.0.1:0", pid_file=str(path)) == 0
    assert read == [f"{os.getpid()}\n"]
    assert not path.exists()


def test_pid_file_of_a_live_process_is_a_mistake_and_nothing_is_left(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    script(lambda supervisor: pytest.fail("it served"))
    with pytest.raises(PidFileError, match="which is running"):
        serve(echo, f"unix:{tmp_path}/s", pid_file=str(path))
    assert path.read_text() == f"{os.getppid()}\n"
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / "moorage").exists() or not list((tmp_path / "moorage").iterdir())


def test_control_and_metrics_are_asked_through_the_watch(script: Script, tmp_path: Path) -> None:
    answers: list[bytes] = []

    def ask(supervisor: Scripted) -> None:
        watch = supervisor.rest["watch"]
        for path, question in (("c", b'{"command": "status"}\n'), ("m", b"GET /ready HTTP/1.0\r\n\r\n")):
            with Client(str(tmp_path / path)) as client:
                client.sendall(question)
                client.setblocking(False)
                answer = b""
                while b"scripted" not in answer and b"ready" not in answer:
                    watch.turn(1.0)
                    try:
                        answer += client.recv(4096)
                    except BlockingIOError:
                        continue
                answers.append(answer)

    script(ask)
    serve(echo, f"unix:{tmp_path}/s", control=str(tmp_path / "c"), metrics=f"unix:{tmp_path}/m")
    assert answers[0] == b'{"ok": true, "result": {"state": "scripted"}}\n'
    assert answers[1].startswith(b"HTTP/1.0 200")
    assert not list(tmp_path.glob("[csm]"))


def test_control_path_that_cannot_be_used_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="control"):
        serve(echo, "127.0.0.1:0", control=str(tmp_path / "absent" / "c"))


def test_every_socket_goes_to_the_new_program_and_is_left_to_it(script: Script, tmp_path: Path) -> None:
    names: list[list[str]] = []

    def hand_over(supervisor: Scripted) -> None:
        upgrade = supervisor.rest["make_upgrade"](lambda pid: None)
        names.append(sorted(upgrade._sockets()))
        supervisor.rest["on_handed_over"](4711)

    script(hand_over)
    serve(
        echo, f"unix:{tmp_path}/s", control=str(tmp_path / "c"), metrics=f"unix:{tmp_path}/m",
        pid_file=str(tmp_path / "pid"),
    )  # fmt: skip
    assert names == [["control", "metrics", f"unix:{tmp_path}/s"]]
    assert sorted(path.name for path in tmp_path.glob("*")) == ["c", "m", "pid"]  # the listener is the supervisor's


def test_new_settings_of_the_log_hold_after_a_reload(script: Script, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def reload(supervisor: Scripted) -> None:
        (tmp_path / "moorage.toml").write_text(f"log_file = '{log}'\nlog_level = 'debug'\n")
        supervisor.rest["set_up"](supervisor.reread().configuration)
        logging.getLogger("moorage").debug("said after it")

    script(reload)
    serve(echo, "127.0.0.1:0")
    assert "said after it" in log.read_text()


def test_each_look_renews_certificates_and_warns_of_them(
    script: Script, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = write(issue(*HOSTS), tmp_path)
    Path(files.key).chmod(0o644)
    warnings: list[int] = []

    def look(supervisor: Scripted) -> None:
        (listener,) = supervisor.listeners
        clock = FakeClock()
        for certificates in (None, Certificates(listener.settings, clock)):  # as at a start, and after a reload
            listener.certificates = certificates or listener.certificates
            supervisor.rest["on_look"]()
            supervisor.rest["on_look"]()
            warnings.append(caplog.text.count("chmod 600"))
        before = listener.certificates.context()
        write(issue(*HOSTS), tmp_path)
        Path(files.key).chmod(0o644)  # the same fault again, and another key
        for _ in range(3):
            clock.advance(1)
            supervisor.rest["on_look"]()
        assert listener.certificates.context() is not before
        warnings.append(caplog.text.count("chmod 600"))

    script(look)
    serve(echo, "127.0.0.1:0", tls_cert=files.cert, tls_key=files.key)
    assert warnings == [1, 2, 3]


def test_threads_of_the_program_are_named_in_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait, name="mine")
    thread.start()
    try:
        serving._warn_of_threads()
    finally:
        is_over.set()
        thread.join()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "mine" in caplog.text


@pytest.mark.parametrize(
    ("address", "command"),
    [
        (("127.0.0.1", 1), "nc 127.0.0.1 1"),
        (("0.0.0.0", 1), "nc 127.0.0.1 1"),
        (("::", 1, 0, 0), "nc ::1 1"),
        ("/run/x", "nc -U /run/x"),
        ("\0x", "socat - ABSTRACT-CONNECT:x"),
    ],
)
def test_how_to_try_names_an_address_of_this_host(
    address: object, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "which", lambda name: f"/bin/{name}")
    assert how_to_try(address) == command


@pytest.mark.parametrize(
    ("address", "where"),
    [(("0.0.0.0", 1), "-connect 127.0.0.1:1"), (("::1", 1, 0, 0), "-connect [::1]:1"), ("/run/x", "-unix /run/x")],
)
def test_how_to_try_speaks_tls_where_the_server_does(address: object, where: str) -> None:
    assert how_to_try(address, is_tls=True) == f"openssl s_client -quiet {where}"
