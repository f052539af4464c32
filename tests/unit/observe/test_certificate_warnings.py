"""Certificate warnings: each once, at the start and when certificates were loaded anew."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from moorage.events import CertificatesLoaded, Events
from moorage.observe.certificate_warnings import CertificateWarnings, warn_of_certificates

OPEN = "any user of this host may read the key"


def loaded(*sentences: str) -> Any:
    """As each load makes it: a tuple of its own."""
    return SimpleNamespace(warnings=sentences)


def listening(certificates: Any) -> Any:
    return SimpleNamespace(certificates=certificates)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Since the last call."""
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


def test_warning_is_said_once_however_often_it_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    warnings, listener = CertificateWarnings(), listening(loaded("a", "b"))
    warnings.say([listener, listening(None)])
    assert said(caplog) == ["a", "b"]
    warnings.say([listener])
    assert said(caplog) == []


def test_listeners_of_the_same_certificates_say_it_once(caplog: pytest.LogCaptureFixture) -> None:
    shared = loaded("a")
    CertificateWarnings().say([listening(shared), listening(shared), listening(loaded("a"))])
    assert said(caplog) == ["a"]


def test_same_fault_of_new_certificates_is_said_again_and_that_of_others_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warnings, one, other = CertificateWarnings(), listening(loaded(OPEN)), listening(loaded("other"))
    warnings.say([one, other])
    said(caplog)
    one.certificates = loaded(OPEN)
    warnings.say([one, other])
    assert said(caplog) == [OPEN]


def test_server_of_its_own_warns_at_its_start_and_after_a_renewal(caplog: pytest.LogCaptureFixture) -> None:
    events, one = Events(), listening(loaded())
    warn_of_certificates([one, listening(None)], events, is_worker=False)
    assert said(caplog) == []
    one.certificates = loaded("expires on Monday")
    events.emit(CertificatesLoaded(("a.pem",), 0.0))
    assert said(caplog) == ["expires on Monday"]


def test_worker_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    warn_of_certificates([listening(loaded("a"))], events, is_worker=True)
    assert said(caplog) == []
    assert CertificatesLoaded not in events.wanted


def test_server_without_tls_hears_of_no_renewals() -> None:
    events = Events()
    warn_of_certificates([listening(None)], events, is_worker=False)
    assert CertificatesLoaded not in events.wanted
