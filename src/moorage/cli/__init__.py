"""The command line: `moorage serve`, `control`, `run`, `check`, `doctor`, `devcert`, `version`.

Owns      a file for each command of more than a few lines, `options` (their flags), `saying` (their mistakes), and
          `command_line`, where they come together.
Refuses   to hold logic of its own: whatever a program can want is in a room below.
"""

from .check import report
from .command_line import commands, main

__all__ = ["commands", "main", "report"]
