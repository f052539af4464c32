"""Program: runs another program in this process, as `python` would.

Owns      `sys.argv`, `sys.path[0]` and `__main__`, from now on.
Promises  the program sees what `python` would have shown it; its exit status and its exceptions pass
          through; what cannot be found is a `TargetError` sentence, before the call that runs it is returned.
Refuses   to put back what was before: the process belongs to the program, whose threads may outlive its
          last line.  (`runpy.run_path` does put it back, and changes `sys.argv[0]` besides.)
"""

import io
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from types import ModuleType

from ..errors import TargetError

MAIN = "__main__"

Run = Callable[[], object]


def find_file(path: str, arguments: Sequence[str]) -> Run:
    """`python PATH ARGUMENTS`; call the answer to run it."""
    if not os.path.exists(path):
        raise TargetError(f"the program {path!r} does not exist")
    if not os.access(path, os.R_OK):
        raise TargetError(f"the program {path!r} cannot be read")
    if os.path.isdir(path) or not path.endswith((".py", ".pyw")) and _is_archive(path):
        _enter(path, [path, *arguments])
        return partial(runpy.run_path, path, run_name=MAIN)
    _enter(os.path.dirname(os.path.realpath(path)), [path, *arguments])
    return partial(_run_source, os.path.join(os.getcwd(), path))


def find_module(name: str, arguments: Sequence[str]) -> Run:
    """`python -m NAME ARGUMENTS`; call the answer to run it."""
    _enter(os.getcwd(), ["-m", *arguments])
    try:
        missing = find_spec(name) is None
    except (ImportError, ValueError) as error:
        raise TargetError(f"the module {name!r} cannot be found: {error}") from None
    if missing:
        raise TargetError(f"there is no module {name!r}")
    return partial(runpy.run_module, name, run_name=MAIN, alter_sys=True)


def _run_source(path: str) -> None:
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    main = ModuleType(MAIN)
    main.__file__ = path
    main.__loader__ = SourceFileLoader(MAIN, path)
    main.__dict__["__cached__"] = None
    sys.modules[MAIN] = main
    exec(code, main.__dict__)


def _is_archive(path: str) -> bool:
    """A zip file or compiled code, which `runpy` knows how to run."""
    import zipfile

    return path.endswith(".pyc") or zipfile.is_zipfile(path)


def _enter(directory: str, argv: list[str]) -> None:
    sys.argv[:] = argv
    if not sys.flags.safe_path:  # python -P: the first entry is not ours to replace
        sys.path[0] = directory
