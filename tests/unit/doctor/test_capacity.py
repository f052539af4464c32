"""Capacity: descriptors, processes and threads."""

from typing import Any

import pytest

from moorage.doctor.capacity import busy, check_files, check_tasks, check_threads, check_workers, tasks
from moorage.doctor.machine import Account
from support.patients import machine, only, settings, told


def test_hard_limit_of_open_files_that_is_too_low_says_by_how_much() -> None:
    finding = only(check_files(settings(max_connections=1000), machine(hard_files=512)))
    assert finding.level.name == "ERROR"
    assert "1000 connections need 1064 open files, and this process may have 512" in finding.what
    assert "LimitNOFILE=1064" in finding.fix
    assert finding.fix.endswith("max_connections = 448")


@pytest.mark.parametrize("hard", [None, 1064, 5000])
def test_hard_limit_of_open_files_that_does_is_no_finding(hard: int | None) -> None:
    assert not list(check_files(settings(max_connections=1000), machine(hard_files=hard, soft_files=10)))


def test_forks_need_two_files_for_each() -> None:
    small = machine(hard_files=1100)
    assert not list(check_files(settings(max_connections=500, runner="forks"), small))
    assert told(check_files(settings(max_connections=600, runner="forks"), small)) == [("error", "max_connections")]


def test_fibers_that_are_fewer_for_their_files_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 4096))
    assert told(check_files(settings(runner="fibers"), machine(hard_files=4096))) == [("note", "max_connections")]
    assert not list(check_files(settings(runner="fibers", max_connections=100), machine(hard_files=4096)))


@pytest.mark.parametrize(
    ("given", "at_once"),
    [
        ({"max_connections": 100}, 117),
        ({"max_connections": 100, "workers": 4}, 120),
        ({"max_connections": 100, "threads": 10, "workers": 4}, 60),
        ({"max_connections": 100, "threads": 50, "workers": 4}, 120),
        ({"max_connections": 100, "runner": "forks"}, 117),
        ({"max_connections": 100, "runner": "fibers"}, 17),
        ({"max_connections": 100, "runner": "inline"}, 17),
    ],
)
def test_tasks_are_counted_for_each_runner(given: dict[str, Any], at_once: int) -> None:
    assert tasks(settings(**given)) == at_once
    assert busy(settings(**given)) <= 100


@pytest.mark.parametrize(
    ("facts", "fix"),
    [
        ({"user_tasks": 50}, "LimitNPROC=117"),
        ({"group_tasks": 50}, "TasksMax=117"),
        ({"system_tasks": 50}, "kernel.threads-max=117"),
    ],
)
def test_every_limit_of_tasks_is_looked_at(facts: dict[str, int], fix: str) -> None:
    finding = only(check_tasks(settings(max_connections=100), machine(**facts)))
    assert (finding.level.name, finding.setting) == ("ERROR", "max_connections")
    assert "117 processes and threads are needed" in finding.what
    assert fix in finding.fix
    assert only(check_tasks(settings(threads=100), machine(**facts))).setting == "threads"
    assert not list(check_tasks(settings(runner="fibers"), machine(**facts)))


def test_limit_of_a_user_s_tasks_does_not_bind_root() -> None:
    root = Account("root", 0, frozenset({0}))
    assert not list(check_tasks(settings(), machine(user_tasks=50, account=root)))


def test_more_workers_than_cpus_is_a_note() -> None:
    assert told(check_workers(settings(workers=3), machine(cpus=2))) == [("note", "workers")]
    assert not list(check_workers(settings(workers=2), machine(cpus=2)))


def test_few_threads_for_many_places_is_a_warning_where_the_client_may_be_mute() -> None:
    assert told(check_threads(settings(threads=5), machine())) == [("warning", "threads")]
    assert not list(check_threads(settings(threads=5, wait_for_data=True), machine()))
    assert not list(check_threads(settings(), machine()))
