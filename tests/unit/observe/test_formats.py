"""Formats: one record is one entry, whatever is in it."""

import json
import logging
import sys

from moorage.observe.formats import JsonFormatter, TextFormatter


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    line = logging.LogRecord("moorage", logging.WARNING, __file__, 1, message, args, exc_info)
    line.created, line.msecs = 1_700_000_000.25, 250.0
    return line


def test_text_begins_with_time_level_and_logger() -> None:
    assert TextFormatter().format(record("busy: %d", 3)) == "2023-11-14 22:13:20.250Z WARNING moorage: busy: 3"


def test_text_escapes_control_characters_and_indents_lines() -> None:
    forged = TextFormatter().format(record("bad %s", "\x1b[31m\r\n2023-11-14 22:13:20.250Z ERROR forged\u2028x"))
    first, second = forged.split("\n")
    assert first.endswith(r"bad \x1b[31m\x0d")
    assert second == r"    2023-11-14 22:13:20.250Z ERROR forged\x2028x"


def test_text_shows_the_traceback() -> None:
    try:
        raise ValueError("line one\nline two")
    except ValueError as error:
        text = TextFormatter().format(record("failed", error=error))
    lines = text.split("\n")
    assert "    Traceback (most recent call last):" in lines
    assert "    line two" in lines
    assert all(line.startswith("    ") for line in lines[1:])


def test_json_is_one_object_a_line_with_the_fields_of_the_event() -> None:
    line = record("x\ny")
    line.moorage = {"event": "ServerStopped", "address": object, "raw": "\udc80"}
    try:
        raise ValueError
    except ValueError:
        line.exc_info = sys.exc_info()
    text = JsonFormatter().format(line)
    assert "\n" not in text
    data = json.loads(text)
    assert data["time"] == "2023-11-14T22:13:20.250Z"
    assert (data["level"], data["logger"], data["message"]) == ("warning", "moorage", "x\ny")
    assert data["event"] == "ServerStopped"
    assert data["traceback"].startswith("Traceback")
