"""Link: what a supervisor and one of its workers say to each other.

Owns      a pair of sockets, one end each, and the messages: small frozen classes.
Promises  a message arrives whole or not at all, and in order; `send` never blocks, and says whether the other
          end can still hear; the death of the other process is an end of stream, however it died.
Refuses   to guess: a datagram that is none of the messages is a bug of ours, and is named.
Why       SOCK_SEQPACKET keeps the borders of messages and tells of the end, which SOCK_DGRAM does not; signals
          could carry neither a reason nor a list, and anybody may send them.
"""

import json
import select
import socket
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import InternalError

LONGEST = 64 * 1024  # bytes of one message
LONGEST_REASON = 4096  # characters; JSON needs at most 12 bytes for one
SHOWN = 200  # bytes of a datagram that is none of ours, in the sentence about it


@dataclass(frozen=True)
class Ready:
    """The worker can accept, and waits for `Go`."""


@dataclass(frozen=True)
class Failed:
    """The worker cannot boot, and leaves; `is_operator`: the reason is one sentence about the operator's mistake."""

    reason: str
    is_operator: bool


@dataclass(frozen=True)
class Go:
    """Accept clients from now on."""


@dataclass(frozen=True)
class Leave:
    """Others accept on the same listeners: accept nobody more, and drain.

    `last` are the listeners, by their place in the list, that nobody accepts on any more: finish their backlog.
    """

    last: tuple[int, ...] = ()


@dataclass(frozen=True)
class Drain:
    """The program stops: finish the backlog, and drain."""


@dataclass(frozen=True)
class End:
    """End now."""


@dataclass(frozen=True)
class Reopen:
    """Open the log file anew."""


Message = Ready | Failed | Go | Leave | Drain | End | Reopen
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in (Ready, Failed, Go, Leave, Drain, End, Reopen)}


class Link:
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, message: Message) -> bool:
        """Say it; False when the other end does not hear: it is gone, or has left hundreds of messages unread."""
        try:
            self._sock.send(_pack(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def receive(self) -> Message | None:
        """The next message, None at the end of the stream; raises `BlockingIOError` when there is none yet."""
        try:
            data = self._sock.recv(LONGEST, socket.MSG_DONTWAIT)
        except ConnectionResetError:  # the other end was closed with something of ours unread: unix(7)
            return None
        return _unpack(data) if data else None

    def receive_now(self, timeout: float) -> Message | None:
        """As `receive`, but wait for it; raises `TimeoutError` after so many seconds."""
        waiting = select.poll()
        waiting.register(self._sock, select.POLLIN)
        if not waiting.poll(timeout * 1000):
            raise TimeoutError("the other end of the link said nothing")
        return self.receive()

    def fileno(self) -> int:
        """The descriptor, to wait for; -1 when closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """The other end reads end of stream, once no process has this end any more; a second call does nothing."""
        self._sock.close()


def make_links() -> tuple[Link, Link]:
    """The supervisor's end and the worker's; neither survives an exec."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Link(ours), Link(theirs)


def _pack(message: Message) -> bytes:
    if isinstance(message, Failed) and len(message.reason) > LONGEST_REASON:
        message = replace(message, reason=message.reason[: LONGEST_REASON - 3] + "...")
    return json.dumps({"kind": type(message).__name__, **asdict(message)}).encode()


def _unpack(data: bytes) -> Message:
    try:
        said: dict[str, Any] = json.loads(data)
        kind: Any = _KINDS[said.pop("kind")]
        if said.keys() != {field.name for field in fields(kind)}:
            raise ValueError("it has other fields")
        message: Message = kind(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
        )
        _check(message)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        shown = data[:SHOWN]
        raise InternalError(f"a message between supervisor and worker is none of ours: {shown!r} ({error})") from error
    return message


def _check(message: Any) -> None:
    """Raise `ValueError` where a field is not of its type."""
    match message:
        case Ready() | Go() | Drain() | End() | Reopen() | Failed(str(), bool()):
            return
        case Leave(tuple(last)) if all(type(index) is int for index in last):
            return
    raise ValueError("a field is of another type")
