"""The place of the control socket: nobody else's folder, and the same for both ends."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from moorage.errors import OperatorError
from moorage.observe.control_path import check_folder, control_paths, prepare_control_path

#: what lstat finds, with another owner
FOREIGN = 4711


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def own(temporary: Path) -> Path:
    return temporary / f"moorage-{os.geteuid()}"


def test_runtime_directory_is_the_first_choice_and_is_left_as_it_is(tmp_path: Path, temporary: Path) -> None:
    environ = {"RUNTIME_DIRECTORY": f"{tmp_path}/run:/other", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert prepare_control_path("x", environ) == tmp_path / "run" / "x.sock"
    assert not (tmp_path / "run").exists()
    assert len(control_paths("x", environ)) == 3


def test_folder_in_xdg_runtime_dir_is_made_for_this_user_alone(tmp_path: Path, temporary: Path) -> None:
    path = prepare_control_path("x", {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert path == tmp_path / "moorage" / "x.sock"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_without_either_it_is_a_folder_of_this_user_in_the_temporary_one(own: Path) -> None:
    for _ in range(2):
        assert prepare_control_path("x", {}) == own / "x.sock"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


@pytest.mark.parametrize("value", ["", "relative/path", "/nowhere/at/all"])
def test_xdg_runtime_dir_that_is_no_place_is_passed_over(own: Path, value: str) -> None:
    assert prepare_control_path("x", {"XDG_RUNTIME_DIR": value, "RUNTIME_DIRECTORY": ""}) == own / "x.sock"


def test_xdg_runtime_dir_of_another_user_is_passed_over(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: FOREIGN)
    assert control_paths("x", {"XDG_RUNTIME_DIR": str(tmp_path)}) == [own.parent / f"moorage-{FOREIGN}" / "x.sock"]


@pytest.mark.parametrize(
    ("name", "file"), [("a/b", "a%2Fb.sock"), ("..", "...sock"), ("my server", "my server.sock"), ("ü", "%C3%BC.sock")]
)
def test_name_of_a_server_cannot_leave_the_folder(own: Path, name: str, file: str) -> None:
    assert prepare_control_path(name, {}) == own / file


def test_link_in_the_place_of_the_folder_is_refused(own: Path, tmp_path: Path) -> None:
    (tmp_path / "trap").mkdir(mode=0o700)
    own.symlink_to(tmp_path / "trap")
    with pytest.raises(OperatorError, match="is no directory"):
        prepare_control_path("x", {})


def test_file_in_the_place_of_the_folder_is_refused(own: Path) -> None:
    own.write_text("")
    with pytest.raises(OperatorError, match="is no directory"):
        prepare_control_path("x", {})


def test_folder_that_is_open_to_others_is_refused(own: Path) -> None:
    own.mkdir()
    own.chmod(0o750)
    with pytest.raises(OperatorError, match=r"is open to others \(mode 0750\).*set `control` to a path of your own"):
        prepare_control_path("x", {})


def test_folder_of_another_user_is_refused(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own.mkdir(mode=0o700)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: FOREIGN)
    with pytest.raises(OperatorError, match=f"belongs to the user {mine}"):
        check_folder(own)


def test_folder_that_cannot_be_made_is_a_sentence(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "absent"))
    with pytest.raises(OperatorError, match="cannot be made"):
        prepare_control_path("x", {})


def test_host_without_a_temporary_folder_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def find_none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", find_none)
    with pytest.raises(OperatorError, match="no folder for a control socket"):
        control_paths("x", {})
    assert control_paths("x", {"XDG_RUNTIME_DIR": str(tmp_path)}) == [tmp_path / "moorage" / "x.sock"]
