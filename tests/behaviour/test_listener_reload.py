"""What a reload does to listeners that stay: their rules, certificates and owners, with real processes and signals."""

import os
import signal
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import certificates
from support.client import Client
from support.serving import Serving

Start = Callable[..., Serving]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Serving] = []

    def start(settings: str) -> Serving:
        (tmp_path / "moorage.toml").write_text(settings)
        servers.append(Serving("echo", cwd=tmp_path))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def reload(server: Serving, settings: Path, text: str) -> None:
    """Have it reload, and wait until the old worker is gone: for a moment old and new accept."""
    settings.write_text(text)
    server.signal(signal.SIGHUP)
    server.hear("reloaded after")
    server.hear("worker 1 .* ended")


def is_served(address: Any) -> bool:
    try:
        with Client(address) as client:
            return client.ask(b"a") == b"a"
    except ConnectionError:
        return False


def test_reload_gives_the_same_socket_new_rules_and_refuses_bad_ones(start: Start, tmp_path: Path) -> None:
    settings, rules = tmp_path / "moorage.toml", tmp_path / "rules"
    rules.write_text("allow 127.0.0.0/8\n")
    plain = f"bind = '127.0.0.1:0'\nrules_file = '{rules}'\n"
    server = start(plain)
    address = server.address()
    assert is_served(address)
    reload(server, settings, plain + "deny = ['127.0.0.1']\n")
    assert not is_served(address)
    rules.write_text("allow 127.0.0.0/8\nalow ::1\n")
    settings.write_text(plain)
    server.signal(signal.SIGHUP)
    server.hear(f"ERROR .*reload failed.*{rules}, line 2")
    assert not is_served(address)  # those of the last reload
    rules.write_text("allow 127.0.0.0/8\n")
    reload(server, settings, plain)
    assert is_served(address)


def test_reload_gives_the_same_socket_another_certificate(start: Start, tmp_path: Path) -> None:
    one = certificates.write(certificates.issue("one.example"), tmp_path, "one")
    two = certificates.write(certificates.issue("two.example"), tmp_path, "two")
    common, settings = "bind = '127.0.0.1:0'\n", tmp_path / "moorage.toml"
    server = start(f"{common}tls_cert = '{one.cert}'\ntls_key = '{one.key}'\n")
    address = server.address()
    assert shown(address) == certificate_in(one.cert)
    reload(server, settings, f"{common}tls_cert = '{two.cert}'\ntls_key = '{two.key}'\n")
    assert shown(address) == certificate_in(two.cert)
    settings.write_text(f"{common}tls_cert = '{one.cert}'\ntls_key = '{two.key}'\n")
    server.signal(signal.SIGHUP)
    server.hear("ERROR .*reload failed.*is not the key of")
    assert shown(address) == certificate_in(two.cert)


def shown(address: tuple[str, int]) -> str:
    """The certificate that a client gets."""
    return ssl.get_server_certificate(address, timeout=10)


def certificate_in(path: str) -> str:
    """The first one of a file."""
    first = Path(path).read_text().partition("-----END CERTIFICATE-----")
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(first[0] + first[1]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_reload_gives_a_path_to_another_group_and_refuses_an_unknown_one(start: Start, tmp_path: Path) -> None:
    settings, path = tmp_path / "moorage.toml", tmp_path / "a.sock"
    server = start(f"bind = 'unix:{path}'\n")
    address = server.address()
    assert path.stat().st_gid == os.getegid()
    reload(server, settings, f"bind = 'unix:{path}'\nunix_group = '65533'\n")
    assert path.stat().st_gid == 65533
    settings.write_text(f"bind = 'unix:{path}'\nunix_group = 'nobody-at-all'\n")
    server.signal(signal.SIGHUP)
    server.hear("ERROR .*reload failed.*unix_group = 'nobody-at-all'")
    assert path.stat().st_gid == 65533
    assert is_served(address)
