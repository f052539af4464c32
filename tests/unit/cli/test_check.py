"""Check: every setting in force, its value and its place."""

import resource
from pathlib import Path

import pytest

from moorage.cli import report
from moorage.config import ListenerSettings, ProgramSettings, ServerSettings
from moorage.config.resolve import read
from moorage.config.settings import SPARE_FILES
from moorage.config.sources import from_flags
from moorage.config.values import names
from support.commands import Said


def test_check_tells_how_many_connections_fibers_serve_by_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    lines = Said(capsys, "check", "--runner", "fibers").out.splitlines()
    assert ["max_connections", str(4096 - SPARE_FILES), "default"] in [line.split() for line in lines]


def test_check_prints_every_value_and_its_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moorage.toml").write_text("max_connections = 5\n[[listener]]\nbind = 'unix:/x'\nbacklog = 7")
    monkeypatch.setenv("MOORAGE_LIFETIME", "2h")
    said = Said(capsys, "check", "echo", "--no-nodelay", "--line-limit", "1MiB")
    assert said.status == 0
    place = tmp_path / "moorage.toml"
    lines = [line.split(maxsplit=2) for line in said.out.splitlines() if line]
    assert lines[0] == ["settings", "file:", str(place)]
    assert ["max_connections", "5", f"in {place}"] in lines
    assert ["lifetime", "7200s", "the variable MOORAGE_LIFETIME"] in lines
    assert ["nodelay", "off", "the flag --nodelay"] in lines
    assert ["line_limit", "1MiB", "the flag --line-limit"] in lines
    assert ["backlog", "7", f"in [[listener]] 1 of {place}"] in lines
    assert ["threads", "off", "default"] in lines


def test_check_takes_lists_from_flags_variables_and_addresses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORAGE_DENY", "10.1.0.0/16 10.2.0.0/16")
    said = Said(
        capsys, "check", "--allow", "10.0.0.0/8", "--allow", "::1 ::2", "--accept-rate", "30/m",
        "--observe-only", "rules", "--bind", "127.0.0.1:0,deny=none", "--bind", "127.0.0.2:0",
    )  # fmt: skip
    assert (said.status, said.err) == (0, "")
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines.count("allow 10.0.0.0/8 ::1 ::2 the flag --allow") == 2
    assert "deny none the flag --bind" in lines
    assert "deny 10.1.0.0/16 10.2.0.0/16 the variable MOORAGE_DENY" in lines
    assert "accept_rate 0.5 the flag --accept-rate" in lines
    assert "observe_only rules the flag --observe-only" in lines


def test_report_has_a_line_for_every_setting() -> None:
    lines = report(read(from_flags({}, ["127.0.0.1:1", "127.0.0.1:2"]), None, {}))
    named = [line.split()[0] for line in lines[2:] if line]
    assert named == [*names(ServerSettings), *2 * names(ListenerSettings), *names(ProgramSettings)]
