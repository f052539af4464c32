"""Run: our module in the place of the standard library's, and whose argument is whose."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from moorage.cli import commands
from moorage.cli.run import RunCommand
from moorage.config import ProgramSettings
from moorage.config.settings import SHARED_SETTINGS
from moorage.config.values import names


def test_run_offers_exactly_what_our_socketserver_takes() -> None:
    from moorage.socketserver.settings import SETTINGS

    assert set(SETTINGS) == {*SHARED_SETTINGS, *names(ProgramSettings)}


def test_run_takes_the_setup_timeout(tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text("import socketserver; print(socketserver.TCPServer.setup_timeout)")
    run = subprocess.run(
        [sys.executable, "-m", "moorage", "run", "--setup-timeout", "2s", "prog.py"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout == "2.0\n"


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
    assert isinstance(command, RunCommand)
    assert command._split(click.Context(command), arguments) == marked
