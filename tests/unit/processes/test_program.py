"""Program: what it sees of itself is what `python` would have shown it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moorage.errors import TargetError
from moorage.processes.program import find_file, find_module

SHOW = """
import json, sys
print(json.dumps([__name__, __file__, sys.argv, sys.path[0], sys.modules["__main__"].__name__]))
"""
OURS = "import sys; from moorage.processes.program import {0}; {0}(sys.argv[1], sys.argv[2:])()"


def seen(folder: Path, *command: str) -> object:
    run = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("path", ["show.py", "sub/show.py", "./link.py"])
def test_file_sees_what_python_shows_it(tmp_path: Path, path: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "show.py").write_text(SHOW)
    (tmp_path / "sub" / "show.py").write_text(SHOW)
    (tmp_path / "link.py").symlink_to("sub/show.py")
    python = seen(tmp_path, path, "a", "--b")
    assert seen(tmp_path, "-c", OURS.format("find_file"), path, "a", "--b") == python


def test_module_sees_what_python_shows_it(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(SHOW)
    python = seen(tmp_path, "-m", "package", "a", "--b")
    assert seen(tmp_path, "-c", OURS.format("find_module"), "package", "a", "--b") == python


def test_safe_path_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW)
    python = seen(tmp_path, "-P", "show.py")
    assert seen(tmp_path, "-P", "-c", OURS.format("find_file"), "show.py") == python


def test_program_that_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with pytest.raises(TargetError, match="does not exist"):
        find_file(str(tmp_path / "absent.py"), [])
    with pytest.raises(TargetError, match="there is no module 'no_such_module'"):
        find_module("no_such_module", [])
    with pytest.raises(TargetError, match="No module named 'no_such_package'"):
        find_module("no_such_package.module", [])
