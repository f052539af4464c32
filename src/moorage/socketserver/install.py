"""Install: the hardened module in the place of the standard library's.

Owns      the entry `socketserver` of `sys.modules`, and what the public classes say of their origin.
Promises  everything imported afterwards gets our classes; modules that took the standard library's before
          are named in one warning; `uninstall()` undoes it.
Refuses   to patch the standard library's module: who imported it keeps what they have.
"""

import socketserver as stdlib
import sys
import warnings
from types import ModuleType

__all__ = ["install", "uninstall"]

_PLACE = "socketserver"


def install() -> None:
    """Put this package in the place of `socketserver`, for everything imported from now on."""
    package = _package()
    if sys.modules.get(_PLACE) is package:
        return
    late = _modules_with_stdlib_classes()
    sys.modules[_PLACE] = package
    _name_classes(package, _PLACE)
    if late:
        warnings.warn(
            f"socketserver was imported before moorage.socketserver.install() by {', '.join(late)}: "
            "these keep the standard library's classes; install first",
            RuntimeWarning,
            stacklevel=2,
        )


def uninstall() -> None:
    """Put the standard library's module back; classes already taken from ours stay ours."""
    package = _package()
    if sys.modules.get(_PLACE) is package:
        sys.modules[_PLACE] = stdlib
        _name_classes(package, package.__name__)


def _package() -> ModuleType:
    return sys.modules[__name__.rpartition(".")[0]]


def _name_classes(package: ModuleType, module: str) -> None:
    """Pickles, and CPython's own tests, ask classes for their module."""
    for name in package.__all__:
        getattr(package, name).__module__ = module


def _modules_with_stdlib_classes() -> list[str]:
    package = _package()
    ours = {getattr(package, name) for name in package.__all__}
    theirs = tuple(vars(stdlib)[name] for name in stdlib.__all__)
    return sorted(
        name
        for name, module in tuple(sys.modules.items())
        if module is not stdlib and not name.startswith("moorage") and _takes(module, theirs, ours)
    )


def _takes(module: ModuleType, theirs: tuple[type, ...], ours: set[type]) -> bool:
    """Whether any class in this module is the standard library's, or descends from it and not from ours."""
    for value in tuple(getattr(module, "__dict__", {}).values()):
        if isinstance(value, type) and issubclass(value, theirs) and not ours.intersection(value.__mro__):
            return True
    return False
