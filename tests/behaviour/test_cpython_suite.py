"""CPython's own tests pass on the old door, unmodified, with the same counts as on the standard library."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cpython import VERSIONS, Counts, Run, find_interpreter

pytestmark = pytest.mark.timeout(180)

RUNS = (("door", "test_socketserver"), ("door", "test_httpservers"), ("stdlib", "test_httpservers"))


@pytest.fixture(scope="module", params=VERSIONS)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """All runs on one interpreter, side by side."""
    interpreter = find_interpreter(request.param)
    if interpreter is None:
        pytest.skip(f"no Python {request.param} that ships the test package is on PATH or in ~/.pyenv")
    folder: Path = tmp_path_factory.mktemp("cpython")
    begun = {f"{place} {module}": Run(interpreter, place, module, folder / place / module) for place, module in RUNS}
    yield begun
    for run in begun.values():
        run.kill()


def test_test_socketserver_passes_and_skips_nothing(runs: dict[str, Run]) -> None:
    run = runs["door test_socketserver"].finish()
    assert run.status == 0, run.output
    assert run.counts == Counts(run=27, skipped=0)
    assert "DOOR: True" in run.output
    assert run.survivors == "[]"


def test_test_httpservers_passes_with_the_counts_of_the_standard_library(runs: dict[str, Run]) -> None:
    ours, theirs = runs["door test_httpservers"].finish(), runs["stdlib test_httpservers"].finish()
    assert theirs.status == 0, theirs.output
    assert "DOOR: False" in theirs.output
    assert ours.status == 0, ours.output
    assert "DOOR: True" in ours.output
    assert ours.counts == theirs.counts
    assert ours.survivors == "[]"
