"""Asking a running server: the way to its socket, its answer, and every way it can go wrong."""

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from moorage.errors import OperatorError
from moorage.observe.control import ControlSocket
from moorage.processes import asking
from moorage.processes.asking import COMMANDS, as_table, ask
from moorage.watch import Watch
from support.sockets import PATIENCE, reset
from support.waiting import in_thread

Says = Callable[[socket.socket], object]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path / f"moorage-{os.geteuid()}"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"{tmp_path}/c.sock"


@pytest.fixture
def serve() -> Iterator[Callable[[str], None]]:
    """Serves real control sockets at these paths, in a thread."""
    watch = Watch()
    sockets: list[ControlSocket] = []
    is_over = threading.Event()

    def refuse() -> None:
        raise OperatorError("it is \x1b[2Jrefused")

    def serve(path: str) -> None:
        commands = {"status": lambda: {"name": path}, "reload": lambda: None, "fewer": refuse}
        is_made = threading.Event()

        def make() -> None:
            sockets.append(ControlSocket(path, watch, commands))
            is_made.set()

        watch.call_soon(make)
        assert is_made.wait(PATIENCE)

    def turn() -> None:
        while not is_over.is_set():
            watch.turn()

    thread = threading.Thread(target=turn)
    thread.start()
    yield serve
    is_over.set()
    watch.wake()
    thread.join()
    for control in sockets:
        control.close()
    watch.close()


@pytest.fixture
def fake(path: str) -> Iterator[Callable[[Says], None]]:
    """A server that is none of ours, at `path`; it says this to its first client."""
    listener = socket.socket(socket.AF_UNIX)
    threads = []

    def say(says: Says) -> None:
        client, _ = listener.accept()
        with client, suppress(OSError):
            says(client)

    def fake(says: Says) -> None:
        listener.bind(path)
        listener.listen()
        threads.append(threading.Thread(target=say, args=(says,)))
        threads[0].start()

    with listener:
        yield fake
        for thread in threads:
            thread.join()


def test_result_comes_from_the_path_that_was_named(serve: Callable[[str], None], path: str) -> None:
    serve(path)
    assert ask("status", "x", path) == {"name": path}
    assert ask("status", "x", f"unix:{path}") == {"name": path}
    assert ask("reload", "x", path) is None


def test_abstract_name_is_found(serve: Callable[[str], None]) -> None:
    name = f"@moorage-test-{os.getpid()}"
    serve(name)
    assert ask("status", "x", name) == {"name": name}


def test_server_is_found_by_its_name_in_the_folder_of_this_user(serve: Callable[[str], None], temporary: Path) -> None:
    temporary.mkdir(mode=0o700)
    serve(f"{temporary}/x.sock")
    serve(f"{temporary}/y.sock")
    assert ask("status", "y", "auto") == {"name": f"{temporary}/y.sock"}


def test_server_is_found_where_it_was_started_with_another_environment(
    serve: Callable[[str], None], temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary.mkdir(mode=0o700)
    serve(f"{temporary}/x.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert ask("status", "x", "auto") == {"name": f"{temporary}/x.sock"}


def test_refusal_of_the_server_is_its_sentence_without_what_moves_a_cursor(
    serve: Callable[[str], None], path: str
) -> None:
    serve(path)
    with pytest.raises(OperatorError, match=r"^it is \?\[2Jrefused$"):
        ask("fewer", "x", path)
    with pytest.raises(OperatorError, match="there is no command 'dance'"):
        ask("dance", "x", path)


def test_control_that_is_off_is_a_sentence() -> None:
    with pytest.raises(OperatorError, match=r"control is off.*--control PATH"):
        ask("status", "x", None)


def test_server_that_is_nowhere_is_a_sentence_with_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/nowhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(OperatorError) as caught:
        ask("status", "x", "auto")
    for place in ("/nowhere/x.sock", f"{tmp_path}/moorage/x.sock", f"{tmp_path}/moorage-{os.geteuid()}/x.sock"):
        assert place in str(caught.value)
    assert "--name" in str(caught.value)


def test_folder_that_others_could_have_made_is_not_used(
    serve: Callable[[str], None], temporary: Path, tmp_path: Path
) -> None:
    (tmp_path / "trap").mkdir(mode=0o700)
    temporary.symlink_to(tmp_path / "trap")
    serve(f"{tmp_path}/trap/x.sock")
    with pytest.raises(OperatorError, match="is no directory"):
        ask("status", "x", "auto")


def test_socket_of_a_dead_server_is_a_sentence(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(OperatorError, match="nobody listens there any more"):
        ask("status", "x", path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "there is no such socket"),
        ("file", "is the server running|no control socket"),
        ("x" * 200, "too long"),
    ],
)
def test_path_that_leads_to_no_server_is_a_sentence(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match=f"cannot ask the server at .*{reason}"):
        ask("status", "x", f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (13, "this user may not"),
        (91, "something that is no control socket"),
        (11, "no time for us"),
        (5, "Input/output"),
    ],
)
def test_connect_that_fails_says_why(number: int, reason: str) -> None:
    assert reason in asking._reason(OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "hung up without an answer"),
        (b'{"ok": tr', "answered what is no answer of a moorage server"),
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", "answered what is no answer"),
        (b"[" * 100_000, "answered what is no answer"),
        (b'{"ok": true}\n', "answered what is no answer"),
        (b'"ok"\n', "answered what is no answer"),
        (b'{"ok": false, "error": 5}\n', "answered what is no answer"),
    ],
)
def test_answer_of_somebody_else_is_a_sentence(
    fake: Callable[[Says], None], path: str, answer: bytes, sentence: str
) -> None:
    fake(lambda client: client.recv(100) and client.send(answer))
    with pytest.raises(OperatorError, match=f"who listens at unix:{path} {sentence}"):
        ask("status", "x", path)


