"""Control: what a running server is asked, and how its answer is printed."""

from pathlib import Path

import pytest

from moorage.errors import OperatorError
from moorage.processes import asking
from support.commands import Said


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        ("status", "name     echo\nworkers  2\n"),
        ("status --json", '{\n  "name": "echo",\n  "workers": 2\n}\n'),
        ("reload", "reload: the server was told; its log says how it goes\n"),
        ("reload --json", "null\n"),
        ("more", "3 workers\n"),
    ],
)
def test_control_prints_what_the_server_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: str, out: str
) -> None:
    answers = {"status": {"name": "echo", "workers": 2}, "reload": None, "more": "3 workers"}
    asked: list[tuple[str, str, str | None]] = []

    def ask(command: str, name: str, control: str | None) -> object:
        asked.append((command, name, control))
        return answers[command]

    monkeypatch.setattr(asking, "ask", ask)
    monkeypatch.setenv("MOORAGE_NAME", "echo")
    said = Said(capsys, "control", *arguments.split(), "--control", "/run/c.sock")
    assert (said.status, said.out, said.err) == (0, out, "")
    assert asked == [(arguments.partition(" ")[0], "echo", "/run/c.sock")]


def test_control_reaches_the_server_though_the_settings_file_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moorage.toml").write_text("line_limt = 5\n")
    monkeypatch.setattr(asking, "ask", lambda command, name, control: f"{command} {name} {control}")
    said = Said(capsys, "control", "stop", "--control", "/run/c.sock")
    assert (said.status, said.out) == (0, "stop moorage /run/c.sock\n")
    assert "line_limt" in said.err
    assert "passed over" in said.err
    assert Said(capsys, "control", "stop", "--config", "moorage.toml").status == 2


def test_control_refused_by_the_server_is_its_sentence_and_status_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> None:
        raise OperatorError("one worker is the least")

    monkeypatch.setattr(asking, "ask", ask)
    said = Said(capsys, "control", "fewer")
    assert (said.status, said.out, said.err) == (2, "", "moorage: one worker is the least\n")
