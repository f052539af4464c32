"""The command line: flags made from settings, one sentence for each mistake, status 2."""

import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from moorage import cli, twins
from moorage.cli import commands, main, report
from moorage.config import ListenerSettings, ProgramSettings, ServerSettings
from moorage.config.resolve import read
from moorage.config.settings import SHARED_SETTINGS, SPARE_FILES
from moorage.config.sources import flag, from_flags
from moorage.config.values import names
from moorage.config.version import VERSION
from moorage.errors import OperatorError
from moorage.processes import asking


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])


class Said:
    """What one command line answers."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = main(list(arguments))
        self.out, self.err = capsys.readouterr()


def flags_of(command: str) -> set[str]:
    found = commands().commands[command]
    return {name for param in found.params if isinstance(param, click.Option) for name in param.opts}


def test_every_setting_has_its_flag_in_serve_and_check() -> None:
    settings = {flag(name) for kind in (ServerSettings, ListenerSettings) for name in names(kind)}
    own = {flag(name) for name in names(ProgramSettings)}
    assert flags_of("serve") == settings | {"--config"}
    assert flags_of("check") == settings | own | {"--config"}


def test_run_has_the_flags_of_what_our_socketserver_can_be_told() -> None:
    told = {flag(name) for name in (*SHARED_SETTINGS, *names(ProgramSettings))}
    assert flags_of("run") == told | {"--config", "-m"}


def test_control_takes_what_leads_to_a_running_server() -> None:
    assert flags_of("control") == {"--name", "--control", "--json", "--config"}


def test_run_offers_exactly_what_our_socketserver_takes() -> None:
    from moorage.socketserver.settings import SETTINGS

    assert set(SETTINGS) == {*SHARED_SETTINGS, *names(ProgramSettings)}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("serve", "the target is missing: TARGET is module:attr"),
        ("srve", "no such command 'srve'"),
        ("serve echo extra", "got unexpected extra argument (extra)"),
        ("serve echo --max-conections 5", "there is no option --max-conections: did you mean --max-connections?"),
        ("serve echo --zzz", "there is no option --zzz; `--help` lists all there are"),
        ("serve echo --max-children 5", "there is no option --max-children"),
        ("serve echo --max-connections", "option '--max-connections' requires an argument"),
        ("serve echo --max-connections 0", "max_connections = '0' (the flag --max-connections) will not do: give a whole"),
        ("serve echo --runner fibre", "runner = 'fibre' (the flag --runner) will not do: give inline, threads, fibers or forks"),
        ("serve echo --bind 127.0.0.1", "the address '127.0.0.1' (the flag --bind) cannot be used: write host:port"),
        ("serve echo --bind 127.0.0.1:0,nodelaj=on", "there is no setting nodelaj (the flag --bind): did you mean nodelay?"),
        ("serve echo --config absent.toml", "the settings file absent.toml cannot be read"),
        ("serve ecko", "the target 'ecko' names no handler: did you mean echo?"),
        ("serve nowhere:x", "nowhere cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("serve socketserver:TCPServer", "is a server class and no handler"),
        ("serve echo --log-file absent/log --bind 127.0.0.1:0", "log_file = 'absent/log' cannot be opened"),
        ("check nowhere:x", "nowhere cannot be imported"),
        ("run", "what to run is missing: give PROGRAM or -m MODULE"),
        ("run -m", "option '-m' requires an argument"),
        ("run --runner forks x.py", "there is no option --runner"),
        ("control", "missing argument 'COMMAND'. Choose from: status, reload"),
        ("control dance", "'dance' is not one of 'status', 'reload'"),
        ("control stop --control off", "control is off, so there is no socket to ask"),
        ("control stop --control absent/c.sock", "cannot ask the server at absent/c.sock: there is no such socket"),
        ("control stop --name nobody-here", "there is no control socket of a server named 'nobody-here'"),
        ("control stop --nam x", "there is no option --nam: did you mean --name?"),
    ],
)  # fmt: skip
def test_mistake_is_one_sentence_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    said = Said(capsys, *arguments.split())
    assert said.status == 2
    assert said.out == ""
    assert said.err.startswith("moorage: ")
    assert said.err.count("\n") == 1
    assert sentence in said.err


@pytest.mark.parametrize("arguments", ["serve echo --bind 127.0.0.1:0", "check", "check echo"])
def test_fibers_without_greenlet_are_one_sentence_with_the_way_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    monkeypatch.setitem(sys.modules, "greenlet", None)
    said = Said(capsys, *arguments.split(), "--runner", "fibers")
    assert said.status == 2
    assert said.err.startswith("moorage: runner = fibers needs greenlet, which cannot be imported")
    assert said.err.endswith("install it with `pip install greenlet`\n")
    assert said.err.count("\n") == 1


def test_check_tells_how_many_connections_fibers_serve_by_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    lines = Said(capsys, "check", "--runner", "fibers").out.splitlines()
    assert ["max_connections", str(4096 - SPARE_FILES), "default"] in [line.split() for line in lines]


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["serve", "--help"], ["run", "--help"], ["check", "--help"], ["control", "--help"]]
)
def test_help_is_on_standard_output_with_status_0(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    said = Said(capsys, *arguments)
    assert said.status == 0
    assert said.out.startswith("Usage: moorage")
    assert said.err == ""


def test_version_is_told_by_command_and_by_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert Said(capsys, "--version").out == f"moorage {VERSION}\n"
    said = Said(capsys, "version")
    assert said.out.startswith(f"moorage {VERSION} (")
    assert said.out.count("\n") == 1


def test_version_says_that_the_native_twins_are_in_use(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "NATIVE", True)
    assert Said(capsys, "version").out.endswith(", native)\n")


def test_version_says_why_it_is_pure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "NATIVE", False)
    monkeypatch.setattr(twins, "WHY", "the extension was not built")
    assert Said(capsys, "version").out.endswith(", pure Python: the extension was not built)\n")


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


def test_report_has_a_line_for_every_setting() -> None:
    lines = report(read(from_flags({}, ["127.0.0.1:1", "127.0.0.1:2"]), None, {}))
    named = [line.split()[0] for line in lines[2:] if line]
    assert named == [*names(ServerSettings), *2 * names(ListenerSettings), *names(ProgramSettings)]


@pytest.mark.parametrize(
    ("arguments", "marked"),
    [
        (["prog.py", "--x", "-m", "y"], ["--", "prog.py", "--x", "-m", "y"]),
        (["--threads", "3", "prog.py", "a"], ["--threads", "3", "--", "prog.py", "a"]),
        (["--threads=3", "prog.py"], ["--threads=3", "--", "prog.py"]),
        (["--no-reuse-threads", "prog.py"], ["--no-reuse-threads", "--", "prog.py"]),
        (["-m", "http.server", "--bind", "x"], ["-m", "http.server", "--", "--bind", "x"]),
        (["-mhttp.server", "8000"], ["-mhttp.server", "--", "8000"]),
        (["--", "--odd.py"], ["--", "--odd.py"]),
        (["--help"], ["--help", "--"]),
        (["-m"], ["-m"]),
    ],
)
def test_run_knows_where_the_arguments_of_the_program_begin(arguments: list[str], marked: list[str]) -> None:
    command = commands().commands["run"]
    assert isinstance(command, cli._RunCommand)
    assert command._split(click.Context(command), arguments) == marked


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


def test_mistake_is_told_though_nobody_reads_standard_error() -> None:
    run = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m moorage serve ecko 2>&-"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2


def test_ctrl_c_while_a_target_is_imported_is_no_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "slow_here.py").write_text("raise KeyboardInterrupt")
    said = Said(capsys, "check", "slow_here:x")
    assert (said.status, said.out, said.err.strip()) == (130, "", "")


def test_command_line_and_settings_are_loaded_without_socketserver() -> None:
    """`run` installs ours in its place: nothing may have taken classes from it before."""
    code = "import moorage.cli, moorage.config.resolve, msgspec, sys; assert 'socketserver' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
