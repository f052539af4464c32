"""The watcher of files: a real child that tells, and the rules of what is told."""

import logging
import os
import signal
import socket
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moorage.processes import changes
from moorage.processes.changes import Changes, Files, Parent, hear_events, live, look_again_and_again
from moorage.processes.system import System
from moorage.watch import Watch
from support.fake_watch import FakeWatch
from support.sockets import PATIENCE
from support.waiting import eventually

QUIET = 0.3  # seconds in which nothing is to happen


class Watched:
    """A real child, a real Watch, and what was told."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self._last = "begin.py changed"
        self.watch = Watch()
        self.changes = Changes(System(), self.watch, self.told.append, folder=str(folder))

    def next(self) -> str:
        """What is told next; a change may be told twice, where its file is opened in one moment and written in another."""
        before = len(self.told)

        def turn() -> str | None:
            self.watch.turn(0.02)
            return next((told for told in self.told[before:] if told != self._last), None)

        self._last = eventually(turn) or ""
        return self._last

    def stays_silent(self) -> bool:
        before = len(self.told)
        self.watch.turn(QUIET)
        return len(self.told) == before


@pytest.fixture
def without_watchfiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)  # an import of it fails
    monkeypatch.setattr(changes, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(changes, "QUIET_SECONDS", 0.05)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """The tests start it: the child is a copy of the process as it is then."""
    watching = Watched(tmp_path)
    yield watching
    pid = watching.changes.pid
    watching.changes.stop()
    if pid is not None:
        assert eventually(watching.changes.reap)
    watching.watch.close()


def begin(watched: Watched, folder: Path) -> None:
    """Start the child, and wait until it has looked once."""
    (folder / "begin.py").touch()
    watched.changes.start()
    # Its first look is a moment that nobody sees: touch until it tells.
    number = iter(range(1, 10_000))

    def told() -> bool:
        (folder / "begin.py").write_text("#" * next(number))
        watched.watch.turn(0.1)
        return bool(watched.told)

    eventually(told)
    eventually(watched.stays_silent)


@pytest.mark.usefixtures("without_watchfiles")
def test_child_tells_a_changed_a_new_and_a_removed_file(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("old")
    begin(watched, tmp_path)
    (tmp_path / "app.py").write_text("new and longer")
    assert watched.next() == "app.py changed"
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "more.py").touch()
    assert watched.next() == "inner/more.py changed"
    (tmp_path / "app.py").unlink()
    assert watched.next() == "app.py changed"


def test_child_tells_a_changed_a_new_and_a_removed_file_through_watchfiles(watched: Watched, tmp_path: Path) -> None:
    pytest.importorskip("watchfiles", reason="an optional extra")
    (tmp_path / "app.py").write_text("old")
    begin(watched, tmp_path)
    (tmp_path / "app.py").write_text("new and longer")
    assert watched.next() == "app.py changed"
    (tmp_path / "more.py").touch()
    assert watched.next() == "more.py changed"
    (tmp_path / "app.py").unlink()
    assert watched.next() == "app.py changed"


@pytest.mark.usefixtures("without_watchfiles")
def test_child_is_silent_about_hidden_folders_and_other_files(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    begin(watched, tmp_path)
    (tmp_path / ".git" / "hook.py").touch()
    (tmp_path / "notes.txt").touch()
    assert watched.stays_silent()
    (tmp_path / "moorage.toml").touch()
    assert watched.next() == "moorage.toml changed"


@pytest.mark.usefixtures("without_watchfiles")
def test_child_ends_when_the_end_of_its_parent_is_closed(watched: Watched) -> None:
    watched.changes.start()
    assert not watched.changes.reap()
    watched.changes.disown()  # what the death of the supervisor does, too
    assert eventually(watched.changes.reap)
    assert watched.changes.pid is None


@pytest.mark.usefixtures("without_watchfiles")
def test_child_keeps_no_listener_open(watched: Watched) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        watched.changes.start()

    def is_refused() -> bool:
        with socket.socket() as client:
            client.settimeout(PATIENCE)
            return client.connect_ex(address) != 0

    assert eventually(is_refused)


@pytest.mark.usefixtures("without_watchfiles")
def test_child_leaves_ctrl_c_and_reload_to_the_supervisor_and_ends_by_term(
    watched: Watched, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin(watched, tmp_path)
    pid = watched.changes.pid
    assert pid is not None
    assert os.getpgid(pid) == pid
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid, signum)
    (tmp_path / "app.py").touch()
    assert watched.next() == "app.py changed"
    os.kill(pid, signal.SIGTERM)
    assert eventually(watched.changes.reap)

    def is_warned() -> bool:
        watched.watch.turn(0.02)
        return bool(caplog.records)

    assert eventually(is_warned)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "watches the files has ended" in caplog.text


@pytest.mark.usefixtures("without_watchfiles")
def test_start_leaves_the_signals_of_the_supervisor_as_they_were(watched: Watched) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    watched.changes.start()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


# ---- what is told, without a process


class Script:
    """In the place of the supervisor: each wait of the child makes one step, and the last step is its end."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.told: list[set[str]] = []
        self.warnings: list[str] = []
        self.waits: list[float] = []

    def is_gone(self, seconds: float) -> bool:
        self.waits.append(seconds)
        if not self.steps:
            return True
        self.steps.pop(0)()
        return False

    def is_set(self) -> bool:
        return self.is_gone(0)

    def tell(self, paths: set[str]) -> None:
        self.told.append({os.path.basename(path) for path in paths})

    def warn(self, line: str) -> None:
        self.warnings.append(line)


