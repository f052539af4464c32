"""Signals: what each signal means, and catching them for as long as a server runs.

Owns      the table of signals, and the handlers that were there before.
Promises  a second signal to stop ends now; what was there before is put back, whatever happens.
Refuses   to act: it tells its owner which action was asked for.  A handler runs in the main thread between
          two instructions of it, so it must not wait for anything.
"""

import enum
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

from ..errors import OperatorError


class Action(enum.Enum):
    """What a signal asks for."""

    DRAIN = "drain"
    END = "end now"
    REOPEN = "reopen the log file"
    RELOAD = "reload"
    UPGRADE = "upgrade"
    MORE = "one worker more"
    FEWER = "one worker less"


class Row(NamedTuple):
    """One line of the table of signals."""

    action: Action
    meaning: str


#: Every signal that is caught; the reference page is made from it.
SIGNALS: dict[signal.Signals, Row] = {
    signal.SIGTERM: Row(Action.DRAIN, "drain and stop with status 0; a second one ends now"),
    signal.SIGINT: Row(Action.DRAIN, "as TERM (Ctrl-C)"),
    signal.SIGQUIT: Row(Action.END, "end now: open connections are cut"),
    signal.SIGUSR1: Row(Action.REOPEN, "open the log files anew, after they were moved away"),
    signal.SIGHUP: Row(Action.RELOAD, "reload: new workers with new settings and code, the old ones drain"),
    signal.SIGUSR2: Row(Action.UPGRADE, "upgrade: a new program on the same sockets; this one drains and leaves"),
    signal.SIGTTIN: Row(Action.MORE, "one worker more"),
    signal.SIGTTOU: Row(Action.FEWER, "one worker less, as long as one is left"),
}


class CaughtSignals:
    """Catches the signals of the table while entered; calls `act(action, signal)` in the main thread."""

    def __init__(self, act: Callable[[Action, signal.Signals], None]) -> None:
        self._act = act
        self._before: dict[signal.Signals, Any] = {}
        self._asked_to_stop = False

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            raise OperatorError(
                "serve() must be called in the main thread, because signals arrive there: "
                "call it there, or use Server, which leaves signals alone"
            )
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            # None: set by something other than Python, which cannot be put back
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        caught = signal.Signals(number)
        action = SIGNALS[caught].action
        if action is Action.DRAIN:
            action = Action.END if self._asked_to_stop else Action.DRAIN
            self._asked_to_stop = True
        self._act(action, caught)
