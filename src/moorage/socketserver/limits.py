"""Limits: reading a setting that a program may have used as a name of its own.

Owns      the one rule: a value of another kind is not our setting, and the base class's holds.
Promises  `self.threads = []` in a program's `__init__` does not become a number of threads.
Refuses   a number below 1 where a number is asked for: the gate says so.
"""

from typing import Any

__all__ = ["count", "seconds"]


def count(owner: type, holder: Any, name: str) -> Any:
    """A whole number, or what the class `owner` has, which may be None."""
    value = getattr(holder, name)
    return value if isinstance(value, int) and not isinstance(value, bool) else getattr(owner, name)


def seconds(owner: type, holder: Any, name: str) -> float | None:
    """A time, None for none, or what the class `owner` has."""
    value = getattr(holder, name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    chosen: float | None = value if is_number else getattr(owner, name)
    return chosen
