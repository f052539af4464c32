"""Twins: a test that runs on the pure and on the native implementation.

Promises  `native()` is the extension whatever `MOORAGE_PURE` says; where it was not built the test is
          skipped and says so, except in CI, where that is a failure: a build without it must be visible.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

from moorage.twins import choose

PURE, NATIVE = "pure", "native"
#: for `@pytest.fixture(params=BOTH)`
BOTH = [PURE, NATIVE]


def native() -> Any:
    """The module of the native twins."""
    engine, why = choose({})
    if engine is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no native twins here: {why}")
    return engine


@contextlib.contextmanager
def clock_of_natives(clock: Callable[[], float]) -> Iterator[None]:
    """Within, the native twins read this clock, where there are any."""
    engine, _ = choose({})
    if engine is None:
        yield
        return
    engine.use_clock(clock)
    try:
        yield
    finally:
        engine.use_clock(None)


def twin(kind: str, pure: str) -> Any:
    """The module with the twins of a kind; `pure` names the one in Python."""
    return native() if kind == NATIVE else import_module(pure)
