"""The reference pages are what the code says, and miss nothing."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from moorage.cli import commands
from moorage.config import ListenerSettings, ProgramSettings, ServerSettings
from moorage.config.values import names
from moorage.events import EVENT_TYPES, Cause
from moorage.processes.signals import SIGNALS

DOCS = Path(__file__).parent.parent / "docs"
REFERENCE = DOCS / "reference"


def generator() -> ModuleType:
    """docs/generate.py, which is no package."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(page: str) -> set[str]:
    """The first cells of the tables of a page."""
    lines = (REFERENCE / page).read_text().splitlines()
    return {line.split("|")[1].strip().strip("`") for line in lines if line.startswith("| `")}


def test_pages_are_up_to_date() -> None:
    assert generator().stale() == [], "run `make format`"


def test_generator_says_which_page_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate = generator()
    monkeypatch.setattr(generate, "PAGES", tmp_path / "reference")
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "reference" / "events.md").write_text("old")
    (tmp_path / "reference" / "gone.md").write_text("nobody writes this")
    assert generate.main(["--check"]) == 1
    assert "events.md, gone.md" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_every_setting_has_its_line() -> None:
    settings = {name for kind in (ServerSettings, ListenerSettings, ProgramSettings) for name in names(kind)}
    assert rows("settings.md") == settings


def test_every_event_has_its_line() -> None:
    assert rows("events.md") == {event.__name__ for event in EVENT_TYPES}


def test_every_cause_has_its_line() -> None:
    assert rows("causes.md") == set(Cause)


def test_every_signal_has_its_line() -> None:
    assert rows("signals.md") == {number.name for number in SIGNALS}


def test_every_command_has_its_section() -> None:
    text = (REFERENCE / "commands.md").read_text()
    assert [name for name in commands().commands if f"## moorage {name}\n" not in text] == []
