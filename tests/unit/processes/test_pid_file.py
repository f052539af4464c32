"""PID files: whose they are, and who may take them."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.errors import PidFileError
from moorage.processes.pid_file import PidFile

US = f"{os.getpid()}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.pid"


@pytest.fixture
def other() -> Iterator[int]:
    """A process that lives."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def dead() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


def test_file_holds_our_number_for_all_to_read_until_it_is_removed(path: Path) -> None:
    file = PidFile(str(path))
    before = os.umask(0o077)
    try:
        file.write()
    finally:
        os.umask(before)
    assert path.read_text() == US
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    file.write()
    assert [entry.name for entry in path.parent.iterdir()] == ["server.pid"]
    file.remove()
    file.remove()
    assert list(path.parent.iterdir()) == []


def test_file_of_a_live_process_is_one_sentence_that_names_it(path: Path, other: int) -> None:
    path.write_text(f"{other}\n")
    with pytest.raises(PidFileError, match=rf"server\.pid names \w+ \(pid {other}\), which is running") as caught:
        PidFile(str(path)).write()
    assert "\n" not in str(caught.value)
    assert path.read_text() == f"{other}\n"


def test_file_of_the_process_that_hands_over_is_taken(path: Path, other: int) -> None:
    path.write_text(f"{other}\n")
    PidFile(str(path)).write(replaces=other)
    assert path.read_text() == US


@pytest.mark.parametrize("text", ["{dead}\n", "{dead}", "", "\n", "99999999999999999999"])
def test_stale_file_is_replaced(path: Path, dead: int, text: str) -> None:
    path.write_text(text.format(dead=dead))
    PidFile(str(path)).write()
    assert path.read_text() == US


@pytest.mark.parametrize("text", ["root:x:0:0", "0", "-1", "1 2", "1" * 100, "\u0663"])
def test_file_that_holds_no_number_is_left_alone(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(PidFileError, match="holds no process number"):
        PidFile(str(path)).write()
    assert path.read_text() == text


@pytest.mark.parametrize("what", ["directory", "fifo", "device", "no directory", "a file for a directory"])
def test_path_that_cannot_be_one_is_one_sentence_and_stays(path: Path, what: str) -> None:
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to(os.devnull)
    elif what == "no directory":
        path = path / "none" / "x"
    else:
        path.write_text("1")
        path = path / "x"
    with pytest.raises(PidFileError, match="choose"):
        PidFile(str(path)).write()
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_link_to_the_file_stays_a_link(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    PidFile(str(link)).write()
    assert link.is_symlink()
    assert path.read_text() == US


def test_file_that_names_another_by_now_is_not_removed(path: Path, other: int) -> None:
    file = PidFile(str(path))
    file.write()
    path.write_text(f"{other}\n")
    file.remove()
    assert path.exists()


def test_file_is_removed_only_by_the_process_that_wrote_it(path: Path) -> None:
    file = PidFile(str(path))
    file.write()
    pid = os.fork()
    if pid == 0:
        file.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert path.exists()


def test_file_that_was_disowned_is_left(path: Path) -> None:
    file = PidFile(str(path))
    file.write()
    file.disown()
    file.remove()
    assert path.exists()


def test_file_is_found_again_after_a_change_of_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    file = PidFile("server.pid")
    file.write()
    monkeypatch.chdir("/")
    file.remove()
    assert not path.exists()
