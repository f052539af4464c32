"""Patients: settings and machines for the checks of the doctor."""

import os
from dataclasses import replace
from typing import Any

from moorage.config import Configuration
from moorage.config.resolve import combine, from_arguments
from moorage.doctor import Finding, Level, Machine
from moorage.doctor.machine import Account

WWW = Account("www", 33, frozenset({33, 44}))
#: with room for everything
LARGE = Machine(cpus=64, account=WWW, starter=33, may_bind_low=True)


def settings(bind: Any = None, **given: Any) -> Configuration:
    """What these arguments say."""
    return combine([from_arguments(bind, given)])


def machine(**facts: Any) -> Machine:
    """A large machine, but for these."""
    return replace(LARGE, **facts)


def told(findings: Any) -> list[tuple[str, str]]:
    """Levels and settings."""
    return [(finding.level.name.lower(), finding.setting) for finding in findings]


def only(findings: Any) -> Finding:
    """The one that there is; it has all its parts."""
    [finding] = findings
    assert isinstance(finding, Finding)
    assert isinstance(finding.level, Level)
    assert all((finding.what, finding.setting, finding.value, finding.place, finding.fix))
    assert "\n" not in finding.what + finding.fix
    return finding


class Files:
    """Stands for `os.stat`: the modes and owners that are said, and root's for the rest."""

    def __init__(self) -> None:
        self.said: dict[str, tuple[int, int, int]] = {}

    def put(self, path: object, mode: int, uid: int = 0, gid: int = 0) -> None:
        """What is found at this path."""
        self.said[os.path.realpath(str(path))] = (mode, uid, gid)

    def __call__(self, path: str) -> os.stat_result:
        found = os.stat(path)
        mode, uid, gid = self.said.get(path, (0o755 if os.path.isdir(path) else 0o644, 0, 0))
        kind = found.st_mode & 0o170000
        return os.stat_result((kind | mode, found.st_ino, found.st_dev, 1, uid, gid, 0, 0, 0, 0))
