"""TLS: the trial of the start, made before it; and who may read the files later."""

from pathlib import Path

import pytest

from moorage.doctor.tls import check_certificates, check_renewal
from support import certificates
from support.patients import Files, machine, only, settings, told


@pytest.fixture
def made(tmp_path: Path) -> certificates.Files:
    return certificates.write(certificates.issue("localhost"), tmp_path)


def test_certificate_that_will_do_is_no_finding(made: certificates.Files) -> None:
    assert not list(check_certificates(settings(tls_cert=made.cert, tls_key=made.key), machine()))
    assert not list(check_certificates(settings(), machine()))


def test_certificate_that_has_expired_is_an_error_with_its_setting(tmp_path: Path) -> None:
    old = certificates.write(certificates.issue("localhost", starts=-9000, ends=-3600), tmp_path)
    finding = only(check_certificates(settings(tls_cert=old.cert, tls_key=old.key), machine()))
    assert (finding.level.name, finding.setting) == ("ERROR", "tls_cert of 127.0.0.1:20000")
    assert f"{old.cert} expired on" in finding.what
    assert finding.fix == "renew it"


def test_certificate_that_expires_soon_is_a_warning(tmp_path: Path) -> None:
    soon = certificates.write(certificates.issue("localhost", starts=-300 * 86400, ends=3600), tmp_path)
    finding = only(check_certificates(settings(tls_cert=soon.cert, tls_key=soon.key), machine()))
    assert (finding.level.name, finding.setting) == ("WARNING", "tls_cert of 127.0.0.1:20000")
    assert "expires" in finding.what


def test_key_of_another_certificate_is_an_error(made: certificates.Files, tmp_path: Path) -> None:
    other = certificates.write(certificates.issue("localhost"), tmp_path / "other")
    finding = only(check_certificates(settings(tls_cert=made.cert, tls_key=other.key), machine()))
    assert (finding.level.name, finding.setting) == ("ERROR", "tls_key of 127.0.0.1:20000")
    assert f"{other.key} is not the key of {made.cert}" in finding.what


def test_key_that_others_may_read_is_a_warning_with_the_command(made: certificates.Files) -> None:
    Path(made.key).chmod(0o644)
    finding = only(check_certificates(settings(tls_cert=made.cert, tls_key=made.key), machine()))
    assert (finding.level.name, finding.setting) == ("WARNING", "tls_key of 127.0.0.1:20000")
    assert f"chmod 600 {made.key}" in finding.fix


def test_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    finding = only(check_certificates(settings(tls_cert=f"{tmp_path}/absent.pem"), machine()))
    assert (finding.level.name, finding.setting) == ("ERROR", "tls_cert of 127.0.0.1:20000")
    assert f"{tmp_path}/absent.pem" in finding.what


def test_key_log_is_a_warning_and_is_not_made(made: certificates.Files, tmp_path: Path) -> None:
    log = tmp_path / "keys"
    configuration = settings(tls_cert=made.cert, tls_key=made.key, tls_key_log=str(log))
    assert told(check_certificates(configuration, machine())) == [("warning", "tls_key_log of 127.0.0.1:20000")]
    assert not log.exists()


def test_files_that_who_serves_cannot_read_again_are_warnings(made: certificates.Files) -> None:
    files = Files()
    configuration = settings(tls_cert=made.cert, tls_key=made.key, user="www")
    host = machine(stat=files, starter=0)
    assert not list(check_renewal(configuration, host))
    files.put(made.key, 0o600)
    finding = only(check_renewal(configuration, host))
    assert (finding.level.name, finding.setting) == ("WARNING", "tls_key of 127.0.0.1:20000")
    assert f"www may not read {made.key}" in finding.what
    assert not list(check_renewal(configuration, machine(stat=files)))  # who starts is who serves
    assert not list(check_renewal(configuration, machine(stat=files, starter=0, account=None)))
