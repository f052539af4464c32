"""Doctor: the command, its two forms, and its exit status."""

import json
from pathlib import Path

import pytest

from moorage import doctor
from moorage.doctor import Machine
from support.commands import Said


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has room for everything, and serves as nobody in particular."""
    account = doctor.machine.Account("www", 33, frozenset({33}))
    monkeypatch.setattr(doctor, "read_machine", lambda user, group: Machine(cpus=8, account=account))


@pytest.mark.usefixtures("machine")
def test_nothing_found_is_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "doctor", "--control", "off")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("note     control = off (the flag --control)\n         `moorage control` cannot ask")
    assert said.out.endswith("\n1 note\n")


@pytest.mark.usefixtures("machine")
def test_warning_is_status_1_and_names_its_place_and_the_way_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "moorage.toml").write_text("idle_timeout = 'off'\n")
    said = Said(capsys, "doctor")
    assert said.status == 1
    assert said.out.splitlines()[:3] == [
        f"warning  idle_timeout = off (in {tmp_path}/moorage.toml)",
        "         a client that goes silent keeps its place for ever, and its thread too",
        "         fix: idle_timeout = 60s, or longer: any number is better than none",
    ]


@pytest.mark.usefixtures("machine")
def test_findings_as_json_are_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "doctor", "--idle-timeout", "off", "--json")
    told = json.loads(said.out)
    assert (said.status, told["status"]) == (1, 1)
    assert told["findings"][0] == {
        "level": "warning",
        "what": "a client that goes silent keeps its place for ever, and its thread too",
        "setting": "idle_timeout",
        "value": "off",
        "place": "the flag --idle-timeout",
        "fix": "idle_timeout = 60s, or longer: any number is better than none",
    }


def test_settings_that_cannot_be_read_are_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "doctor", "--max-connections", "0")
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("moorage: max_connections = '0' (the flag --max-connections) will not do")


def test_machine_of_this_test_is_examined_without_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "doctor", "--bind", "127.0.0.1:0", "--json")
    assert said.status in (0, 1)
    assert {"level", "what", "setting", "value", "place", "fix"} == set(json.loads(said.out)["findings"][0])
