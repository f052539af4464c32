"""Freshness: whether files have changed since they were last looked at."""

import os
from pathlib import Path

import pytest

from moorage.freshness import Freshness
from support.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.txt"
    path.write_text("allow 10.0.0.0/8\n")
    return path


def freshness(clock: FakeClock, *paths: Path) -> Freshness:
    made = Freshness([str(path) for path in paths], clock=clock)
    clock.advance(1)
    return made


def test_files_that_stay_are_never_changed(clock: FakeClock, file: Path) -> None:
    files = freshness(clock, file)
    assert not files.changed()
    clock.advance(60)
    assert not files.changed()


def test_change_before_the_first_question_is_seen(clock: FakeClock, file: Path) -> None:
    files = freshness(clock, file)
    file.write_text("allow 192.168.0.0/16\n")
    assert files.changed()


def test_change_is_told_once(clock: FakeClock, file: Path) -> None:
    files = freshness(clock, file)
    file.write_text("")
    assert files.changed()
    clock.advance(1)
    assert not files.changed()


def test_question_too_soon_costs_no_look(clock: FakeClock, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = freshness(clock, file)
    looks: list[str] = []
    stat = os.stat

    def counted(path: str) -> os.stat_result:
        looks.append(path)
        return stat(path)

    monkeypatch.setattr("moorage.freshness.os.stat", counted)
    file.write_text("")
    assert [files.changed() for _ in range(100)] == [True] + [False] * 99
    clock.advance(0.99)
    assert not files.changed()
    assert looks == [str(file)]


def test_change_within_the_pause_is_told_after_it(clock: FakeClock, file: Path) -> None:
    files = freshness(clock, file)
    assert not files.changed()
    file.write_text("")
    clock.advance(0.5)
    assert not files.changed()
    clock.advance(0.5)
    assert files.changed()


def test_file_that_vanishes_and_comes_back_has_changed_twice(clock: FakeClock, file: Path) -> None:
    files = freshness(clock, file)
    text = file.read_text()
    file.unlink()
    assert files.changed()
    clock.advance(1)
    assert not files.changed()
    file.write_text(text)
    clock.advance(1)
    assert files.changed()


def test_file_that_was_never_there_is_no_change_until_it_comes(clock: FakeClock, tmp_path: Path) -> None:
    files = freshness(clock, tmp_path / "later.txt")
    assert not files.changed()
    (tmp_path / "later.txt").write_text("")
    clock.advance(1)
    assert files.changed()


def test_file_put_in_its_place_with_the_same_size_and_time_is_a_change(clock: FakeClock, file: Path) -> None:
    files = freshness(clock, file)
    found = file.stat()
    other = file.with_name("other.txt")
    other.write_text(file.read_text().replace("10", "20"))
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(file)
    assert files.changed()


def test_link_that_points_elsewhere_is_a_change(clock: FakeClock, tmp_path: Path) -> None:
    """What certbot and mounted secrets of a cluster do."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cert.pem").write_text("the same")
    (tmp_path / "live").symlink_to("first")
    files = freshness(clock, tmp_path / "live" / "cert.pem")
    (tmp_path / "new").symlink_to("second")
    (tmp_path / "new").rename(tmp_path / "live")
    assert files.changed()


def test_other_permissions_are_a_change(clock: FakeClock, file: Path) -> None:
    """A file that could not be read may be readable now."""
    files = freshness(clock, file)
    file.chmod(0o600)
    assert files.changed()


def test_one_of_several_is_enough(clock: FakeClock, file: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.txt"
    second.write_text("")
    files = freshness(clock, file, second)
    second.write_text("changed")
    assert files.changed()


def test_no_files_never_change(clock: FakeClock) -> None:
    assert not freshness(clock).changed()


def test_file_that_was_just_written_is_told_at_the_next_look(clock: FakeClock, file: Path) -> None:
    files = Freshness([str(file)], clock=clock, quiet=1.0)
    file.write_text("changed")
    clock.advance(1)
    assert not files.changed()
    assert not files.holds()
    clock.advance(1)
    assert files.changed()
    assert files.holds()


def test_file_that_was_written_long_ago_is_told_at_once(clock: FakeClock, file: Path) -> None:
    files = Freshness([str(file)], clock=clock, quiet=1.0)
    file.write_text("changed")
    os.utime(file, (1.0, 1.0))
    clock.advance(1)
    assert files.changed()
    file.write_text("again")
    assert not files.holds()
