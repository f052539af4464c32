"""Network: what the kernel clips, and who can reach what."""

from typing import Any

import pytest

from moorage.config import Listener
from moorage.doctor.network import check_exposure, check_options, check_ports, check_proxy, check_queues
from support.patients import machine, only, settings, told

WORLD = "0.0.0.0:20000"


def test_backlog_that_the_kernel_clips_is_a_note_by_default_and_a_warning_when_chosen() -> None:
    small = machine(somaxconn=128)
    finding = only(check_queues(settings(), small))
    assert (finding.level.name, finding.setting) == ("NOTE", "backlog of 127.0.0.1:20000")
    assert "clips the backlog to 128" in finding.what
    assert "`sysctl -w net.core.somaxconn=2048`" in finding.fix
    assert told(check_queues(settings("unix:/x", backlog=200), small)) == [("warning", "backlog of unix:/x")]
    assert not list(check_queues(settings(backlog=128), small))


def test_queue_of_handshakes_is_a_warning_only_without_syn_cookies() -> None:
    assert told(check_queues(settings(), machine(syn_backlog=512))) == [("note", "backlog of 127.0.0.1:20000")]
    bare = machine(syn_backlog=512, has_syn_cookies=False)
    assert "tcp_max_syn_backlog=2048" in only(check_queues(settings(), bare)).fix
    assert told(check_queues(settings(), bare)) == [("warning", "backlog of 127.0.0.1:20000")]
    assert not list(check_queues(settings("unix:/x"), bare))


@pytest.mark.parametrize(
    ("given", "facts", "fix"),
    [
        ({"receive_buffer": "1MiB"}, {"receive_buffer": 212992}, "net.core.rmem_max=1048576"),
        ({"send_buffer": "1MiB"}, {"send_buffer": 212992}, "net.core.wmem_max=1048576"),
        ({"fast_open": 5}, {"fast_open": 1}, "net.ipv4.tcp_fastopen=3"),
        ({"fast_open": 5}, {"fast_open": 0}, "net.ipv4.tcp_fastopen=2"),
    ],
)
def test_option_that_the_kernel_clips_or_ignores_is_a_warning(
    given: dict[str, Any], facts: dict[str, int], fix: str
) -> None:
    finding = only(check_options(settings(**given), machine(**facts)))
    assert finding.level.name == "WARNING"
    assert fix in finding.fix
    assert not list(check_options(settings(**given), machine()))
    assert not list(check_options(settings("unix:/x", **given), machine(**facts)))
    assert not list(check_options(settings(), machine(**facts)))


def test_option_that_the_kernel_grants_is_no_finding() -> None:
    granted = machine(receive_buffer=1 << 20, send_buffer=1 << 20, fast_open=3)
    assert not list(check_options(settings(receive_buffer="1MiB", send_buffer="1MiB", fast_open=5), granted))


def test_port_that_only_root_may_have_is_an_error() -> None:
    plain = machine(may_bind_low=False)
    finding = only(check_ports(settings("127.0.0.1:443"), plain))
    assert finding.level.name == "ERROR"
    assert "may not listen on port 443" in finding.what
    assert "a port of 1024 or above" in finding.fix
    assert not list(check_ports(settings("127.0.0.1:443"), machine()))
    assert not list(check_ports(settings(["127.0.0.1:0", "127.0.0.1:1024", "unix:/x"]), plain))
    assert not list(check_ports(settings("127.0.0.1:443"), machine(may_bind_low=False, first_free_port=0)))


def test_address_that_all_can_reach_in_plain_text_is_a_note() -> None:
    for bind in (WORLD, "[::]:20000"):
        assert ("note", "bind") in told(check_exposure(settings(bind), machine()))
    for given in ({"allow": "10.0.0.0/8"}, {"deny": "all"}, {"rules_file": "/r"}, {"tls_cert": "/a"}):
        assert ("note", "bind") not in told(check_exposure(settings(WORLD, **given), machine()))
    assert ("note", "bind") not in told(check_exposure(settings("192.0.2.1:20000"), machine()))


def test_client_that_may_take_all_places_is_a_note_where_others_can_come() -> None:
    for bind in (WORLD, "192.0.2.1:1", "example.org:1"):
        assert ("note", "max_per_client") in told(check_exposure(settings(bind), machine()))
        assert ("note", "max_per_client") not in told(check_exposure(settings(bind, max_per_client=9), machine()))
    for bind in ("127.0.0.1:1", "[::1]:1", "localhost:1", "a.localhost:1", "unix:/x"):
        assert not list(check_exposure(settings(bind), machine()))


def test_name_without_a_path_is_a_note() -> None:
    assert told(check_exposure(settings("unix:@x"), machine())) == [("note", "bind")]


def test_metrics_that_others_can_reach_are_a_warning() -> None:
    assert told(check_exposure(settings(metrics=WORLD), machine())) == [("warning", "metrics")]
    for own in ("127.0.0.1:9100", "unix:/run/metrics"):
        assert not list(check_exposure(settings(metrics=own), machine()))


@pytest.mark.parametrize(
    ("trusted", "level"),
    [("0.0.0.0/0", "error"), ("::/0", "error"), ("all", "error"), ("8.0.0.0/7", "warning"), ("2000::/3", "warning")],
)
def test_network_of_load_balancers_that_is_too_wide_is_found(trusted: str, level: str) -> None:
    given = {"proxy_protocol": "required", "proxy_trusted": ["10.0.0.0/8", trusted, "2001:db8::/32"]}
    assert told(check_proxy(settings(WORLD, **given), machine())) == [(level, f"proxy_trusted of {WORLD}")]
    assert not list(check_proxy(settings("127.0.0.1:1", **given), machine()))


def test_too_wide_network_is_found_where_the_address_is_not_known() -> None:
    passed_on = Listener("systemd:web", proxy_protocol="required", proxy_trusted=("all",))
    assert told(check_proxy(settings([passed_on]), machine())) == [("error", "proxy_trusted of systemd:web")]


def test_trusted_networks_without_proxy_are_a_note() -> None:
    assert told(check_proxy(settings(proxy_trusted="all"), machine())) == [("note", "proxy_trusted of 127.0.0.1:20000")]
    assert not list(check_proxy(settings([Listener("unix:/x", proxy_protocol="required")]), machine()))
