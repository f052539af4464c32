"""The control socket: one line in, one line out, for this user alone."""

import json
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.errors import OperatorError
from moorage.observe.answering import ANSWER_SECONDS, MOST_CLIENTS, REQUEST_LIMIT
from moorage.observe.control import ControlSocket, open_control
from support.answering import Caller, Turner
from support.sockets import reset


def refuse() -> None:
    raise OperatorError("one worker is the least")


def fail() -> None:
    raise ZeroDivisionError("here")


COMMANDS: dict[str, Callable[[], object]] = {
    "status": lambda: {"workers": 2, "addresses": ["ü"], "path": Path("/x")},
    "reload": lambda: None,
    "fewer": refuse,
    "more": fail,
}


@pytest.fixture
def turner() -> Iterator[Turner]:
    turner = Turner()
    yield turner
    turner.watch.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"{tmp_path}/c.sock"


@pytest.fixture
def control(turner: Turner, path: str) -> Iterator[ControlSocket]:
    control = ControlSocket(path, turner.watch, COMMANDS, clock=turner.clock)
    yield control
    control.close()


@pytest.fixture
def call(turner: Turner, control: ControlSocket, path: str) -> Iterator[Callable[[], Caller]]:
    callers: list[Caller] = []

    def call() -> Caller:
        callers.append(Caller(turner, path))
        turner.settle()
        return callers[-1]

    yield call
    for caller in callers:
        caller.sock.close()


@pytest.fixture
def ask(call: Callable[[], Caller]) -> Callable[[bytes], Any]:
    def ask(line: bytes) -> Any:
        caller = call()
        caller.send(line)
        reply = caller.reply()
        assert reply.endswith(b"\n")
        assert reply.count(b"\n") == 1
        return json.loads(reply)

    return ask


Ask = Callable[[bytes], Any]


def test_command_is_answered_with_its_result(ask: Ask) -> None:
    answer = ask(b'{"command": "status"}\n')
    assert answer == {"ok": True, "result": {"workers": 2, "addresses": ["ü"], "path": "/x"}}
    assert ask(b'{"command": "reload"}\n') == {"ok": True, "result": None}


def test_command_that_is_refused_is_answered_with_its_sentence(ask: Ask) -> None:
    assert ask(b'{"command": "fewer"}\n') == {"ok": False, "error": "one worker is the least"}


def test_command_that_fails_is_answered_and_told_in_the_log(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    answer = ask(b'{"command": "more"}\n')
    assert answer["ok"] is False
    assert "ZeroDivisionError: here" in answer["error"]
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"status\n", "the line is no JSON; write one line such as"),
        (b"\n", "the line is no JSON"),
        (b"\xff\xfe\x00\n", "the line is no JSON"),
        (b"[" * 4000 + b"\n", "the line is no JSON"),
        (b"GET / HTTP/1.1\r\n\r\n", "the line is no JSON"),
        (b'"status"\n', "the line names no command"),
        (b"null\n", "the line names no command"),
        (b'{"command": 5}\n', "the line names no command"),
        (b'{"command": "status", "x": 1}\n', "the line names no command"),
        (b'{"command": "dance"}\n', "there is no command 'dance'; there are status, reload, fewer, more"),
        (b"x" * (REQUEST_LIMIT + 1), "the line has more than 4096 bytes"),
    ],
)
def test_line_that_is_no_command_is_answered_with_a_sentence(ask: Ask, line: bytes, sentence: str) -> None:
    answer = ask(line)
    assert answer["ok"] is False
    assert sentence in answer["error"]


def test_line_in_pieces_is_obeyed_at_its_end(call: Callable[[], Caller]) -> None:
    caller = call()
    caller.send(b'{"command": ')
    caller.send(b'"reload"}')
    assert not caller.is_closed()
    caller.send(b"\n")
    assert json.loads(caller.reply())["ok"] is True


def test_command_is_not_obeyed_without_its_line_end(call: Callable[[], Caller]) -> None:
    caller = call()
    caller.send(b'{"command": "reload"}')
    caller.sock.shutdown(socket.SHUT_WR)
    assert caller.reply() == b""


def test_hostile_clients_leave_room_for_an_operator(call: Callable[[], Caller], turner: Turner, ask: Ask) -> None:
    for number in range(2 * MOST_CLIENTS):
        caller = call()
        if number % 3 == 1:
            caller.send(b'{"comm')
        elif number % 3 == 2:
            reset(caller.sock)
    assert ask(b'{"command": "reload"}\n')["ok"] is True
    turner.pass_time(ANSWER_SECONDS + 0.1)
    assert turner.watch._parked == {}


