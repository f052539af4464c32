"""Deadlines: those that are off, and who could then stay for ever.

Owns      what happens without each deadline.
Promises  a deadline that the other settings make needless is not missed.
"""

from collections.abc import Callable, Iterator

from ..config import Configuration, ServerSettings
from .finding import Finding, Level, of_server
from .machine import Machine


def _always(_: Configuration) -> bool:
    return True


def _has_setup(configuration: Configuration) -> bool:
    return any(one.proxy_protocol != "off" or one.tls_cert for one in configuration.listeners)


def _waits_for_data(configuration: Configuration) -> bool:
    return configuration.server.wait_for_data


def _may_queue(configuration: Configuration) -> bool:
    return configuration.server.runner in ("threads", "inline")


#: the deadline, how bad it is without it, whether it matters, and what happens
MISSED: tuple[tuple[str, Level, Callable[[Configuration], bool], str], ...] = (
    ("setup_timeout", Level.WARNING, _has_setup, "a client that stops in the middle of its TLS handshake or PROXY header keeps its place for ever"),
    ("first_data_timeout", Level.WARNING, _waits_for_data, "a client that never says a word keeps its place for ever"),
    ("idle_timeout", Level.WARNING, _always, "a client that goes silent keeps its place for ever, and its thread too"),
    ("message_timeout", Level.WARNING, _always, "a client that sends one byte now and then never trips another deadline, and keeps its place for ever"),
    ("write_timeout", Level.WARNING, _always, "a client that never reads its reply keeps its handler for ever"),
    ("drain_timeout", Level.WARNING, _always, "a stop or a reload waits for the last client, and a service manager kills the server meanwhile"),
    ("stuck_timeout", Level.NOTE, _always, "a worker whose loop stands still is never replaced"),
    ("boot_timeout", Level.NOTE, _always, "a reload whose new worker hangs in an import never ends"),
    ("queue_timeout", Level.NOTE, _may_queue, "a client may wait for a thread for ever"),
)  # fmt: skip


def check_deadlines(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Every deadline of the server that is off, and matters."""
    for name, level, matters, what in MISSED:
        if getattr(configuration.server, name) is None and matters(configuration):
            where, default = of_server(configuration, name), getattr(ServerSettings(), name)
            tell = where.warning if level is Level.WARNING else where.note
            yield tell(what, f"{name} = {default:g}s, or longer: any number is better than none")


def check_observed(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Policies on trial, which may be forgotten there."""
    if configuration.server.observe_only:
        yield of_server(configuration, "observe_only").note(
            "these policies count and log, and refuse nobody", "leave them out of observe_only when the trial is over"
        )
