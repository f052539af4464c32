"""Unit tests of `moorage.socketserver.limits`."""

from typing import Any

import pytest

from moorage.socketserver.limits import count, seconds


class Base:
    """Our class."""

    threads: Any = None
    max_connections: Any = 1024
    drain_timeout: Any = 30.0


class Program(Base):
    """The program's."""


@pytest.mark.parametrize(("value", "read"), [(7, 7), ([], 1024), ("9", 1024), (True, 1024), (None, 1024)])
def test_count_is_a_whole_number_or_the_base_classes(value: Any, read: int) -> None:
    program = Program()
    program.max_connections = value
    assert count(Base, program, "max_connections") == read


def test_count_may_be_none_in_the_base_class() -> None:
    assert count(Base, Program(), "threads") is None


@pytest.mark.parametrize(("value", "read"), [(7, 7), (0.5, 0.5), (None, None), ([], 30.0), (False, 30.0)])
def test_seconds_are_a_number_or_none_or_the_base_classes(value: Any, read: float | None) -> None:
    program = Program()
    program.drain_timeout = value
    assert seconds(Base, program, "drain_timeout") == read
