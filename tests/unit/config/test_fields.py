"""Fields: what each declaration says of a setting."""

from dataclasses import dataclass, fields
from typing import Any

from moorage.config.fields import LEAST_RATE, LONGEST, MIB, duration, networks, rate, setting, time_limit


@dataclass(frozen=True)
class Example:
    plain: int = setting(3, "what it does", "when to change it", "bytes", least=1, most=MIB)
    limit: float | None = time_limit(None, "what it does", "when")
    pause: float = duration(0.0, "what it does", "when")
    pace: float | None = rate("what it does", "when")
    places: tuple[str, ...] = networks("what it does", "when")


FOUND: dict[str, Any] = {field.name: field.metadata for field in fields(Example)}


def test_setting_has_help_change_unit_and_range() -> None:
    assert FOUND["plain"] == {
        "help": "what it does",
        "change": "when to change it",
        "unit": "bytes",
        "limits": {"gt": None, "ge": 1, "le": MIB},
    }


def test_time_limit_is_above_zero_and_a_duration_may_be_zero() -> None:
    assert FOUND["limit"]["limits"] == {"gt": 0, "ge": None, "le": LONGEST}
    assert FOUND["pause"]["limits"] == {"gt": None, "ge": 0, "le": LONGEST}
    assert FOUND["limit"]["unit"] == FOUND["pause"]["unit"] == "s"


def test_rate_is_off_and_networks_are_none_by_default() -> None:
    assert (Example().pace, Example().places) == (None, ())
    assert FOUND["pace"]["limits"] == {"gt": None, "ge": LEAST_RATE, "le": 1e9}
    assert FOUND["places"]["unit"] == "networks"
