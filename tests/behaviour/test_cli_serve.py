"""`moorage serve`, as an operator has it: a process, its log, its signals, its status."""

import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.client import SOON, Client
from support.serving import Serving, mistake
from support.waiting import eventually

Serve = Callable[..., Serving]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers in an empty folder; none outlives the test."""
    servers: list[Serving] = []

    def start(*arguments: str, env: dict[str, str] | None = None) -> Serving:
        servers.append(Serving(*arguments, cwd=tmp_path, env=env))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def test_echo_is_served_and_the_log_says_where_and_how_to_try(serve: Serve) -> None:
    server = serve("echo", "--bind", "127.0.0.1:0")
    host, port = server.address()
    server.hear(rf"try: (nc 127.0.0.1 {port}$|python3 -c .*127.0.0.1)")
    with Client((host, port)) as client:
        assert client.ask(b"hello\n") == b"hello\n"


def test_command_to_try_works_where_there_is_no_netcat(serve: Serve) -> None:
    server = serve("echo", "--bind", "127.0.0.1:0", env={"PATH": "/nowhere"})
    (command,) = server.hear("try: (python3 -c .*)$").groups()
    tried = subprocess.run(command, shell=True, check=True, capture_output=True, text=True, timeout=SOON)
    assert tried.stdout == "b'hello\\n'\n"


@pytest.mark.parametrize("runner", ["threads", "forks", "inline"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signal_to_stop_drains_and_leaves_with_status_0(serve: Serve, number: signal.Signals, runner: str) -> None:
    server = serve("echo", "--bind", "127.0.0.1:0", "--drain-quiet", "100ms", "--runner", runner)
    with Client(server.address()) as client:
        assert client.ask(b"half") == b"half"
        server.signal(number)
        server.hear("draining 1 connection")
        assert client.rest() == b""
    assert server.status() == 0
    assert server.said("no connection cut")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_second_signal_to_stop_ends_now_with_status_0(serve: Serve, number: signal.Signals) -> None:
    server = serve("echo", "--bind", "127.0.0.1:0", "--drain-quiet", "1d", "--drain-timeout", "off")
    with Client(server.address()) as client:
        client.ask(b"busy")
        server.signal(signal.SIGTERM)
        server.hear("draining 1 connection")
        server.signal(number)
        assert client.is_cut()
        assert server.status() == 0


def test_signals_without_end_leave_status_0_and_nothing_behind(serve: Serve, tmp_path: Path) -> None:
    """A third TERM came when its handler was gone already, and a second one after the end was an error."""
    server = serve("echo", "--bind", f"unix:{tmp_path}/s", "--pid-file", str(tmp_path / "pid"))
    server.hear("listening")
    server.signal(signal.SIGTERM)
    while server.process.poll() is None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            server.process.send_signal(number)
    assert server.status() == 0
    assert not server.said("Traceback")
    assert [path.name for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_quit_ends_now_with_status_0(serve: Serve) -> None:
    server = serve("echo", "--bind", "127.0.0.1:0", "--drain-quiet", "1d", "--drain-timeout", "off")
    with Client(server.address()) as client:
        client.ask(b"busy")
        server.signal(signal.SIGQUIT)
        assert client.is_cut()
        assert server.status() == 0


def test_connections_cut_at_the_deadline_are_one_warning_with_their_count(serve: Serve) -> None:
    server = serve("echo", "--bind", "127.0.0.1:0", "--drain-timeout", "0")
    address = server.address()
    with Client(address) as one, Client(address) as two:
        one.ask(b"a")
        two.ask(b"a")
        server.signal(signal.SIGTERM)
        assert server.status() == 0
    cut = [line for line in server.log if "WARNING" in line and "cut" in line]
    assert len(cut) == 1
    assert "2 connections cut" in cut[0]


def test_signal_during_the_start_still_stops_with_status_0(serve: Serve, tmp_path: Path) -> None:
    server = serve("echo", "--bind", "127.0.0.1:0")
    server.hear("listening")
    server.signal(signal.SIGTERM)
    assert server.status() == 0


def test_usr1_opens_the_log_file_anew(serve: Serve, tmp_path: Path) -> None:
    log, moved = tmp_path / "log", tmp_path / "log.1"
    server = serve("echo", "--bind", "127.0.0.1:0", "--log-file", str(log))
    eventually(lambda: log.exists() and "try:" in log.read_text(), SOON)
    log.rename(moved)
    server.signal(signal.SIGUSR1)
    eventually(lambda: log.exists() and "opened anew" in log.read_text(), SOON)
    server.signal(signal.SIGTERM)
    assert server.status() == 0
    assert "stopped" in log.read_text()
    assert "stopped" not in moved.read_text()


def test_json_log_is_one_object_a_line(serve: Serve) -> None:
    server = serve("echo", "--bind", "127.0.0.1:0", "--log-format", "json", "--log-connections")
    server.hear("SupervisorStarted")
    started = json.loads(server.log[-1])
    host, _, port = started["addresses"][0].rpartition(":")
    with Client((host, int(port))) as client:
        client.ask(b"abc")
    server.hear("ConnectionClosed")
    closed = json.loads(server.log[-1])
    assert (closed["cause"], closed["bytes_received"], closed["bytes_sent"]) == ("peer_closed", 3, 3)
    assert closed["peer"].startswith("127.0.0.1:")


def test_settings_come_from_file_environment_and_flags(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "moorage.toml").write_text(f"bind = 'unix:{tmp_path}/s'\nlog_format = 'json'\nlog_level = 'error'")
    server = serve("echo", "--log-level", "info", env={"MOORAGE_LOG_FORMAT": "text"})
    assert server.address() == f"{tmp_path}/s"
    server.hear(f"settings read from {tmp_path}/moorage.toml")


def test_handler_of_a_file_is_served_and_its_failure_logged_with_its_traceback(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def handle(conn):\n    raise LookupError('mine')\n")
    server = serve("app.py:handle", "--bind", "[::1]:0")
    host, port = server.address()
    with Client((host, port, 0, 0)) as client:
        client.is_cut()
    server.hear(r"ERROR .*the handler of connection 1 from \[::1\]:\d+ failed")
    server.hear("LookupError: mine")


def test_several_listeners_are_served_each_with_its_settings(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = serve("echo", "--bind", "127.0.0.1:0", "--bind", f"unix:{path},unix-mode=660")
    host, port = server.hear(r"listening on ([0-9.]+):(\d+), unix:").groups()
    assert path.stat().st_mode & 0o777 == 0o660
    for address in ((host, int(port)), str(path)):
        with Client(address) as client:
            assert client.ask(b"x") == b"x"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_port_in_use_is_named_and_nothing_half_open_is_left(tmp_path: Path, taken: int) -> None:
    path = tmp_path / "s"
    sentence = mistake(tmp_path, "serve", "echo", "--bind", f"unix:{path}", "--bind", f"127.0.0.1:{taken}")
    assert f"127.0.0.1:{taken}" in sentence
    assert not path.exists()
    assert sorted(tmp_path.iterdir()) == []


def test_path_that_is_no_socket_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert str(path) in mistake(tmp_path, "serve", "echo", "--bind", f"unix:{path}")
    assert path.read_text() == "data"
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "echo", "--max-conections", "5"],
        ["serve", "echo", "--max-connections", "0"],
        ["serve", "absent.py:x"],
        ["serve", "json:absent"],
        ["serve", "json:JSONEncoder"],
        ["serve", "echo", "--bind", "systemd:web"],
        ["check", "--config", "absent.toml"],
        ["run", "absent.py"],
        ["run", "-m", "absent_module"],
    ],
    ids=" ".join,
)
def test_mistake_of_the_operator_is_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    assert len(mistake(tmp_path, *arguments)) < 300
