"""Target: what is loaded, and the sentence for what cannot be."""

import socketserver
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import TargetError
from moorage.processes.target import check_handler, load
from moorage.services import SERVICES, echo

HANDLERS = """
import socketserver

class Echo(socketserver.BaseRequestHandler):
    class Inner(socketserver.StreamRequestHandler):
        pass

def serve(conn):
    pass

def nothing():
    pass

class Empty:
    pass

number = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own, and the modules and paths as they were afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    modules = set(sys.modules)
    (tmp_path / "handlers_here.py").write_text(HANDLERS)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_name_of_a_service_is_the_service() -> None:
    assert load("echo") is echo


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("handlers_here:Echo", "Echo"),
        ("handlers_here:Echo.Inner", "Inner"),
        ("handlers_here:serve", "serve"),
        ("handlers_here.py:serve", "serve"),
        ("./handlers_here.py:Echo", "Echo"),
    ],
)
def test_handler_is_loaded_from_module_and_file(target: str, name: str) -> None:
    assert load(target).__name__ == name


def test_file_finds_its_neighbours_and_its_classes_can_be_pickled(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "neighbour_there.py").write_text("def handle(conn): pass")
    (here / "sub" / "app_there.py").write_text(
        "from neighbour_there import handle\nclass Echo:\n def __init__(self, a, b, c): pass"
    )
    handler = load("sub/app_there.py:Echo")
    assert getattr(sys.modules[handler.__module__], "Echo") is handler  # noqa: B009  # as pickle does


def test_file_named_like_a_module_that_is_there_does_not_replace_it(here: Path) -> None:
    (here / "json.py").write_text("def handle(conn): pass")
    import json

    load("json.py:handle")
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("ecko", "did you mean echo"),
        ("", "module:attr"),
        ("zzz", "module:attr"),
        ("handlers_here:", "module:attr"),
        (":x", "module:attr"),
        ("no_such_module:x", "no_such_module cannot be imported: ModuleNotFoundError: No module named"),
        ("absent.py:x", "there is no file 'absent.py'"),
        ("./absent:x", "there is no file 'absent'"),
        ("handlers_here:Ecko", "handlers_here has no 'Ecko': did you mean Echo"),
        ("handlers_here:number", "handlers_here:number is an int and no handler"),
        ("handlers_here:nothing", "handlers_here:nothing is a function and no handler"),
        ("handlers_here:Empty", "handlers_here:Empty is a type and no handler"),
        ("socketserver:TCPServer", "is a server class and no handler.*moorage run"),
        ("broken_here:x", r"ZeroDivisionError: division by zero \(.*broken_here.py:2\)"),
        ("broken_here.py:x", r"ZeroDivisionError: division by zero \(.*broken_here.py:2\)"),
        ("wrong_here:x", r"SyntaxError: .*\(wrong_here.py, line 1\)"),
        ("exits_here:x", r"ended the program.*exits_here.py:1.*__main__"),
        ("..x:y", "cannot be imported"),
    ],
)
def test_target_that_is_none_is_one_sentence(here: Path, target: str, sentence: str) -> None:
    (here / "broken_here.py").write_text("a = 1\n1 / 0\n")
    (here / "wrong_here.py").write_text("def\n")
    (here / "exits_here.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(TargetError, match=sentence) as caught:
        load(target)
    assert "\n" not in str(caught.value)


def test_file_that_fails_leaves_no_half_module_behind(here: Path) -> None:
    (here / "half_here.py").write_text("1 / 0")
    with pytest.raises(TargetError):
        load("half_here.py:x")
    assert "half_here" not in sys.modules


@given(st.text(alphabet="abz.:/ \0é", max_size=12))
def test_any_target_is_loaded_or_a_target_error(target: str) -> None:
    with pytest.raises(TargetError):
        load(target)


@pytest.mark.parametrize("handler", [*SERVICES.values(), socketserver.StreamRequestHandler, lambda conn: None, print])
def test_what_can_be_called_with_a_connection_is_a_handler(handler: object) -> None:
    assert check_handler(handler, "it") is handler
