"""The command line: one sentence for each mistake, status 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from moorage import twins
from moorage.config.version import VERSION
from support.commands import Said


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
        ("serve echo --allow 10.0.0.1/8", "allow = '10.0.0.1/8' (the flag --allow) will not do: give networks such as"),
        ("serve echo --tls-verify required", "tls_verify of 127.0.0.1:20000 says nothing without tls_cert"),
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


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["serve", "--help"],
        ["run", "--help"],
        ["check", "--help"],
        ["control", "--help"],
        ["doctor", "--help"],
        ["devcert", "--help"],
    ],
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


def test_ctrl_c_while_a_target_is_imported_is_no_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "slow_here.py").write_text("raise KeyboardInterrupt")
    said = Said(capsys, "check", "slow_here:x")
    assert (said.status, said.out, said.err.strip()) == (130, "", "")


def test_command_line_and_settings_are_loaded_without_socketserver() -> None:
    """`run` installs ours in its place: nothing may have taken classes from it before."""
    code = "import moorage.cli, moorage.config.resolve, msgspec, sys; assert 'socketserver' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
