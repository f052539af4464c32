"""Examination: all checks in their order, and what they found as text, as JSON, and as an exit status.

Owns      the list of checks.
Promises  errors come first; the same finding is told once; the status is 0 when nothing is worse than a note.
"""

import json
from collections.abc import Callable, Iterator, Sequence

from ..config import Configuration
from .capacity import check_files, check_tasks, check_threads, check_workers
from .deadlines import check_deadlines, check_observed
from .files import check_account, check_control, check_log, check_paths, check_rules, check_settings_file
from .finding import Finding, Level
from .machine import Machine
from .memory import check_memory
from .network import check_exposure, check_options, check_ports, check_proxy, check_queues
from .tls import check_certificates, check_renewal

Check = Callable[[Configuration, Machine], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    check_certificates, check_rules, check_proxy, check_account, check_ports, check_paths, check_log, check_control,
    check_files, check_tasks, check_memory, check_threads, check_workers, check_queues, check_options, check_deadlines,
    check_renewal, check_settings_file, check_exposure, check_observed,
)  # fmt: skip

FINE, FOUND = 0, 1


def examine(configuration: Configuration, machine: Machine) -> list[Finding]:
    """Everything that is found, the worst first."""
    found = [finding for check in CHECKS for finding in check(configuration, machine)]
    return sorted(dict.fromkeys(found), key=lambda finding: -finding.level)


def status(findings: Sequence[Finding]) -> int:
    """0 when nothing is worse than a note, else 1."""
    return FOUND if any(finding.level > Level.NOTE for finding in findings) else FINE


def as_text(findings: Sequence[Finding]) -> Iterator[str]:
    """Lines for people."""
    for finding in findings:
        yield f"{finding.level.name.lower():8} {finding.setting} = {finding.value} ({finding.place})"
        yield f"         {finding.what}"
        yield f"         fix: {finding.fix}"
        yield ""
    yield _summary(findings)


def as_json(findings: Sequence[Finding]) -> str:
    """One object for machines."""
    told = [
        {
            "level": finding.level.name.lower(), "what": finding.what, "setting": finding.setting,
            "value": finding.value, "place": finding.place, "fix": finding.fix,
        }
        for finding in findings
    ]  # fmt: skip
    return json.dumps({"status": status(findings), "findings": told}, indent=2)


def _summary(findings: Sequence[Finding]) -> str:
    counts = [(level, sum(finding.level is level for finding in findings)) for level in sorted(Level, reverse=True)]
    told = [f"{count} {level.name.lower()}{'s' * (count != 1)}" for level, count in counts if count]
    return ", ".join(told) or "nothing was found that will go wrong"