def nothing() -> None:
    """A step in which no file changes."""


def writing(path: Path) -> Callable[[], object]:
    return lambda: path.write_text("#" * (len(path.read_text()) + 1 if path.exists() else 1))


def told(folder: Path, *steps: Callable[[], object]) -> list[set[str]]:
    script, files = Script(*steps), Files(str(folder))
    look_again_and_again(files, script, files.look())  # type: ignore[arg-type]  # it is asked the same things
    return script.told


def test_look_without_a_change_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    assert told(tmp_path, nothing, nothing, nothing) == []


def test_burst_is_told_once_when_it_is_quiet(tmp_path: Path) -> None:
    first, second, third = (writing(tmp_path / f"{name}.py") for name in "abc")
    assert told(tmp_path, first, second, third, nothing, nothing, first, nothing) == [
        {"a.py", "b.py", "c.py"},
        {"a.py"},
    ]


def test_burst_without_an_end_is_told_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MOST_UNQUIET", 0.0)
    step = writing(tmp_path / "app.py")
    assert told(tmp_path, step, step) == [{"app.py"}, {"app.py"}]


def test_file_that_came_and_went_in_one_burst_is_not_told(tmp_path: Path) -> None:
    passing = tmp_path / "app.py"
    assert told(tmp_path, passing.touch, passing.unlink, nothing, nothing) == []


def test_file_put_in_the_place_of_another_is_told(tmp_path: Path) -> None:
    """An editor writes a new file beside the old one and renames it; time and size may be the same."""
    app, beside = tmp_path / "app.py", tmp_path / "beside.txt"
    app.write_text("a")
    beside.write_text("b")
    os.utime(beside, ns=(app.stat().st_atime_ns, app.stat().st_mtime_ns))
    assert told(tmp_path, lambda: beside.rename(app), nothing) == [{"app.py"}]


def test_tree_that_takes_long_to_look_at_is_looked_at_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 0.5, 1.0, 1.01])
    monkeypatch.setattr(changes, "monotonic", lambda: next(times))
    script = Script(nothing, nothing)
    look_again_and_again(Files(str(tmp_path)), script, {})  # type: ignore[arg-type]  # it is asked the same things
    assert script.waits == [1.0, 5.0, 1.0]


