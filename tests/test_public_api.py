"""The public names: complete, documented, and loaded only when asked for."""

import inspect
import re
import subprocess
import sys

import pytest

import moorage


@pytest.mark.parametrize("name", moorage.__all__)
def test_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(moorage, name)
    if name != "__version__":
        assert inspect.getdoc(value), "say what it is for"
        assert value.__name__ == name


def test_public_names_are_unique_and_in_order() -> None:
    assert list(moorage.__all__) == sorted(set(moorage.__all__))


def test_every_public_name_has_a_home_and_no_other_has() -> None:
    assert set(moorage._HOME) | {"__version__"} == set(moorage.__all__)


def test_dir_lists_the_public_names() -> None:
    assert set(moorage.__all__) <= set(dir(moorage))


def test_every_exception_of_ours_is_public() -> None:
    from moorage import errors

    assert set(errors.__all__) <= set(moorage.__all__)


def test_version_is_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?(a|b|rc|dev)\d+)?", moorage.__version__)


def test_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'moorage' has no attribute 'Sever'"):
        moorage.Sever  # noqa: B018


def test_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from moorage import *", names)
    assert set(moorage.__all__) <= names.keys()


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_loads_nothing_else() -> None:
    loaded = loaded_after("import moorage")
    assert {name for name in loaded if name.startswith("moorage.")} == set()
    assert not loaded & {"click", "msgspec", "greenlet", "socketserver", "ssl", "dataclasses"}


@pytest.mark.parametrize("name", [name for name in moorage.__all__ if name != "serve"])
def test_public_name_is_loaded_without_the_dependencies(name: str) -> None:
    assert not loaded_after(f"from moorage import {name}") & {"click", "msgspec", "greenlet", "ssl"}


def test_old_door_is_reached_from_the_package() -> None:
    assert "moorage.socketserver" in loaded_after("from moorage import socketserver; socketserver.ThreadPoolTCPServer")