def test_answer_without_end_is_not_read_to_it(fake: Callable[[Says], None], path: str) -> None:
    def flood(client: socket.socket) -> None:
        while True:
            client.sendall(b"x" * 65536)

    fake(flood)
    with pytest.raises(OperatorError, match="answered what is no answer"):
        ask("status", "x", path)


def test_server_that_is_mute_is_a_sentence_after_a_time(fake: Callable[[Says], None], path: str) -> None:
    is_over = threading.Event()
    fake(lambda client: is_over.wait())
    with pytest.raises(OperatorError, match=r"did not answer within 0.1 s"):
        ask("status", "x", path, patience=0.1)
    is_over.set()


def test_server_that_drips_gets_no_more_time_for_it(fake: Callable[[Says], None], path: str) -> None:
    is_over = threading.Event()

    def drip(client: socket.socket) -> None:
        while not is_over.wait(0.01):
            client.sendall(b" ")

    fake(drip)
    with (
        in_thread(lambda: ask("status", "x", path, patience=0.2)) as asked,
        pytest.raises(OperatorError, match=r"did not answer within 0.2 s"),
    ):
        asked.result()
    is_over.set()


def test_server_that_dies_meanwhile_is_a_sentence(fake: Callable[[Says], None], path: str) -> None:
    fake(reset)  # unread input: the client is told of a reset
    with pytest.raises(OperatorError, match="hung up"):
        ask("status", "x", path)


# For people


def test_status_is_single_values_and_then_a_table() -> None:
    status = {
        "name": "echo",
        "workers": [
            {"number": 1, "pid": 812, "open": 5, "state": "serving"},
            {"number": 12, "pid": 9, "state": None, "since": 2.5},
        ],
        "ready": True,
        "seconds": 12.0,
        "addresses": ["127.0.0.1:1", "unix:/x"],
        "upgrade": {},
        "ends": {"idle": 3, "reset": 4},
    }
    assert as_table(status) == [
        "name       echo",
        "ready      yes",
        "seconds    12",
        "addresses  127.0.0.1:1, unix:/x",
        "upgrade    -",
        "ends       idle 3, reset 4",
        "",
        "workers:",
        "number  pid  open  state    since",
        "1       812  5     serving  -",
        "12      9    -     -        2.5",
    ]


@pytest.mark.parametrize(
    ("result", "lines"),
    [(None, []), ("3 workers", ["3 workers"]), ({}, []), ([], ["-"]), ({"x": "a\x1b[2J\nb"}, ["x  a?[2J?b"])],
)
def test_other_results_are_lines_too(result: object, lines: list[str]) -> None:
    assert as_table(result) == lines


def test_every_command_says_what_it_does() -> None:
    assert {"status", "reload", "upgrade", "stop", "end", "more", "fewer", "reopen"} == set(COMMANDS)
    assert all(COMMANDS.values())