def test_path_is_for_this_user_alone_and_goes_at_the_end(turner: Turner, control: ControlSocket, path: str) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert str(control) == f"unix:{path}"
    control.close()
    assert not os.path.exists(path)


def test_another_user_is_not_heard_where_a_name_has_no_mode(turner: Turner, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"@moorage-test-{os.getpid()}"
    control = ControlSocket(name, turner.watch, COMMANDS, clock=turner.clock)
    mine, theirs = socket.socketpair()
    with mine, theirs:
        assert control.admits(mine)
        monkeypatch.setattr("moorage.observe.control._CREDENTIALS", Credentials(4711))
        assert not control.admits(mine)
        monkeypatch.setattr("moorage.observe.control._CREDENTIALS", Credentials(0))
        assert control.admits(mine)
    control.close()


class Credentials:
    """What the kernel would say of a peer of another user."""

    size = 12

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def unpack(self, data: bytes) -> tuple[int, int, int]:
        assert len(data) == self.size
        return 1, self._uid, self._uid


def test_next_program_takes_the_socket_and_its_path_over(turner: Turner, path: str) -> None:
    old = ControlSocket(path, turner.watch, {}, clock=turner.clock)
    new = ControlSocket(path, turner.watch, COMMANDS, [os.dup(fd) for fd in old.sockets()], turner.clock)
    old.disown()
    new.adopt()
    old.close()
    caller = Caller(turner, path)
    caller.send(b'{"command": "reload"}\n')
    assert json.loads(caller.reply())["ok"] is True
    new.close()
    assert not os.path.exists(path)


def test_path_stays_when_the_next_program_does_not_begin(turner: Turner, path: str) -> None:
    old = ControlSocket(path, turner.watch, {}, clock=turner.clock)
    new = ControlSocket(path, turner.watch, COMMANDS, [os.dup(fd) for fd in old.sockets()], turner.clock)
    new.close()
    assert os.path.exists(path)
    old.close()
    assert not os.path.exists(path)


# Which path


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path / f"moorage-{os.geteuid()}"


def test_control_that_is_off_opens_nothing(turner: Turner, temporary: Path) -> None:
    assert open_control(None, "x", turner.watch, COMMANDS) is None
    assert not temporary.exists()


def test_control_auto_is_named_for_the_server(turner: Turner, temporary: Path) -> None:
    control = open_control("auto", "x", turner.watch, COMMANDS)
    assert control is not None
    assert str(control) == f"unix:{temporary}/x.sock"
    control.close()


def test_default_path_that_cannot_be_had_is_one_warning(
    turner: Turner, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    temporary.symlink_to("/")
    assert open_control("auto", "x", turner.watch, COMMANDS) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].startswith("there is no control socket: the folder ")


def test_second_server_of_one_name_is_told_whose_the_path_is(
    turner: Turner, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_control("auto", "x", turner.watch, COMMANDS)
    assert first is not None
    assert open_control("auto", "x", turner.watch, COMMANDS) is None
    assert f"(pid {os.getpid()})" in caplog.messages[0]
    assert "with `control`" in caplog.messages[0]
    first.close()


def test_name_that_is_too_long_for_a_socket_is_a_warning(
    turner: Turner, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_control("auto", "x" * 120, turner.watch, COMMANDS) is None
    assert "at most 107 bytes" in caplog.messages[0]


def test_path_that_was_named_and_cannot_be_used_is_an_error(turner: Turner, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"there is no directory.*with `control`"):
        open_control(f"{tmp_path}/absent/c", "x", turner.watch, COMMANDS)
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="there is something that is no socket"):
        open_control(f"unix:{tmp_path}/file", "x", turner.watch, COMMANDS)


def test_path_of_a_server_that_crashed_is_taken(turner: Turner, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    control = open_control(path, "x", turner.watch, COMMANDS)
    assert control is not None
    control.close()


def test_inherited_socket_needs_no_folder_to_be_made(turner: Turner, temporary: Path) -> None:
    old = open_control("auto", "x", turner.watch, {})
    assert old is not None
    temporary.chmod(0o755)  # nothing that concerns a socket which is open
    new = open_control("auto", "x", turner.watch, COMMANDS, [os.dup(fd) for fd in old.sockets()])
    assert new is not None
    old.disown()
    old.close()
    new.close()
