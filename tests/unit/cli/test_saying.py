"""Saying: one sentence on standard error."""

import subprocess
import sys

import click
import pytest

from moorage.cli.saying import WRONG, say, sentence_of


def test_sentence_is_on_standard_error_with_the_name_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert say("there is no such thing") == WRONG
    assert capsys.readouterr() == ("", "moorage: there is no such thing\n")


def test_sentence_of_a_command_line_is_one_line_and_begins_small() -> None:
    assert sentence_of(click.UsageError("Got  a\nsurprise")) == "got a surprise"


def test_mistake_is_told_though_nobody_reads_standard_error() -> None:
    run = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m moorage serve ecko 2>&-"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
