"""Saying: the sentence on standard error, and the statuses of the command line.

Owns      how a mistake is said.
Promises  one sentence, with the nearest name where there is one; nobody who does not read it keeps a command from
          ending.
"""

import os
from collections.abc import Sequence
from difflib import get_close_matches

import click

from .options import TARGET_HELP

FINE, WRONG = 0, 2


def say(sentence: str) -> int:
    """Say one sentence on standard error; returns the status of a mistake."""
    try:
        click.echo(f"moorage: {sentence}", err=True)
    except OSError:  # nobody reads standard error: the status says it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return WRONG


def sentence_of(error: click.ClickException) -> str:
    """One sentence, with the nearest name where there is one."""
    if isinstance(error, click.NoSuchOption):
        known = [name for param in error.ctx.command.params for name in param.opts] if error.ctx else []
        return f"there is no option {error.option_name}{_nearest(error.option_name, known)}"
    message = " ".join(error.format_message().split())
    if isinstance(error, click.MissingParameter) and error.param is not None and error.param.name == "target":
        return f"the target is missing: {TARGET_HELP}"
    return message[:1].lower() + message[1:]


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f": did you mean {near[0]}?" if near else "; `--help` lists all there are"
