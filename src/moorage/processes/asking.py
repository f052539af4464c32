"""Asking: one command to a running server, over its control socket.

Owns      the commands there are, the way to the socket, and how an answer is written for people.
Promises  the result, or an `OperatorError` that says what was looked for, where, and what to do; an answer within
          `PATIENCE` seconds or none; nothing of an answer can move a terminal's cursor.
Refuses   to speak to a socket in a folder where others could have put it.
"""

import errno
import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..config.address import describe
from ..deadline import Deadline
from ..errors import OperatorError
from ..observe.control_path import AUTO, check_folder, control_paths

#: every command, and what it does
COMMANDS = {
    "status": "tell what runs",
    "reload": "new workers with new settings and code, the old ones drain",
    "upgrade": "a new program on the same sockets; the old one drains and leaves",
    "stop": "drain and stop",
    "end": "end now: open connections are cut",
    "more": "one worker more",
    "fewer": "one worker less",
    "reopen": "open the log files anew",
}
#: a supervisor answers at once; ten seconds are a host that swaps
PATIENCE = 10.0
#: the status of `MOST_WORKERS` twice over is a tenth of this
ANSWER_LIMIT = 4 << 20
CHUNK = 64 * 1024


def ask(command: str, name: str, control: str | None, patience: float = PATIENCE) -> Any:
    """What the server of this name answers; `control` is the setting: `auto`, a path, or None for no socket."""
    if control is None:
        raise OperatorError("control is off, so there is no socket to ask; name one with --control PATH")
    deadline = Deadline(patience)
    with _connect_to(name, deadline) if control == AUTO else _connect(control.removeprefix("unix:"), deadline) as sock:
        path = describe(sock.getpeername())
        try:
            answer = _converse(sock, command, deadline)
        except TimeoutError:
            raise OperatorError(f"the server at {path} did not answer within {patience:g} s") from None
        except OSError as error:
            raise OperatorError(f"the server at {path} hung up ({error.strerror}); its log may say why") from None
    return _result(answer, path)


def as_table(result: object) -> list[str]:
    """An answer as lines for people: single values first, then a table for each list of workers and the like."""
    if not isinstance(result, Mapping):
        return [] if result is None else [_text(result)]
    single = {key: value for key, value in result.items() if not _is_table(value)}
    lines = _columns([(_printable(key), _text(value)) for key, value in single.items()])
    for key, rows in result.items():
        if _is_table(rows):
            names = list(dict.fromkeys(name for row in rows for name in row))
            body = [tuple(_text(row.get(name)) for name in names) for row in rows]
            lines += ["", f"{_printable(key)}:", *_columns([tuple(map(_printable, names)), *body])]
    return lines


# The way to the socket


def _connect_to(name: str, deadline: Deadline) -> socket.socket:
    """The socket of the server of this name, where a server would have made it."""
    paths = control_paths(name)
    for path in paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            if path.parent == paths[-1].parent:
                check_folder(path.parent)  # this one is in a folder where everybody may write
            return _connect(str(path), deadline, is_wanted=False)
    raise OperatorError(
        f"there is no control socket of a server named {name!r} at {' or '.join(map(str, paths))}: "
        "name the server with --name, or the socket with --control PATH"
    )


def _connect(path: str, deadline: Deadline, *, is_wanted: bool = True) -> socket.socket:
    """A connection to this path; FileNotFoundError too, when another path may be meant."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.remaining())
        sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
    except OSError as error:
        sock.close()
        if not is_wanted and isinstance(error, FileNotFoundError | NotADirectoryError):
            raise
        raise OperatorError(f"cannot ask the server at {path}: {_reason(error)}") from None
    return sock


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ECONNREFUSED:
            return "nobody listens there any more; is the server running?"
        case errno.ENOENT | errno.ENOTDIR:
            return "there is no such socket; is the server running?"
        case errno.EACCES | errno.EPERM:
            return "this user may not; ask as the user of the server, or as root"
        case errno.ENOTSOCK | errno.EPROTOTYPE:
            return "there is something that is no control socket"
        case errno.EAGAIN:  # its backlog is full
            return "it has no time for us now; try again"
    return error.strerror or str(error)


# The conversation


def _converse(sock: socket.socket, command: str, deadline: Deadline) -> bytes:
    sock.sendall(json.dumps({"command": command}).encode() + b"\n")
    answer = bytearray()
    while len(answer) <= ANSWER_LIMIT:
        sock.settimeout(_left(deadline))
        data = sock.recv(CHUNK)
        if not data:
            break
        answer += data
    return bytes(answer)


def _left(deadline: Deadline) -> float | None:
    """What is left; zero would not mean "no time" to a socket, but "do not block"."""
    if deadline.is_due():
        raise TimeoutError
    return deadline.remaining()


def _result(answer: bytes, path: str) -> Any:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    match found:
        case {"ok": True, "result": result}:
            return result
        case {"ok": False, "error": str(sentence)}:
            raise OperatorError(_printable(sentence))
    said = "hung up without an answer" if not answer else "answered what is no answer of a moorage server"
    raise OperatorError(f"who listens at {path} {said}; is it the server that you mean?")


# For people


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_printable(key)} {_text(each)}" for key, each in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "-"
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else _printable(value)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _printable(value: object) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(value))
