"""The reference pages are what the code says, and miss nothing; nor do the how-to pages that list what there is."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from moorage.cli import commands
from moorage.config import ListenerSettings, ProgramSettings, ServerSettings
from moorage.config.values import names
from moorage.events import EVENT_TYPES, Cause
from moorage.observe.metrics import exposition
from moorage.processes import supervisor, worker_handle
from moorage.processes.reload import COUNTED, RESTART_ONLY
from moorage.processes.scoreboard import BOUNDS, FIELDS, Kind, Scoreboard
from moorage.processes.signals import SIGNALS
from support.fake_processes import Stage, Story

DOCS = Path(__file__).parent.parent / "docs"
REFERENCE = DOCS / "reference"
HOWTO = DOCS / "howto"
#: what `moorage control status` never says: then there is no socket yet, or no more, and no worker is left to be told of
UNTOLD = {supervisor.State.NEW, supervisor.State.OVER, worker_handle.State.GONE}


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


def words(page: str, title: str) -> list[set[str]]:
    """What stands in backquotes in the first cells of each table of this part of a how-to page."""
    text = re.split(r"^#+ ", (HOWTO / page).read_text(), flags=re.MULTILINE)
    (part,) = (part for part in text if part.startswith(f"{title}\n"))
    tables = re.findall(r"(?:^\|.*\n)+", part, flags=re.MULTILINE)
    return [
        {word for line in table.splitlines() for word in re.findall("`(.*?)`", line.split("|")[1])} for table in tables
    ]


def status() -> dict[str, Any]:
    """What a server with a worker answers to `moorage control status`."""
    told: dict[str, Any] = {}

    def story(stage: Stage) -> Story:
        stage.boot()
        yield 0
        told.update(stage.supervisor.status())
        stage.supervisor.end("QUIT")
        yield 0
        for worker in stage.system.workers:
            worker.exit()
        yield 0

    with Stage() as stage:
        assert stage.play(story) == 0
    return told


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


def test_every_field_has_its_metric() -> None:
    ending = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: ""}
    told = [field for field in FIELDS if field.is_summable]
    names = {f"moorage_{field.name}{ending[field.kind]}" for field in told}
    names |= {f"moorage_worker_{field.name}" for field in told if field.kind is Kind.GAUGE}
    alone = {"moorage_info", "moorage_workers", "moorage_certificate_expiry"}  # of the last the least is told
    assert rows("metrics.md") == names | alone


def test_every_metric_that_is_told_has_its_line() -> None:
    board = Scoreboard(rows=1)
    board.allot().set("certificate_expiry", 1)  # which is not told without a certificate
    lines = exposition(board, FIELDS, BOUNDS, {}).decode().splitlines()
    board.close()
    assert rows("metrics.md") == {line.split()[2] for line in lines if line.startswith("# TYPE ")}


def test_every_word_of_the_status_is_explained() -> None:
    of_server, of_workers, of_totals = words("watch-a-running-server.md", "Ask for the status")
    told = status()
    assert of_server == set(told)
    assert of_workers == set(told["workers"][0])
    assert of_totals == set(told["totals"])


def test_every_state_of_the_status_is_explained() -> None:
    of_server, of_workers = words("watch-a-running-server.md", "What each state means")
    assert of_server == {state.value for state in set(supervisor.State) - UNTOLD}
    assert of_workers == {state.value for state in set(worker_handle.State) - UNTOLD}


def test_every_setting_that_only_a_restart_changes_is_named() -> None:
    (names,) = words("deploy-without-losing-a-connection.md", "What a reload cannot change")
    assert names == {*RESTART_ONLY, *COUNTED, "v6only"}  # `v6only` is named by `change_listeners`


def test_every_command_has_its_section() -> None:
    text = (REFERENCE / "commands.md").read_text()
    assert [name for name in commands().commands if f"## moorage {name}\n" not in text] == []
