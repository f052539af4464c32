"""Pem: a file with certificates or keys, and the sentence for each way in which it may be none."""

import os
import ssl
from pathlib import Path

import pytest

from moorage.certificates.pem import MOST_BYTES, Pem, is_open_to_others, read_pem, user_name
from moorage.errors import SettingError
from support.certificates import certificates

NAME = "tls_cert of 127.0.0.1:0"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


def pem(tmp_path: Path, text: str | bytes) -> Pem:
    path = tmp_path / "x.pem"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_pem(NAME, str(path))


def refusal(path: Path | str) -> str:
    with pytest.raises(SettingError) as raised:
        read_pem(NAME, str(path))
    return str(raised.value)


def test_file_with_both_has_both(tmp_path: Path) -> None:
    found = pem(tmp_path, f"Subject: é\n{CERTIFICATE}{CERTIFICATE}{KEY}")
    assert found.need_certificates() == [CERTIFICATE.strip()] * 2
    assert found.has_key
    found.need_key()


def test_missing_file_is_said_with_setting_and_path(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.pem") == (
        f"{NAME}: {tmp_path}/no.pem does not exist: correct the path, or make the file"
    )


def test_link_to_nowhere_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "link.pem").symlink_to("gone.pem")
    assert "does not exist" in refusal(tmp_path / "link.pem")


def test_folder_is_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith("is a folder: name the file in it")


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is no regular file" in refusal(tmp_path / "pipe")


def test_endless_device_is_not_read() -> None:
    assert "is no regular file" in refusal("/dev/zero")


def test_large_file_is_read_up_to_the_bound_only(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert "is larger than 1024 KiB" in refusal(tmp_path / "large")


def test_file_of_another_user_names_the_user_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("moorage.certificates.pem.os.open", refuse)  # the tests may run as root
    assert f"may not be read by the user {user_name()}: let that user read it" in refusal("/etc/key.pem")


def test_other_fault_of_the_system_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "loop.pem").symlink_to("loop.pem")
    assert "cannot be read (Too many levels of symbolic links)" in refusal(tmp_path / "loop.pem")


def test_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.certificates.pem.os.geteuid", lambda: 4_000_000_000)
    assert user_name() == "4000000000"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "holds no PEM certificate"),
        ("hello", "holds no PEM certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA", "holds no PEM certificate"),
        (KEY, "holds a key and no certificate"),
        (CERTIFICATE.replace("CERTIFICATE", "CERTIFICATE REQUEST"), "is a request for a certificate"),
        (ssl.PEM_cert_to_DER_cert(CERTIFICATE) + b"\x30", "holds no PEM certificate"),
        (b"\x30\x82\x01\x01", "openssl x509 -inform der -in"),
    ],
)
def test_file_without_certificate_says_what_it_is(tmp_path: Path, text: str | bytes, what: str) -> None:
    with pytest.raises(SettingError, match=what):
        pem(tmp_path, text).need_certificates()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "holds no PEM key"),
        (CERTIFICATE, "holds a certificate and no key"),
        (KEY.replace("PRIVATE", "OPENSSH PRIVATE"), "holds a key of OpenSSH"),
        (KEY.replace("PRIVATE", "PUBLIC"), "holds no PEM key"),
        (b"\x30\x82\x01\x01", "openssl pkey -inform der -in"),
    ],
)
def test_file_without_key_says_what_it_is(tmp_path: Path, text: str | bytes, what: str) -> None:
    with pytest.raises(SettingError, match=what):
        pem(tmp_path, text).need_key()


def test_key_of_every_kind_is_a_key(tmp_path: Path) -> None:
    for kind in ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"):
        assert pem(tmp_path, KEY.replace("PRIVATE KEY", kind)).has_key


@pytest.mark.parametrize(
    ("mode", "is_open"), [(0o600, False), (0o640, False), (0o660, False), (0o644, True), (0o602, True), (0o601, False)]
)
def test_open_is_what_others_may_read_or_write(mode: int, is_open: bool) -> None:
    assert is_open_to_others(mode) == is_open


def test_permissions_are_those_of_the_file(tmp_path: Path) -> None:
    assert not read_pem(NAME, certificates().server.key).is_open
    path = tmp_path / "x.pem"
    path.write_text(KEY)
    path.chmod(0o644)
    assert read_pem(NAME, str(path)).is_open
