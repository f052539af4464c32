"""Listener files: what is read for a listener, when, and that nothing is imported for a plain one."""

import subprocess
import sys
from pathlib import Path

import pytest

from moorage.config import ListenerSettings
from moorage.errors import SettingError
from moorage.listener_files import ListenerFiles, read_files


def test_plain_listener_has_nothing_to_consult() -> None:
    assert read_files(ListenerSettings()) == ListenerFiles(None, None, None)


def test_plain_listener_costs_no_import() -> None:
    code = (
        "import sys, moorage; from moorage.listener import open_listeners; from moorage.config import ListenerSettings;"
        "[one] = open_listeners([ListenerSettings(bind='127.0.0.1:0')]); one.close();"
        "found = {'moorage.rules', 'moorage.freshness', 'moorage.certificates'} & set(sys.modules);"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rules_are_read_from_settings_and_file(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text("deny 10.1.0.0/16\n")
    files = read_files(ListenerSettings(allow=("10.0.0.0/8",), rules_file=str(path)))
    assert files.rules is not None
    assert [files.rules.admits((host, 1)) for host in ("10.0.0.1", "10.1.0.1", "11.0.0.1")] == [True, False, False]
    assert (files.certificates, files.trusted) == (None, None)


def test_trusted_networks_are_there_only_with_proxy() -> None:
    files = read_files(ListenerSettings(proxy_protocol="required", proxy_trusted=("192.0.2.0/24",)))
    assert files.trusted is not None
    assert files.trusted.admits(("192.0.2.7", 1))
    assert not files.trusted.admits(("192.0.3.7", 1))
    assert read_files(ListenerSettings(proxy_trusted=("192.0.2.0/24",))).trusted is None


@pytest.mark.parametrize("setting", ["rules_file", "tls_cert"])
def test_file_that_is_not_there_is_a_sentence_with_its_name(tmp_path: Path, setting: str) -> None:
    path = str(tmp_path / "absent")
    settings = ListenerSettings(rules_file=path) if setting == "rules_file" else ListenerSettings(tls_cert=(path,))
    with pytest.raises(SettingError, match=f"{setting}.*{path}"):
        read_files(settings)
