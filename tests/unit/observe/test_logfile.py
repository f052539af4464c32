"""Log file: where lines go, and what is left behind."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorage.config import ServerSettings
from moorage.errors import SettingError
from moorage.observe.logfile import LineHandler, setup_logging

OURS, ROOT = logging.getLogger("moorage"), logging.getLogger()


@contextmanager
def bare_root() -> Iterator[None]:
    """The root logger as a program has it that configures nothing; around the call, since pytest puts handlers on it."""
    handlers, level = ROOT.handlers[:], ROOT.level
    ROOT.handlers.clear()
    yield
    ROOT.handlers[:] = handlers
    ROOT.setLevel(level)


@bare_root()
def test_lines_of_ours_and_of_the_program_go_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs = setup_logging(ServerSettings(log_file=str(path)))
    OURS.info("ours")
    OURS.debug("too fine")
    logging.getLogger("shop").info("theirs")
    logs.close()
    lines = path.read_text().splitlines()
    assert [line.split("Z ")[1] for line in lines] == ["INFO moorage: ours", "INFO shop: theirs"]


@bare_root()
def test_json_format_is_json(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs = setup_logging(ServerSettings(log_file=str(path), log_format="json"))
    OURS.info("ours")
    logs.close()
    assert json.loads(path.read_text())["message"] == "ours"


@bare_root()
def test_standard_error_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    logs = setup_logging(ServerSettings(log_level="warning"))
    OURS.info("fine")
    OURS.warning("heard")
    logs.reopen()
    logs.close()
    assert capfd.readouterr().err.splitlines()[0].endswith("WARNING moorage: heard")


@bare_root()
def test_number_of_a_closed_standard_error_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    handler = LineHandler()
    assert os.path.samestat(os.fstat(handler._fd), os.stat(os.devnull))
    os.close(handler._fd)


@bare_root()
def test_close_leaves_everything_as_it_was(tmp_path: Path) -> None:
    before = (OURS.level, OURS.propagate, OURS.handlers[:], ROOT.level, ROOT.handlers[:])
    setup_logging(ServerSettings(log_file=str(tmp_path / "log"), log_level="debug")).close()
    assert (OURS.level, OURS.propagate, OURS.handlers[:], ROOT.level, ROOT.handlers[:]) == before


@bare_root()
def test_configuration_of_the_program_is_left_alone() -> None:
    theirs = logging.NullHandler()
    ROOT.addHandler(theirs)
    logs = setup_logging(ServerSettings(log_level="debug"))
    assert ROOT.handlers == [theirs]
    assert OURS.handlers == []
    assert OURS.isEnabledFor(logging.DEBUG)
    logs.close()


@bare_root()
def test_named_file_is_written_besides_the_configuration_of_the_program(tmp_path: Path) -> None:
    theirs = logging.NullHandler()
    ROOT.addHandler(theirs)
    path = tmp_path / "log"
    logs = setup_logging(ServerSettings(log_file=str(path)))
    OURS.info("ours")
    logging.getLogger("shop").error("theirs")
    logs.close()
    assert ROOT.handlers == [theirs]
    assert "ours" in path.read_text()
    assert "theirs" not in path.read_text()


@bare_root()
def test_file_that_cannot_be_opened_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be opened: No such file or directory"):
        setup_logging(ServerSettings(log_file=str(tmp_path / "absent" / "log")))
    assert OURS.handlers == []


@bare_root()
def test_reopen_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    logs = setup_logging(ServerSettings(log_file=str(path)))
    OURS.info("one")
    path.rename(moved)
    OURS.info("two")
    logs.reopen()
    OURS.info("three")
    logs.close()
    assert [line.split(": ")[1] for line in moved.read_text().splitlines()] == ["one", "two"]
    assert [line.split(": ")[1] for line in path.read_text().splitlines()] == ["log file opened anew", "three"]


@bare_root()
def test_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    logs = setup_logging(ServerSettings(log_file=str(folder / "log")))
    folder.rename(tmp_path / "moved")
    logs.reopen()
    logs.close()
    assert "the old one stays in use" in (tmp_path / "moved" / "log").read_text()


@bare_root()
def test_full_disk_stops_nobody_and_the_lost_lines_are_counted() -> None:
    handler = LineHandler("/dev/full")
    record = logging.LogRecord("moorage", logging.INFO, "", 1, "x", (), None)
    handler.emit(record)
    handler.emit(record)
    read, write = os.pipe()
    os.dup2(write, handler._fd)
    handler.emit(record)
    assert os.read(read, 1000) == b"2 log lines before this one could not be written\nx\n"
    handler.close()
    os.close(read)
    os.close(write)


@bare_root()
def test_line_that_cannot_be_formatted_is_counted_as_lost(tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = LineHandler(str(path))
    handler.emit(logging.LogRecord("moorage", logging.INFO, "", 1, "%d", ("x",), None))
    handler.emit(logging.LogRecord("moorage", logging.INFO, "", 1, "\udc80", (), None))
    handler.close()
    assert path.read_bytes() == b"1 log lines before this one could not be written\n\\udc80\n"
