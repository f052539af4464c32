"""CPython's own test suite, run on another interpreter with the old door in the place of `socketserver`.

Owns      the search for interpreters, and the bootstrap that installs before anything else is imported.
Promises  each run is a subprocess in an empty folder; it reports its counts and the threads that survived.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["VERSIONS", "Counts", "Run", "find_interpreter"]

VERSIONS = ("3.11", "3.12", "3.13")
SRC = Path(__file__).parents[2] / "src"

BOOTSTRAP = """
import sys, threading
if sys.argv.pop(1) == "door":
    import moorage.socketserver
    moorage.socketserver.install()
from test.libregrtest.main import main
try:
    main()
finally:
    print("SURVIVORS:", [t.name for t in threading.enumerate() if t is not threading.main_thread()])
    print("DOOR:", "moorage" in repr(sys.modules.get("socketserver")))
"""


class Counts(NamedTuple):
    """What a run reports."""

    run: int
    skipped: int


def find_interpreter(version: str) -> str | None:
    """The path of an interpreter of this version that ships the test package."""
    found = [shutil.which(f"python{version}"), *_pyenv(version)]
    if sys.version.startswith(version + "."):
        found.insert(0, sys.executable)
    return next((path for path in found if path and _has_test_package(path)), None)


def _pyenv(version: str) -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return [str(path) for path in sorted(root.glob(f"{version}.*/bin/python3"))]


def _has_test_package(path: str) -> bool:
    probe = "import test.libregrtest.main, test.test_httpservers"
    done = subprocess.run([path, "-I", "-c", probe], check=False, capture_output=True, timeout=60)
    return done.returncode == 0


class Run:
    """One module of the suite on one interpreter, begun at once, waited for by `finish`."""

    def __init__(self, interpreter: str, place: str, module: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._process = subprocess.Popen(
            [interpreter, "-W", "error", "-c", BOOTSTRAP, place, "-u", "network", "--fail-env-changed", "-v", module],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(SRC)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self) -> "Run":
        """Wait for the end; a second call does nothing."""
        if self._process.stdout is not None and not self._process.stdout.closed:
            with self._process:
                self.output = self._process.communicate(timeout=120)[0]
        return self

    def kill(self) -> None:
        """End it if it has not ended."""
        self._process.kill()
        self.finish()

    @property
    def status(self) -> int:
        """0 when all tests passed and the environment is as it was."""
        return self._process.returncode

    @property
    def counts(self) -> Counts:
        """How many tests ran and how many of them were skipped."""
        run = re.search(r"^Ran (\d+) tests?", self.output, re.MULTILINE)
        skipped = re.search(r"^OK \(skipped=(\d+)", self.output, re.MULTILINE)
        assert run is not None, self.output[-2000:]
        return Counts(int(run[1]), int(skipped[1]) if skipped else 0)

    @property
    def survivors(self) -> str:
        """The names of the threads that were alive at the end."""
        found = re.search(r"^SURVIVORS: (.*)$", self.output, re.MULTILINE)
        assert found is not None, self.output[-2000:]
        return found[1]
