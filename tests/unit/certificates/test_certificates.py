"""Certificates: the names of the package, and that a listener without TLS pays for nothing."""

import subprocess
import sys

import pytest

import moorage.certificates as package
from moorage.certificates import Certificates, load_certificates
from moorage.config import ListenerSettings
from moorage.errors import SettingError
from support.certificates import certificates, client_context, shake_hands
from support.sockets import PATIENCE


def test_listener_without_certificate_has_none() -> None:
    assert load_certificates(ListenerSettings()) is None


def test_listener_with_certificate_has_it() -> None:
    server = certificates().server
    made = load_certificates(ListenerSettings(tls_cert=(server.cert,), tls_key=(server.key,)))
    assert isinstance(made, Certificates)
    assert made.warnings == ()
    asking, _ = shake_hands(made.context(), client_context())
    assert asking.getpeercert()


def test_mistake_is_told_when_they_are_made() -> None:
    expired = certificates().expired
    with pytest.raises(SettingError, match=f"^tls_cert of 127.0.0.1:20000: {expired.cert} expired on "):
        load_certificates(ListenerSettings(tls_cert=(expired.cert,), tls_key=(expired.key,)))


def test_ssl_is_not_imported_before_there_is_a_certificate() -> None:
    code = (
        "import sys; from moorage.certificates import load_certificates; from moorage.config import ListenerSettings;"
        "load_certificates(ListenerSettings()); assert 'ssl' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=PATIENCE).returncode == 0


def test_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = package.Nothing
