"""Examination: the order of the findings, and how they are told."""

import inspect
import json

from moorage import doctor
from moorage.doctor import as_json, as_text, capacity, deadlines, examine, files, memory, network, status, tls
from moorage.doctor.examination import CHECKS
from support.patients import machine, settings

ILL = settings("0.0.0.0:1", idle_timeout="off", max_connections=100_000, control="off")
SMALL = machine(hard_files=100)


def test_every_check_there_is_is_made() -> None:
    rooms = (capacity, deadlines, files, memory, network, tls)
    written = {
        function for room in rooms for name, function in inspect.getmembers(room, inspect.isfunction)
        if name.startswith("check_") and function.__module__ == room.__name__
    }  # fmt: skip
    assert written == set(CHECKS)


def test_findings_are_told_once_the_worst_first() -> None:
    found = examine(settings(["0.0.0.0:1", "0.0.0.0:2"], max_connections=1000), machine(hard_files=100))
    assert len(found) == len(set(found))
    assert [finding.level for finding in found] == sorted((finding.level for finding in found), reverse=True)


def test_status_is_1_from_a_warning_on() -> None:
    assert status(examine(ILL, SMALL)) == 1
    assert status(examine(settings("0.0.0.0:1", control="off"), machine())) == 0
    assert status([]) == 0


def test_text_has_three_lines_for_each_finding_and_counts_them() -> None:
    found = examine(ILL, SMALL)
    lines = list(as_text(found))
    assert lines[0].startswith("error    max_connections = 100000 (the argument max_connections)")
    assert lines[1].startswith("         100000 connections need 100064 open files")
    assert lines[2].startswith("         fix: LimitNOFILE=100064")
    assert len(lines) == 4 * len(found) + 1
    assert lines[-1] == "1 error, 1 warning, 3 notes"
    assert list(as_text([])) == ["nothing was found that will go wrong"]


def test_json_has_every_part_of_every_finding() -> None:
    found = examine(ILL, SMALL)
    told = json.loads(as_json(found))
    assert told["status"] == 1
    assert [one["level"] for one in told["findings"]] == [finding.level.name.lower() for finding in found]
    assert all(set(one) == {"level", "what", "setting", "value", "place", "fix"} for one in told["findings"])


def test_names_of_the_room_are_there() -> None:
    assert all(hasattr(doctor, name) for name in doctor.__all__)
