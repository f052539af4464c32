"""Target: from the words of a command line to a handler.

Owns      the three forms: `module:attr`, `path/to/file.py:attr`, the name of a built-in service.
Promises  whatever is wrong is one `TargetError` sentence: the import error's own message with its file
          and line, the nearest name, or what a handler is.
Refuses   server classes: a program that makes its own server is run by `moorage run`.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from socketserver import BaseServer
from types import ModuleType, TracebackType
from typing import Any

from ..errors import TargetError
from ..handler import adapt
from ..services import SERVICES

Handler = Callable[..., Any]

CONTRACT = "a handler is a class called with (request, client_address, server), or a function of one argument"
FORMS = "module:attr, path/to/file.py:attr, or one of " + ", ".join(SERVICES)


def load(target: str) -> Handler:
    """The handler that `target` names."""
    if target in SERVICES:
        return SERVICES[target]
    place, _, path = target.rpartition(":")
    if not (place and path):
        near = get_close_matches(target, SERVICES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"write {FORMS}"
        raise TargetError(f"the target {target!r} names no handler: {hint}")
    is_file = place.endswith(".py") or os.sep in place
    module = _import(place, (lambda: _load_file(Path(place))) if is_file else (lambda: _load_module(place)))
    return check_handler(_attribute(module, place, path), target)


def check_handler(handler: object, name: str) -> Handler:
    """The handler itself, or `TargetError` when it is none."""
    if inspect.isclass(handler) and issubclass(handler, BaseServer):
        raise TargetError(f"{name} is a server class and no handler: name its handler, or start it with `moorage run`")
    try:
        adapt(handler, None)
    except TargetError:
        raise TargetError(f"{name} is {_article(type(handler).__name__)} and no handler: {CONTRACT}") from None
    return handler  # type: ignore[return-value]  # `adapt` took it, so it can be called


def _load_module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetError(f"there is no file {str(path)!r}")
    name = path.stem if path.stem not in sys.modules else f"moorage_target_{path.stem}"
    spec = spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise ImportError(f"{str(path)!r} is no Python file")
    sys.path.insert(0, str(path.absolute().parent))  # as `python path` does
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import(place: str, load_it: Callable[[], ModuleType]) -> ModuleType:
    try:
        return load_it()
    except TargetError:
        raise
    except SystemExit as error:
        where = _where(error)
        raise TargetError(
            f"{place} ended the program while it was imported{where}: "
            'put what starts it under `if __name__ == "__main__":`'
        ) from error
    except Exception as error:  # whatever the module raises is the operator's to mend
        message = " ".join(str(error).split()) or "no message"
        raise TargetError(f"{place} cannot be imported: {type(error).__name__}: {message}{_where(error)}") from error


def _where(error: BaseException) -> str:
    """The file and line that raised, unless the import machinery or this file did."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}:{error.lineno})" if error.filename and error.filename not in str(error) else ""
    place = None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "importlib" not in code.co_filename and code.co_filename != __file__:
            place = f" ({code.co_filename}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place or ""


def _attribute(module: ModuleType, place: str, path: str) -> object:
    found: object = module
    for name in path.split("."):
        if not hasattr(found, name):
            near = get_close_matches(name, dir(found), n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise TargetError(f"{place} has no {path!r}{hint}")
        found = getattr(found, name)
    return found


def _article(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"
