"""Formats: one log record as text for people, or as JSON for machines.

Owns      the two formatters.
Promises  one record cannot pass for two: control characters are escaped and continuation lines indented,
          whatever a peer has put into an exception's message.
Refuses   colours, and fields that depend on the locale.
"""

import json
import logging
import re
import time
from typing import Any

#: everything below a blank except the tab and the newline, DEL, and the C1 controls that terminals obey
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_INDENT = "\n    "


class TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00.123Z INFO moorage: the message`."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{_moment(record, ' ')} {record.levelname} {record.name}: {record.getMessage()}"
        if (trace := _trace(self, record)) is not None:
            text += f"\n{trace}"
        return _CONTROL.sub(_escape, text).replace("\n", _INDENT)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what the event holds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _moment(record, "T"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "moorage", {})
        if (trace := _trace(self, record)) is not None:
            line["traceback"] = trace
        return json.dumps(line, default=str)


FORMATTERS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    return formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else None


def _moment(record: logging.LogRecord, separator: str) -> str:
    moment = time.strftime(f"%Y-%m-%d{separator}%H:%M:%S", time.gmtime(record.created))
    return f"{moment}.{int(record.msecs):03d}Z"


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"
