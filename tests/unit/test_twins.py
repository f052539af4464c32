"""Twins: one choice for the whole process, and a reason in words."""

import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

from moorage import twins
from moorage.twins import ENGINE, VARIABLE, choose
from support.twins import native


def broken(error: ImportError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every import of the extension fail."""

    def refuse(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(twins, "import_module", refuse)


def in_a_new_process(value: str) -> str:
    """What the twins are where the variable has this value."""
    program = "from moorage import twins; print(twins.NATIVE, twins.Wheel.__module__, twins.WHY, sep='|')"
    environ = {VARIABLE: value}
    return subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


def test_extension_that_is_built_is_chosen() -> None:
    assert native() is import_module(ENGINE)
    assert choose({}) == (native(), "native")


@pytest.mark.parametrize("value", ["", "0"])
def test_variable_that_is_off_changes_nothing(value: str) -> None:
    assert choose({VARIABLE: value}) == choose({})


def test_variable_forces_the_pure_twins() -> None:
    assert choose({VARIABLE: "1"}) == (None, "MOORAGE_PURE is set")


def test_extension_that_was_not_built_leaves_the_pure_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(ModuleNotFoundError(f"No module named {ENGINE!r}", name=ENGINE), monkeypatch)
    assert choose({}) == (None, "the extension was not built")


@pytest.mark.parametrize(
    "error", [ImportError("undefined symbol"), ModuleNotFoundError("No module named 'greenlet'", name="greenlet")]
)
def test_extension_that_cannot_be_loaded_leaves_the_pure_twins_and_says_why(
    error: ImportError, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(error, monkeypatch)
    assert choose({}) == (None, f"the extension cannot be loaded: {error}")


def test_process_with_the_variable_set_has_every_twin_pure() -> None:
    assert in_a_new_process("1") == "False|moorage.timers|MOORAGE_PURE is set"


def test_process_without_it_has_every_twin_native() -> None:
    assert native()
    assert in_a_new_process("") == f"True|{ENGINE}|native"


def test_what_is_said_is_what_is_used() -> None:
    assert (twins.Wheel.__module__ == ENGINE) == twins.NATIVE == (twins.WHY == "native")
