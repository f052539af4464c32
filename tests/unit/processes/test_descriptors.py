"""Room for as many connections as the settings promise."""

import logging
import os
import resource

import pytest

from moorage.config import ServerSettings
from moorage.config.settings import SPARE_FILES
from moorage.processes.descriptors import fill_standard_descriptors, raise_descriptor_limit


def test_standard_descriptor_that_was_closed_is_the_null_device() -> None:
    pid = os.fork()
    if pid == 0:
        os.closerange(0, 3)
        fill_standard_descriptors()
        null = os.stat(os.devnull).st_rdev
        is_free = os.open(os.devnull, os.O_RDONLY) > 2
        os._exit(0 if is_free and all(os.fstat(fd).st_rdev == null for fd in range(3)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class Limits:
    """The limits of a pretended process."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def getrlimit(self, _which: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, _which: int, limits: tuple[int, int]) -> None:
        self.now = limits


def limits(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> Limits:
    pretended = Limits(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", pretended.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", pretended.setrlimit)
    return pretended


def test_soft_limit_is_raised_to_what_the_settings_need(monkeypatch: pytest.MonkeyPatch) -> None:
    process = limits(monkeypatch, 1024, 4096)
    raise_descriptor_limit(ServerSettings(max_connections=1024))
    assert process.now == (1024 + SPARE_FILES, 4096)


def test_limit_that_is_enough_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    process = limits(monkeypatch, 4000, 4096)
    raise_descriptor_limit(ServerSettings(max_connections=1024))
    assert process.now == (4000, 4096)


def test_forks_need_more_for_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    process = limits(monkeypatch, 1024, resource.RLIM_INFINITY)
    raise_descriptor_limit(ServerSettings(max_connections=1024, runner="forks"))
    assert process.now == (2048 + SPARE_FILES, resource.RLIM_INFINITY)


def test_hard_limit_that_is_too_low_is_one_warning_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = limits(monkeypatch, 100, 512)
    with caplog.at_level(logging.WARNING, "moorage"):
        raise_descriptor_limit(ServerSettings(max_connections=1024))
    assert process.now == (512, 512)
    assert "raise the hard limit" in caplog.text
    assert len(caplog.records) == 1
