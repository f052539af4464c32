"""Deadlines: which of them are missed, and where they are not."""

from typing import Any

import pytest

from moorage.config import ServerSettings
from moorage.config.values import kind, names
from moorage.doctor.deadlines import MISSED, check_deadlines, check_observed
from support.patients import machine, only, settings, told

TLS = {"tls_cert": "/a.pem"}
PROXY = {"proxy_protocol": "required", "proxy_trusted": "10.0.0.1"}


def test_defaults_miss_no_deadline() -> None:
    assert not list(check_deadlines(settings(), machine()))


@pytest.mark.parametrize("name", ["idle_timeout", "message_timeout", "write_timeout", "drain_timeout"])
@pytest.mark.parametrize("runner", ["threads", "fibers", "forks", "inline"])
def test_deadline_that_always_matters_is_a_warning(name: str, runner: str) -> None:
    finding = only(check_deadlines(settings(runner=runner, **{name: "off"}), machine()))
    assert (finding.level.name, finding.setting, finding.value) == ("WARNING", name, "off")
    assert finding.fix.startswith(f"{name} = {getattr(ServerSettings(), name):g}s")


@pytest.mark.parametrize(
    ("name", "without", "matters"),
    [
        ("setup_timeout", {}, TLS),
        ("setup_timeout", {}, PROXY),
        ("first_data_timeout", {}, {"wait_for_data": True}),
        ("queue_timeout", {"runner": "fibers"}, {"runner": "threads"}),
    ],
)
def test_deadline_is_missed_only_where_it_matters(name: str, without: dict[str, Any], matters: dict[str, Any]) -> None:
    off: dict[str, Any] = {name: "off"}
    assert not list(check_deadlines(settings(**off, **without), machine()))
    assert [setting for _, setting in told(check_deadlines(settings(**off, **matters), machine()))] == [name]


def test_every_deadline_that_can_be_off_is_looked_at_or_is_off_by_default() -> None:
    can_be_off = {
        name for name in names(ServerSettings)
        if kind(ServerSettings, name).name == "time" and getattr(ServerSettings(), name) is not None
        and kind(ServerSettings, name).optional
    }  # fmt: skip
    assert can_be_off == {name for name, *_ in MISSED}


def test_policies_on_trial_are_a_note() -> None:
    finding = only(check_observed(settings(observe_only="rules min_rate"), machine()))
    assert (finding.level.name, finding.value) == ("NOTE", "rules min_rate")
    assert not list(check_observed(settings(), machine()))
