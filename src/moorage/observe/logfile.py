"""Log file: where log lines go, for `serve()` and the command line.

Owns      the handler that writes lines, and putting it on and taking it off.
Promises  a line is one `write()`, so that lines of several processes and of signal handlers stay whole;
          reopening keeps the old file until the new one is open; a full disk never stops the server.
Refuses   to touch a logging configuration that the program has made itself, save for the level of our
          logger, unless the operator names a `log_file`.
"""

import logging
import os
import sys

from ..config import ServerSettings
from ..errors import InternalError, SettingError
from .formats import FORMATTERS
from .logs import LOGGER

_STDERR = 2
#: the settings from which logging is set up
LOG_SETTINGS = ("log_level", "log_format", "log_file")
_MODE = 0o640  # the group of log readers may read


class LineHandler(logging.Handler):
    """Writes each record with one `write()` to a file or to standard error."""

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        self.path = path
        self._fd = _stderr() if path is None else _open(path)
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            if self._lost:
                line = b"%d log lines before this one could not be written\n" % self._lost + line
            while line:
                line = line[os.write(self._fd, line) :]
            self._lost = 0
        except Exception:
            self._lost += 1

    def reopen(self) -> None:
        """Open the file anew, after it was moved away."""
        if self.path is None:
            raise InternalError("standard error cannot be opened anew")
        fresh = _open(self.path)
        os.dup2(fresh, self._fd, inheritable=False)  # the number stays: a write under way is not disturbed
        os.close(fresh)

    def close(self) -> None:
        if self.path is not None and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        super().close()


class Logs:
    """Logging as `serve()` sets it up; `close()` leaves everything as it was."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._ours, root = logging.getLogger(LOGGER), logging.getLogger()
        self._restore = [(logger, logger.level, logger.propagate) for logger in (self._ours, root)]
        level = logging.getLevelNamesMapping()[settings.log_level.upper()]
        self._handler: LineHandler | None = None
        self._place = self._ours if root.handlers else root
        if settings.log_file is not None or not (root.handlers or self._ours.handlers):
            self._handler = LineHandler(settings.log_file)
            self._handler.setFormatter(FORMATTERS[settings.log_format]())
            self._place.addHandler(self._handler)
            self._place.setLevel(level)
            self._ours.propagate = self._place is root
        self._ours.setLevel(level)

    def reopen(self) -> None:
        """Open the log file anew; when that fails the old one stays in use, and the reason is its next line."""
        if self._handler is None or self._handler.path is None:
            return
        try:
            self._handler.reopen()
        except SettingError as error:
            self._ours.error("%s; the old one stays in use", error)
        else:
            self._ours.info("log file opened anew")

    def renew(self, settings: ServerSettings) -> "Logs":
        """Logging as new settings say; `SettingError` when it cannot be, and then it is as it was."""
        if all(getattr(self._settings, name) == getattr(settings, name) for name in LOG_SETTINGS):
            return self
        if settings.log_file is not None:  # found out while the old one still logs
            os.close(_open(settings.log_file))
        self.close()
        return Logs(settings)

    def close(self) -> None:
        """Take the handler off, and put levels back."""
        if self._handler is not None:
            self._place.removeHandler(self._handler)
            self._handler.close()
        for logger, level, propagate in self._restore:
            logger.setLevel(level)
            logger.propagate = propagate


def setup_logging(settings: ServerSettings) -> Logs:
    """Make the lines of our logger, and of the program's own, visible; `SettingError` when the file cannot be."""
    return Logs(settings)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
    except OSError as error:
        raise SettingError(f"log_file = {path!r} cannot be opened: {os.strerror(error.errno or 0)}") from None


def _stderr() -> int:
    try:
        return sys.stderr.fileno()
    except AttributeError:  # None, since it was closed at the start: the number 2 is, or will be, somebody else's
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    except (OSError, ValueError):  # replaced by something that is no file
        return _STDERR
