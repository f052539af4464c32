"""Memory: idle connections, then the worst case."""

import pytest

from moorage.config.fields import KIB, MIB
from moorage.doctor.memory import check_memory, idle_bytes, worst_bytes
from support.patients import machine, only, settings

GIB = 1024 * MIB
PLENTY = 1024 * GIB


def test_machine_that_does_not_tell_is_no_finding() -> None:
    assert not list(check_memory(settings(), machine()))
    assert not list(check_memory(settings(), machine(memory=PLENTY, group_memory=PLENTY)))


@pytest.mark.parametrize("facts", [{"memory": 50 * MIB}, {"group_memory": 50 * MIB, "memory": PLENTY}])
def test_idle_connections_that_do_not_fit_are_an_error(facts: dict[str, int]) -> None:
    finding = only(check_memory(settings(max_connections=1000), machine(**facts)))
    assert finding.level.name == "ERROR"
    assert "1000 connections that do nothing take about" in finding.what
    assert "50 MiB are left" in finding.what
    fitting = int(finding.fix.split("max_connections = ")[1].split(",")[0])
    assert 1 <= fitting < 1000


def test_worst_case_that_does_not_fit_is_a_warning_with_its_arithmetic() -> None:
    configuration = settings(max_connections=1000, message_limit="8MiB")
    finding = only(check_memory(configuration, machine(memory=4 * GIB)))
    assert finding.level.name == "WARNING"
    assert "1000 clients that each send the most they may" in finding.what
    assert "take up to 7.9 GiB, and 4 GiB are left" in finding.what
    assert "message_limit (8 MiB now)" in finding.fix


def test_connection_costs_more_by_threads_and_most_by_forks() -> None:
    costs = {
        runner: idle_bytes(settings(runner=runner, max_connections=1000))
        for runner in ("inline", "fibers", "threads", "forks")
    }
    assert costs["inline"] == costs["fibers"] < costs["threads"] < costs["forks"]
    assert 20 * MIB < costs["fibers"] < 100 * MIB
    assert costs["forks"] > 1000 * MIB


def test_threads_that_wait_for_data_cost_for_the_threads_there_are() -> None:
    few = idle_bytes(settings(max_connections=1000, threads=10, wait_for_data=True))
    assert few < idle_bytes(settings(max_connections=1000))
    assert idle_bytes(settings(max_connections=1000, threads=10, workers=100)) > few


def test_tls_and_workers_cost_too() -> None:
    plain = idle_bytes(settings(max_connections=1000))
    assert idle_bytes(settings(max_connections=1000, tls_cert="/a.pem")) > plain + 1000 * 17 * KIB
    assert idle_bytes(settings(max_connections=1000, workers=5)) > plain + 4 * 10 * MIB


def test_buffers_of_the_kernel_count_as_they_are_set_and_not_above_the_kernel_s_own_bound() -> None:
    small = settings(max_connections=100, receive_buffer="8KiB", send_buffer="8KiB", message_limit=1)
    own = machine(own_receive_buffer=6 * MIB, own_send_buffer=4 * MIB, tcp_memory=64 * MIB)
    without = machine(own_receive_buffer=0, own_send_buffer=0)
    plain = settings(max_connections=100, message_limit=1)
    assert worst_bytes(small, own) - worst_bytes(plain, without) == 100 * 32 * KIB
    assert worst_bytes(plain, own) - worst_bytes(plain, without) == 64 * MIB
    free = machine(own_receive_buffer=6 * MIB, own_send_buffer=4 * MIB)
    assert worst_bytes(plain, free) - worst_bytes(plain, without) == 1000 * MIB


def test_longest_line_counts_where_it_is_longer_than_a_message() -> None:
    long = settings(max_connections=100, line_limit="2MiB", message_limit="1MiB")
    assert worst_bytes(long, machine()) - idle_bytes(long) == 200 * MIB
