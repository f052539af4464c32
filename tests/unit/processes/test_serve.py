"""Serve: exit statuses and what a signal does, with a server whose life is in the hands of the test."""

import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from moorage import twins
from moorage.errors import BindError, OperatorError, SettingError
from moorage.events import ServerStarted
from moorage.processes import serve as serving
from moorage.processes.serve import how_to_try, serve
from moorage.server import Server
from moorage.services import echo


class Scripted(Server):
    """Instead of serving does what the test says."""

    script: Any = staticmethod(lambda server: None)
    calls: list[str]

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        self.calls = []
        type(self).script(self)

    def drain(self, timeout: object = ...) -> bool:
        self.calls.append("drain")
        return True

    def close(self) -> None:
        if hasattr(self, "calls"):
            self.calls.append("close")
        super().close()


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Scripted]:
    """`serve()` with a scripted server, in a folder without a settings file."""
    monkeypatch.setattr(serving, "Server", Scripted)
    monkeypatch.setattr(Scripted, "script", staticmethod(lambda server: None))
    monkeypatch.chdir(tmp_path)
    return Scripted


def started(server: Server) -> None:
    server.events.emit(ServerStarted((("127.0.0.1", 4000),), "threads"))


def script(scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    monkeypatch.setattr(scripted, "script", staticmethod(action))


def test_stop_that_was_asked_for_is_status_0() -> None:
    assert serve(echo, "127.0.0.1:0") == 0


def test_mistake_before_serving_is_raised(scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch) -> None:
    def in_use(server: Scripted) -> None:
        raise BindError("taken")

    script(scripted, monkeypatch, in_use)
    with pytest.raises(BindError, match="taken"):
        serve(echo, "127.0.0.1:0")
    with pytest.raises(SettingError, match="max_connections = 0"):
        serve(echo, "127.0.0.1:0", max_connections=0)
    with pytest.raises(OperatorError, match="handler comes first"):
        serve("127.0.0.1:0", echo)


@pytest.mark.parametrize("error", [OSError("listener gone"), BindError("later"), RuntimeError("bug")])
def test_server_that_fails_after_its_start_is_status_1(
    scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(server: Scripted) -> None:
        started(server)
        raise error

    script(scripted, monkeypatch, fail)
    assert serve(echo, "127.0.0.1:0") == 1
    assert "the server failed" in caplog.text
    assert str(error) in caplog.text


@pytest.mark.parametrize(
    ("numbers", "calls"),
    [
        ([signal.SIGTERM], ["drain"]),
        ([signal.SIGINT], ["drain"]),
        ([signal.SIGTERM, signal.SIGTERM], ["drain", "close"]),
        ([signal.SIGQUIT], ["close"]),
        ([signal.SIGUSR1], []),
    ],
)
def test_signal_does_what_its_row_says(
    scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch, numbers: list[signal.Signals], calls: list[str]
) -> None:
    seen: list[str] = []

    def signalled(server: Scripted) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)
        seen.extend(server.calls)

    script(scripted, monkeypatch, signalled)
    assert serve(echo, "127.0.0.1:0") == 0
    assert seen == calls


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU])
def test_signal_that_needs_a_supervisor_is_one_line(
    scripted: type[Scripted],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: signal.Signals,
) -> None:
    script(scripted, monkeypatch, lambda server: os.kill(os.getpid(), number))
    assert serve(echo, "127.0.0.1:0") == 0
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith(f"{number.name} asks for: ")
    assert "no supervisor" in lines[0]


def test_start_of_a_service_says_how_to_try_it(
    scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "moorage.toml").write_text("backlog = 5")
    script(scripted, monkeypatch, started)
    monkeypatch.setattr(serving, "which", lambda name: f"/bin/{name}")
    serve(echo, "127.0.0.1:0")
    assert [record.getMessage() for record in caplog.records] == [
        f"listening on 127.0.0.1:4000 with runner threads ({'native' if twins.NATIVE else 'pure'})",
        f"settings read from {tmp_path / 'moorage.toml'}",
        "echo is ready; try: nc 127.0.0.1 4000",
    ]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_start_of_a_handler_of_ones_own_says_no_more_than_where(
    scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script(scripted, monkeypatch, started)
    serve(lambda conn: None, "127.0.0.1:0")
    assert len(caplog.records) == 1


def test_settings_come_from_environment_and_arguments(
    scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    script(scripted, monkeypatch, lambda server: seen.append(server.settings))
    monkeypatch.setenv("MOORAGE_THREADS", "3")
    monkeypatch.setenv("MOORAGE_LINE_LIMIT", "3")
    serve(echo, "127.0.0.1:0", line_limit="4KiB")
    (settings,) = seen
    assert (settings.threads, settings.line_limit) == (3, 4096)  # type: ignore[attr-defined]


def test_hooks_are_passed_on_to_the_server(scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    script(scripted, monkeypatch, lambda server: server._hooks[0](server))
    serve(echo, "127.0.0.1:0", worker_start=lambda server: calls.append("start"))
    assert calls == ["start"]


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
