"""Commands: one command line, run in this process."""

import click
import pytest

from moorage.cli import commands, main


class Said:
    """What one command line answers."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = main(list(arguments))
        self.out, self.err = capsys.readouterr()


def flags_of(command: str) -> set[str]:
    found = commands().commands[command]
    return {name for param in found.params if isinstance(param, click.Option) for name in param.opts}
