"""ListenerSettings: what may be chosen for one listener, and where it may be said."""

from pathlib import Path

import pytest

from moorage.config import Listener, ListenerSettings, resolve
from moorage.config.resolve import read
from moorage.config.sources import from_flags
from moorage.config.values import kind, names

#: two values of each setting as text: what all listeners have, and what one has
SAMPLES = {
    "backlog": ("7", "8"), "nodelay": ("off", "on"), "keepalive": ("1/2/3", "4/5/6"), "user_timeout": ("1s", "2s"),
    "v6only": ("off", "on"), "unix_mode": ("0o660", "0o666"), "unix_user": ("0", "1"), "unix_group": ("0", "1"),
    "receive_buffer": ("8KiB", "9KiB"), "send_buffer": ("8KiB", "9KiB"), "defer_accept": ("1s", "2s"),
    "fast_open": ("1", "2"), "allow": ("10.0.0.0/8", "11.0.0.0/8 ::1"), "deny": ("all", "10.1.0.0/16"),
    "rules_file": ("/a", "/b"), "proxy_protocol": ("optional", "required"), "proxy_trusted": ("10.0.0.1", "10.0.0.2"),
    "tls_cert": ("/a.pem", "/b.pem /c.pem"), "tls_key": ("/a.key", "/b.key /c.key"), "tls_mode": ("starttls", "implicit"),
    "tls_client_ca": ("/ca", "/cb"), "tls_verify": ("optional", "required"), "tls_min_version": ("1.3", "1.2"),
    "tls_alpn": ("a", "a b"), "tls_ciphers": ("HIGH", "LOW"), "tls_key_log": ("/k", "/l"),
}  # fmt: skip
#: what a setting makes no sense without
TOGETHER = {
    "proxy_protocol": {"proxy_trusted": "10.0.0.1"},
    "tls_key": {"tls_cert": "/a.pem"},
    "tls_client_ca": {"tls_cert": "/a.pem", "tls_verify": "required"},
    "tls_verify": {"tls_cert": "/a.pem", "tls_client_ca": "/ca"},
    **{
        name: {"tls_cert": "/a.pem"}
        for name in ("tls_alpn", "tls_ciphers", "tls_key_log", "tls_mode", "tls_min_version")
    },
}


def test_every_setting_but_the_address_has_samples() -> None:
    assert SAMPLES.keys() == set(names(ListenerSettings)) - {"bind"}


@pytest.mark.parametrize("name", SAMPLES)
def test_listener_wins_over_what_is_said_for_all(name: str) -> None:
    common, own = SAMPLES[name]
    needed = TOGETHER.get(name, {})
    both = {**needed, "tls_cert": "/b.pem /c.pem"} if name == "tls_key" else needed
    _, (plain, special) = resolve(
        ["127.0.0.1:1", Listener("127.0.0.1:2", **{**both, name: own})], {**needed, name: common}
    )
    assert getattr(plain, name) != getattr(special, name)
    assert getattr(plain, name) != getattr(ListenerSettings(), name) or name == "tls_min_version"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_place_says_the_same(name: str, tmp_path: Path) -> None:
    """A flag, a variable, a key for all, a key of one table, and after the address."""
    text = SAMPLES[name][0]
    needed = {key: value for key, value in TOGETHER.get(name, {}).items() if key != name}
    said = {**needed, name: text}
    lines = "\n".join(f'{key} = "{value}"' for key, value in said.items())
    for_all, for_one = tmp_path / "all.toml", tmp_path / "one.toml"
    for_all.write_text(lines)
    for_one.write_text(f"[[listener]]\nbind = '127.0.0.1:1'\n{lines}")
    bind = ",".join(["127.0.0.1:1", *(f"{key}={value}" for key, value in said.items())])
    variables = {f"MOORAGE_{key.upper()}": value for key, value in said.items()}
    found = {
        getattr(configuration.listeners[0], name)
        for configuration in (
            read(from_flags({}), for_all, {}),
            read(from_flags({}), for_one, {}),
            read(from_flags({}), "/dev/null", variables),
            read(from_flags(said), "/dev/null", {}),
            read(from_flags({}, [bind]), "/dev/null", {}),
        )
    }
    assert len(found) == 1
    assert found != {getattr(ListenerSettings(), name)}


def test_what_is_a_list_says_so_in_its_kind() -> None:
    lists = {
        name for name in names(ListenerSettings) if kind(ListenerSettings, name).name in ("networks", "paths", "words")
    }
    assert lists == {"allow", "deny", "proxy_trusted", "tls_cert", "tls_key", "tls_alpn"}
