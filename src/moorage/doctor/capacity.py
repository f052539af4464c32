"""Capacity: whether as many connections as are promised find descriptors and threads.

Owns      the checks of open files, and of processes and threads, against every limit there is on them.
Promises  what is counted is the worst case: every place taken at once, by one worker where that can be.
"""

from collections.abc import Iterator

from ..config import Configuration
from ..config.settings import MOST_FIBERS, SPARE_FILES
from ..processes.descriptors import PER_CONNECTION
from .finding import Finding, of_server
from .machine import Machine

#: processes and threads of ours besides those that serve: supervisor, watchdogs, resolvers
SPARE_TASKS = 16


def check_files(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """The hard limit of open files; the soft one is raised at the start."""
    server, hard, where = configuration.server, machine.hard_files, of_server(configuration, "max_connections")
    each = PER_CONNECTION[server.runner]
    wanted = server.max_connections * each + SPARE_FILES
    if hard is None:
        return
    if wanted > hard:
        possible = max(1, (hard - SPARE_FILES) // each)
        yield where.error(
            f"{server.max_connections} connections need {wanted} open files, and this process may have {hard}: "
            f"after about {possible} clients the rest wait in the backlog",
            f"LimitNOFILE={wanted} in the service's unit, `ulimit -Hn {wanted}` as root, or max_connections = {possible}",
        )
    elif server.runner == "fibers" and not where.is_chosen and server.max_connections < MOST_FIBERS:
        wanted = MOST_FIBERS + SPARE_FILES
        yield where.note(
            f"the hard limit of {hard} open files keeps fibers from the {MOST_FIBERS} connections of their default",
            f"LimitNOFILE={wanted} in the service's unit, or `ulimit -Hn {wanted}` as root",
        )


def check_tasks(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Processes and threads, which the kernel counts alike."""
    server = configuration.server
    at_once = tasks(configuration)
    name = {"threads": "threads", "forks": "max_connections"}.get(server.runner, "workers")
    if name == "threads" and server.threads is None:
        name = "max_connections"
    where = of_server(configuration, name)
    is_root = machine.account is not None and machine.account.uid == 0  # whom setrlimit(2) does not bind
    limits = (
        (
            None if is_root else machine.user_tasks,
            "this user",
            f"LimitNPROC={at_once} in the unit, or `ulimit -u {at_once}`",
        ),
        (machine.group_tasks, "this control group", f"TasksMax={at_once} in the service's unit"),
        (machine.system_tasks, "this system", f"`sysctl -w kernel.threads-max={at_once} kernel.pid_max={at_once}`"),
    )
    for limit, whose, fix in limits:
        if limit is not None and limit < at_once:
            yield where.error(
                f"at the most {at_once} processes and threads are needed, and {whose} may have {limit}: "
                "clients above that wait, or are dropped",
                f"{fix}; or a lower {name}, or runner = fibers",
            )


def check_workers(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """More workers than CPUs."""
    if configuration.server.workers > machine.cpus:
        yield of_server(configuration, "workers").note(
            f"{configuration.server.workers} workers share {machine.cpus} CPUs: they gain isolation, and no speed",
            "workers = auto",
        )


def check_threads(configuration: Configuration, machine: Machine) -> Iterator[Finding]:
    """Fewer threads than places, all of which mute clients can hold."""
    server = configuration.server
    if server.runner == "threads" and busy(configuration) < server.max_connections and not server.wait_for_data:
        yield of_server(configuration, "threads").warning(
            f"{server.threads} clients that say nothing hold every thread, and {server.max_connections} may come in",
            "wait_for_data = on where the client speaks first, or threads = off",
        )


def busy(configuration: Configuration) -> int:
    """How many handlers run at once."""
    server = configuration.server
    if server.runner == "inline":
        return min(server.workers, server.max_connections)
    if server.runner == "threads" and server.threads is not None:
        return min(server.threads * server.workers, server.max_connections)
    return server.max_connections


def tasks(configuration: Configuration) -> int:
    """How many processes and threads there are at the most."""
    server = configuration.server
    return server.workers + SPARE_TASKS + (busy(configuration) if server.runner in ("threads", "forks") else 0)
