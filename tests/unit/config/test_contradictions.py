"""Contradictions: one sentence for each, and nothing that is none."""

from typing import Any

import pytest

from moorage.config import ListenerSettings, ServerSettings
from moorage.config.contradictions import OBSERVABLE, check
from moorage.config.fields import LEAST_RATE, MOST_SOCKETS
from moorage.errors import SettingError

TLS: dict[str, Any] = {"tls_cert": ("/a.pem",)}


def check_listener(**settings: Any) -> None:
    check(ServerSettings(), [ListenerSettings(**settings)])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tls_key": ("/a",)}, "tls_key of 127.0.0.1:20000 says nothing without tls_cert"),
        ({"tls_client_ca": "/a"}, "tls_client_ca of 127.0.0.1:20000 says nothing without tls_cert"),
        ({"tls_verify": "required"}, "tls_verify of 127.0.0.1:20000 says nothing without tls_cert"),
        ({"tls_alpn": ("a",)}, "tls_alpn of 127.0.0.1:20000 says nothing without tls_cert"),
        ({"tls_ciphers": "HIGH"}, "tls_ciphers of 127.0.0.1:20000 says nothing without tls_cert"),
        ({"tls_key_log": "/k"}, "tls_key_log of 127.0.0.1:20000 says nothing without tls_cert"),
        ({"tls_mode": "starttls"}, "tls_mode of 127.0.0.1:20000 says nothing without tls_cert"),
        ({"tls_min_version": "1.3"}, "tls_min_version of 127.0.0.1:20000 says nothing without tls_cert"),
        ({**TLS, "tls_key": ("/a", "/b")}, "tls_key of 127.0.0.1:20000 names 2 files and tls_cert 1"),
        ({**TLS, "tls_verify": "optional"}, "tls_verify of 127.0.0.1:20000 is optional, and nobody is trusted"),
        ({**TLS, "tls_client_ca": "/a"}, "tls_client_ca of 127.0.0.1:20000 is given, and no client is asked"),
        ({"proxy_protocol": "required"}, "proxy_protocol of 127.0.0.1:20000 is required, and nobody may send"),
        ({"proxy_protocol": "optional"}, "name the networks of your load balancers in proxy_trusted"),
    ],
)  # fmt: skip
def test_contradiction_of_a_listener_is_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingError) as caught:
        check_listener(**settings)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {**TLS, "tls_key": ("/a",), "tls_alpn": ("a",), "tls_ciphers": "HIGH", "tls_key_log": "/k"},
        {**TLS, "tls_client_ca": "/a", "tls_verify": "optional"},
        {**TLS, "tls_min_version": "1.3", "tls_mode": "starttls", "tls_ciphers": "HIGH"},
        {"proxy_protocol": "required", "proxy_trusted": ("10.0.0.0/8",)},
        {"bind": "unix:/x", "proxy_protocol": "required"},  # its permissions say who may send the header
        {"proxy_trusted": ("10.0.0.0/8",)},
        {"allow": ("10.0.0.0/8",), "deny": ("10.0.0.0/8",)},
    ],
)
def test_settings_that_agree_pass(settings: dict[str, Any]) -> None:
    check_listener(**settings)


def test_same_address_twice_is_refused_save_for_port_zero() -> None:
    twice = [ListenerSettings(bind="127.0.0.1:1"), ListenerSettings(bind="127.0.0.1:01")]
    with pytest.raises(SettingError, match="is given twice: leave one of them out"):
        check(ServerSettings(), twice)
    check(ServerSettings(), [ListenerSettings(bind="127.0.0.1:0")] * 2)


def test_message_without_refusal_says_nothing() -> None:
    with pytest.raises(SettingError, match="overflow is wait: set overflow to refuse"):
        check(ServerSettings(overflow_message=b"busy"), [])
    check(ServerSettings(overflow_message=b"busy", overflow="refuse"), [])


@pytest.mark.parametrize("kind", ["accept", "client"])
def test_burst_that_never_comes_back_is_refused(kind: str) -> None:
    slow: dict[str, Any] = {f"{kind}_rate": LEAST_RATE, f"{kind}_burst": MOST_SOCKETS}
    with pytest.raises(SettingError, match=f"make {kind}_burst smaller, or {kind}_rate greater"):
        check(ServerSettings(**slow), [])
    check(ServerSettings(**slow | {f"{kind}_burst": 1000}), [])
    check(ServerSettings(**slow | {f"{kind}_rate": None}), [])


def test_policy_that_cannot_only_observe_is_named_with_those_that_can() -> None:
    with pytest.raises(
        SettingError, match=r"observe_only names 'idle_timeout', which is none of max_per_client, .*min_rate"
    ):
        check(ServerSettings(observe_only=("rules", "idle_timeout")), [])
    check(ServerSettings(observe_only=OBSERVABLE), [])


def test_help_of_observe_only_names_every_policy() -> None:
    from moorage.config.values import field_of

    text = field_of(ServerSettings, "observe_only").metadata["help"]
    assert all(f"`{policy}`" in text for policy in OBSERVABLE)