def tree(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


WATCHED = ["app.py", "inner/deep/more.py", "moorage.toml", "inner/pyproject.toml"]
UNWATCHED = [
    "notes.txt", "moorage.toml.bak", "setup.toml", "app.pyc", ".#app.py", ".git/hook.py", ".venv/lib/a.py",
    "__pycache__/a.py", "node_modules/x/gyp.py", "inner/__pycache__/a.py", "env/lib/site-packages/a.py",
]  # fmt: skip


def test_files_are_those_of_python_and_of_settings(tmp_path: Path) -> None:
    tree(tmp_path, *WATCHED, *UNWATCHED, "env/pyvenv.cfg", "pyvenv.cfg")  # the folder itself is never skipped
    files = Files(str(tmp_path))
    assert sorted(os.path.relpath(path, tmp_path) for path in files.look()) == sorted(WATCHED)
    assert [path for path in WATCHED if not files.has(str(tmp_path / path))] == []
    assert [path for path in UNWATCHED if files.has(str(tmp_path / path))] == []
    assert not files.has(str(tmp_path.parent / "app.py"))


def test_files_follow_links_to_files_and_not_to_folders(tmp_path: Path) -> None:
    tree(tmp_path, "inside/real.py")
    (tmp_path / "inside" / "circle").symlink_to(tmp_path)
    (tmp_path / "linked.py").symlink_to(tmp_path / "inside" / "real.py")
    (tmp_path / "nowhere.py").symlink_to(tmp_path / "gone")
    found = Files(str(tmp_path)).look()
    assert sorted(os.path.relpath(path, tmp_path) for path in found) == ["inside/real.py", "linked.py"]


def test_settings_file_of_another_name_is_one_of_the_files(tmp_path: Path) -> None:
    tree(tmp_path, "below/.live.toml", "apart/app.py")
    settings = tmp_path / "below" / ".live.toml"
    files = Files(str(tmp_path / "apart"), str(settings))
    assert files.has(str(settings))
    assert str(settings) in files.look()


def test_folder_that_is_gone_has_no_files(tmp_path: Path) -> None:
    assert Files(str(tmp_path / "gone")).look() == {}


def test_reason_names_one_file_and_counts_the_others(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    assert files.reason([str(tmp_path / "app.py")]) == "app.py changed"
    paths = [str(tmp_path / name) for name in ("c.py", "a.py", "b/x.py")]
    assert files.reason(paths) == "a.py and 2 more changed"
    assert files.reason([str(tmp_path / "a\nb.py")]) == "a?b.py changed"


# ---- with watchfiles, or what has its form


class Events(types.ModuleType):
    """In the place of `watchfiles`: what changes is what the test says."""

    def __init__(self, *rounds: list[str], error: Exception | None = None) -> None:
        super().__init__("watchfiles")
        self.rounds, self.error = rounds, error
        self.asked: dict[str, object] = {}

    def watch(
        self, folder: str, *, watch_filter: Callable[[int, str], bool], stop_event: Script, **options: object
    ) -> Iterator[set[tuple[int, str]]]:
        self.asked = {"folder": folder, **options}
        if self.error is not None:
            raise self.error
        for paths in self.rounds:
            yield {(1, path) for path in paths if watch_filter(1, path)}  # an empty one: nothing for a while
        assert stop_event.is_set()


def test_events_of_watchfiles_are_told_when_they_are_of_the_files(tmp_path: Path) -> None:
    events = Events([f"{tmp_path}/a.py", f"{tmp_path}/b.py", f"{tmp_path}/.git/c.py"], [f"{tmp_path}/notes.txt"])
    script = Script()
    hear_events(Files(str(tmp_path)), script, events, {})  # type: ignore[arg-type]  # it is asked the same things
    assert script.told == [{"a.py", "b.py"}]
    assert events.asked == {
        "folder": str(tmp_path), "step": 200, "debounce": 2000, "raise_interrupt": False,
        "rust_timeout": 1000, "yield_on_timeout": True,
    }  # fmt: skip


def test_change_from_before_watchfiles_listened_is_told(tmp_path: Path) -> None:
    files, script = Files(str(tmp_path)), Script()
    before = files.look()
    (tmp_path / "app.py").touch()
    hear_events(files, script, Events([], [], []), before)  # type: ignore[arg-type]  # it is asked the same things
    assert script.told == [{"app.py"}]


def test_watchfiles_is_taken_where_it_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", Events([f"{tmp_path}/app.py"]))
    script = Script()
    live(Files(str(tmp_path)), script)  # type: ignore[arg-type]  # it is asked the same things
    assert script.told == [{"app.py"}]
    assert script.waits == [0]  # nothing was looked at


def test_watchfiles_that_cannot_watch_is_told_and_the_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", Events(error=OSError("OS file watch limit reached")))
    script = Script(writing(tmp_path / "app.py"), nothing)
    live(Files(str(tmp_path)), script)  # type: ignore[arg-type]  # it is asked the same things
    assert script.told == [{"app.py"}]
    assert "OS file watch limit reached" in script.warnings[0]


# ---- the connection between the two


class NoFork:
    """A system in which the child is the test itself."""

    pid = 4711

    def __init__(self) -> None:
        self.has_ended = False

    def fork(self) -> int:
        return self.pid

    def exit(self, status: int) -> None:
        raise AssertionError(status)

    def wait(self, pid: int) -> int | None:
        assert pid == self.pid
        return 0 if self.has_ended else None


class Ends:
    """The supervisor's side of a pretended child, and the child's end of the connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        monkeypatch.setattr(socket, "socketpair", lambda *_: (ours, theirs.dup()))
        self.child, self.watch, self.system = theirs, FakeWatch(), NoFork()
        self.told: list[str] = []
        self.files = Files(str(folder))
        self.changes = Changes(self.system, self.watch, self.told.append, folder=str(folder))  # type: ignore[arg-type]
        self.changes.start()
        self.parent = Parent(theirs, self.files)

    def hear(self) -> None:
        for call in tuple(self.watch.listening.values()):
            call()


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Ends]:
    both = Ends(monkeypatch, tmp_path)
    yield both
    both.changes.stop()
    both.child.close()


def test_tellings_that_wait_for_a_busy_supervisor_are_one_reload(ends: Ends, tmp_path: Path) -> None:
    ends.parent.tell([str(tmp_path / "a.py")])
    ends.parent.tell([str(tmp_path / "b.py")])
    ends.hear()
    assert ends.told == ["b.py changed"]
    ends.hear()
    assert ends.told == ["b.py changed"]


def test_telling_to_a_supervisor_that_hears_nothing_never_blocks(ends: Ends, tmp_path: Path) -> None:
    for _ in range(10_000):
        ends.parent.tell([str(tmp_path / "a.py")])
    ends.hear()
    assert ends.told == ["a.py changed"]


def test_warning_of_the_child_is_a_line_of_the_log_and_no_reload(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    ends.parent.warn("something is odd")
    ends.hear()
    assert ends.told == []
    assert caplog.messages == ["something is odd"]


def test_parent_is_there_until_its_end_is_closed(ends: Ends) -> None:
    assert not ends.parent.is_set()
    ends.changes.stop()
    assert ends.parent.is_gone(PATIENCE)
    ends.parent.tell(["too late"])
    assert ends.watch.listening == {}
    ends.changes.stop()


def test_child_that_ended_is_reaped_once(ends: Ends) -> None:
    assert not ends.changes.reap()
    ends.system.has_ended = True
    assert ends.changes.reap()
    assert not ends.changes.reap()
