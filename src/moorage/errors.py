"""Errors: every exception of ours, sorted by whose fault it is.

Owns      the exception classes; the command line and the quiet-error rule decide by class alone.
Promises  an `OperatorError` is one sentence naming what, where and how to fix it;
          a `PeerError` is never our bug; `ConnectionEnded` carries the cause of the end.
Refuses   to be raised for control flow inside Moorage.

    Exception
     +-- MoorageError
     |    +-- OperatorError            the operator's mistake: status 2 from the command line
     |    |    +-- SettingError        a setting has an unknown name or a bad value
     |    |    +-- BindError           an address cannot be bound
     |    |    +-- InheritError        what was passed on to this process is not what was promised
     |    |    +-- PidFileError        the PID file cannot be written, or names a live process
     |    |    +-- PrivilegeError      this process cannot become the user of the settings
     |    |    +-- TargetError         the handler cannot be imported, or is no handler
     |    +-- PeerError                what the peer sent is at fault
     |    |    +-- TooLarge            more than line_limit or message_limit
     |    |    +-- Incomplete          the stream ended inside a block
     |    +-- InternalError            a bug of ours
     +-- TimeoutError
          +-- ConnectionEnded          the server ended this connection
"""

__all__ = [
    "BindError", "ConnectionEnded", "HandlerStopped", "Incomplete", "InheritError", "InternalError",
    "MoorageError", "OperatorError", "PeerError", "PidFileError", "PrivilegeError", "SettingError",
    "TargetError", "TooLarge",
]  # fmt: skip


class MoorageError(Exception):
    """Base of what Moorage raises, save for `ConnectionEnded` and `HandlerStopped`."""


class OperatorError(MoorageError):
    """The operator's mistake, said in one sentence: what, where, how to fix."""


class SettingError(OperatorError, ValueError):
    """A setting has an unknown name, a bad value, or contradicts another."""


class BindError(OperatorError, OSError):
    """An address cannot be bound: in use, not permitted, not an address of this host."""


class InheritError(OperatorError):
    """What was passed on to this process (`LISTEN_FDS`) is not what was promised."""


class PidFileError(OperatorError):
    """The PID file cannot be written, or names another process that lives."""


class PrivilegeError(OperatorError):
    """This process cannot become the user or the group of the settings, or not for good."""


class TargetError(OperatorError):
    """The handler named by the operator cannot be imported, or is no handler."""


class PeerError(MoorageError):
    """What the peer sent is at fault; quiet in the log when the connection raised it."""


class TooLarge(PeerError, ValueError):
    """The peer sent more than `line_limit` or `message_limit` bytes without an end."""


class Incomplete(PeerError, EOFError):
    """The stream ended inside a block; `partial` holds the bytes that did arrive."""

    def __init__(self, partial: bytes, wanted: str) -> None:
        super().__init__(f"the stream ended after {len(partial)} bytes of {wanted}")
        self.partial = partial
        self._wanted = wanted

    def __reduce__(self) -> tuple[type, tuple[bytes, str]]:
        return type(self), (self.partial, self._wanted)


class InternalError(MoorageError):
    """A bug of ours, such as an illegal change of state; please report it."""


class ConnectionEnded(TimeoutError):
    """The server ended this connection; `cause` says why (see the table of causes).

    Raised by every later read and write, save that after a read-side deadline writes still work
    for one second.  A `TimeoutError`, because that is what handlers written for `socketserver` catch.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(f"the server ended this connection: {cause}")
        self.cause = cause

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.cause,)


class HandlerStopped(BaseException):
    """Raised in a handler that has to leave: instead of `ConnectionEnded`, when it has swallowed that too often.

    A handler with `except TimeoutError: continue` around its read would otherwise spin for ever on
    a connection that no longer exists.  Not an `Exception`, so that such a loop lets it through.
    Under `fibers` also where it waits for something else (a lock, a sleep) when its server is over.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(f"the handler was stopped, since its connection has ended: {cause}")
        self.cause = cause

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.cause,)
