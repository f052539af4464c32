"""Control: the socket by which an operator speaks to a running server.

Owns      the socket of the setting `control`: one JSON line in, `{"command": "status"}`, one JSON line out,
          `{"ok": true, "result": ...}` or `{"ok": false, "error": "a sentence"}`.
Promises  this user and root alone are heard; every line gets an answer, also one that is nonsense, too long, or
          whose command fails; the bounds are those of `answering`.
Refuses   to wait for what a command has begun: the answer says that it has.
"""

import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence

from ..deadline import Clock, monotonic
from ..errors import OperatorError
from .answering import REQUEST_LIMIT, Answering, Watch, open_own
from .control_path import AUTO, control_paths, prepare_control_path
from .logs import LOGGER

Command = Callable[[], object]

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_SHAPE = 'write one line such as {"command": "status"}'


class ControlSocket(Answering):
    """Obeys until `close`; `inherited` are listening sockets of the program before this one."""

    def __init__(
        self,
        path: str,
        watch: Watch,
        commands: Mapping[str, Command],
        inherited: Sequence[int] = (),
        clock: Clock = monotonic,
    ) -> None:
        self._commands = commands
        bind = f"unix:{path.removeprefix('unix:')}"
        super().__init__(open_own(bind, "control", inherited), watch, self, clock)

    def admits(self, sock: socket.socket) -> bool:
        """Whether it is this user or root; the mode of the path says so too, but an abstract name has none."""
        try:
            _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        except OSError:
            return False
        return uid in (0, os.geteuid())

    def reply(self, received: bytes) -> bytes | None:
        """The answer to the first line, None while it has no end."""
        line, end, _ = received.partition(b"\n")
        if not end:
            return None
        try:
            name = _command(line)
            if name not in self._commands:
                raise OperatorError(f"there is no command {name!r}; there are {', '.join(self._commands)}")
            return _line({"ok": True, "result": self._commands[name]()})
        except OperatorError as error:
            return _refuse(str(error))
        except Exception as error:  # a bug of ours: the operator learns that there is one
            logging.getLogger(LOGGER).exception("a command on the control socket failed")
            return _refuse(f"the command failed, and the log says where: {type(error).__name__}: {error}")

    def refuse_long(self) -> bytes:
        """The answer to a line above the limit."""
        return _refuse(f"the line has more than {REQUEST_LIMIT} bytes; {_SHAPE}")


def open_control(
    setting: str | None,
    name: str,
    watch: Watch,
    commands: Mapping[str, Command],
    inherited: Sequence[int] = (),
    clock: Clock = monotonic,
) -> ControlSocket | None:
    """The socket that the setting `control` asks for: None when it is off, or when the path was left to us and there
    is none to be had, which is one warning; `OperatorError` for a path that was named."""
    if setting is None:
        return None
    if setting != AUTO:
        return ControlSocket(setting, watch, commands, inherited, clock)
    try:
        path = control_paths(name)[0] if inherited else prepare_control_path(name)
        return ControlSocket(str(path), watch, commands, inherited, clock)
    except OperatorError as error:
        logging.getLogger(LOGGER).warning("there is no control socket: %s", error)
        return None


def _command(line: bytes) -> str:
    """The command that a line names."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise OperatorError(f"the line is no JSON; {_SHAPE}") from None
    match request:
        case {"command": str(name)} if len(request) == 1:
            return name
    raise OperatorError(f"the line names no command; {_SHAPE}")


def _refuse(sentence: str) -> bytes:
    return _line({"ok": False, "error": sentence})


def _line(answer: Mapping[str, object]) -> bytes:
    return json.dumps(answer, default=str).encode() + b"\n"
