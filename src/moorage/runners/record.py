"""Record: what a forked child tells its parent of the connection that it served.

Owns      the form of the closing record, and the exception that stands for one that was raised in a child.
Promises  a record fits one message of a socket pair, however long the traceback; nothing in it is executed:
          a child that its client has taken over can lie about its own connection, and no more.
Refuses   pickles, for that reason.
"""

import json
from dataclasses import asdict, dataclass

from ..events import Cause, Phase

__all__ = ["ChildError", "ClosingRecord", "Failure", "RECORD_BYTES"]

#: Below the default send buffer (208 KiB), so that one non-blocking send takes it whole.
RECORD_BYTES = 128 * 1024

#: A traceback of deep recursion is long; its ends say most.
TRACEBACK_CHARACTERS = 8 * 1024


class ChildError(Exception):
    """Stands in the parent for an exception that a handler raised in a child; its cause shows the traceback."""


class _ChildTraceback(Exception):
    """Prints as the traceback that was formatted in the child (as `concurrent.futures` does it)."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


@dataclass(frozen=True)
class Failure:
    """An exception of the handler's own: its last line and its traceback."""

    summary: str
    traceback: str

    def as_exception(self) -> ChildError:
        """An exception to be logged in the parent."""
        error = ChildError(self.summary)
        error.__cause__ = _ChildTraceback(self.traceback)
        return error


@dataclass(frozen=True)
class ClosingRecord:
    """How a connection ended in its child; `handled` is the handler's time in seconds."""

    cause: Cause
    phase: Phase
    bytes_received: int
    bytes_sent: int
    handled: float
    failure: Failure | None = None

    def pack(self) -> bytes:
        """The record as one message."""
        fields = asdict(self)
        if self.failure is not None:
            fields["failure"] = {key: _shorten(text) for key, text in fields["failure"].items()}
        return json.dumps(fields, ensure_ascii=False).encode(errors="backslashreplace")

    @classmethod
    def unpack(cls, message: bytes) -> "ClosingRecord | None":
        """The record in a message; None for anything else."""
        try:
            fields = json.loads(message)
            failure = fields["failure"]
            return cls(
                cause=Cause(fields["cause"]),
                phase=Phase(fields["phase"]),
                bytes_received=int(fields["bytes_received"]),
                bytes_sent=int(fields["bytes_sent"]),
                handled=float(fields["handled"]),
                failure=failure and Failure(str(failure["summary"]), str(failure["traceback"])),
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


def _shorten(text: str) -> str:
    half = TRACEBACK_CHARACTERS // 2
    return text if len(text) <= TRACEBACK_CHARACTERS else f"{text[:half]}\n[…]\n{text[-half:]}"
