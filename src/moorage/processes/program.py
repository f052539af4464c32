"""Program: runs another program in this process, as `python` would.

Owns      `sys.argv`, `sys.path[0]` and `__main__` while the program runs.
Promises  the program's exit status and its exceptions pass through; what cannot be found is an
          `OperatorError` sentence before anything has run.
Refuses   to return to what was before: the process belongs to the program.
"""

import os
import runpy
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from ..errors import TargetError


def run_file(path: str, arguments: Sequence[str]) -> None:
    """`python PATH ARGUMENTS`."""
    if not os.path.exists(path):
        raise TargetError(f"the program {path!r} does not exist")
    if not os.access(path, os.R_OK):
        raise TargetError(f"the program {path!r} cannot be read")
    _enter(os.path.dirname(os.path.realpath(path)), [path, *arguments])
    runpy.run_path(path, run_name="__main__")


def run_module(name: str, arguments: Sequence[str]) -> None:
    """`python -m NAME ARGUMENTS`."""
    _enter(os.getcwd(), ["-m", *arguments])
    try:
        missing = find_spec(name) is None
    except (ImportError, ValueError) as error:
        raise TargetError(f"the module {name!r} cannot be found: {error}") from None
    if missing:
        raise TargetError(f"there is no module {name!r}")
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _enter(directory: str, argv: list[str]) -> None:
    sys.argv[:] = argv
    if not sys.flags.safe_path:  # python -P: the first entry is not ours to replace
        sys.path[0] = directory
