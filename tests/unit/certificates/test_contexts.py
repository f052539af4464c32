"""Contexts: what the settings of a listener make of a context of OpenSSL's."""

import os
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest

from moorage.certificates.contexts import (
    cipher_warnings,
    date,
    ends_of_authorities,
    furnish,
    new_context,
    open_key_log,
    read_authorities,
    whose,
)
from moorage.config import ListenerSettings
from moorage.errors import SettingError
from support.certificates import authority, certificates, client_context, issue, shake_hands

NOW = 1_700_000_000.0


def settings(**values: Any) -> ListenerSettings:
    return ListenerSettings(**{"bind": "127.0.0.1:0", **values})


def context(**values: Any) -> ssl.SSLContext:
    """A whole context, with the certificate of the tests."""
    chosen = settings(**values)
    made = new_context(chosen)
    made.load_cert_chain(certificates().server.cert, certificates().server.key)
    furnish(made, chosen, read_authorities(chosen, NOW))
    return made


def test_setting_is_named_with_its_listener() -> None:
    assert whose("tls_cert", settings()) == "tls_cert of 127.0.0.1:0"


def test_date_is_in_universal_time() -> None:
    assert date(NOW) == "2023-11-14 22:13 UTC"


def test_every_context_refuses_renegotiation_and_compression() -> None:
    made = new_context(settings())
    assert made.options & ssl.OP_NO_RENEGOTIATION
    assert made.options & ssl.OP_NO_COMPRESSION


def test_minimum_version_is_kept() -> None:
    old = client_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    asking, _ = shake_hands(context(), old)
    assert asking.version() == "TLSv1.2"
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        shake_hands(context(tls_min_version="1.3"), old)


def test_versions_before_12_are_refused() -> None:
    assert new_context(settings()).minimum_version is ssl.TLSVersion.TLSv1_2


def test_alpn_takes_the_first_of_ours_that_the_client_has() -> None:
    server, client = context(tls_alpn=("mllp", "echo")), client_context()
    client.set_alpn_protocols(["echo", "mllp"])
    asking, answering = shake_hands(server, client)
    assert asking.selected_alpn_protocol() == answering.selected_alpn_protocol() == "mllp"


def test_alpn_in_which_none_is_common_is_no_obstacle() -> None:
    client = client_context()
    client.set_alpn_protocols(["h2"])
    asking, _ = shake_hands(context(tls_alpn=("echo",)), client)
    assert asking.selected_alpn_protocol() is None


@pytest.mark.parametrize("word", ["", "x" * 256, "é"])
def test_alpn_that_is_no_protocol_is_named(word: str) -> None:
    with pytest.raises(SettingError, match=r"^tls_alpn of 127\.0\.0\.1:0 names .*1 to 255 ASCII characters$"):
        new_context(settings(tls_alpn=("echo", word)))


def test_ciphers_are_those_of_the_setting() -> None:
    client = client_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    asking, _ = shake_hands(context(tls_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"), client)
    assert asking.cipher() == ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", 128)


@pytest.mark.parametrize("text", ["NONSENSE", "TLS_AES_128_GCM_SHA256", "é", "ALL:@SECLEVEL=9"])
def test_ciphers_without_a_cipher_are_named(text: str) -> None:
    with pytest.raises(
        SettingError, match=r"^tls_ciphers of 127\.0\.0\.1:0 is .*, in which there is no cipher"
    ) as raised:
        new_context(settings(tls_ciphers=text))
    assert "`openssl ciphers -v 'ALL'` lists them" in str(raised.value)


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ({}, None),
        ({"tls_ciphers": "ECDHE+AESGCM"}, None),
        ({"tls_ciphers": "ALL:eNULL"}, "which does not protect a connection"),
        ({"tls_ciphers": "ALL"}, "which does not protect a connection"),
        ({"tls_ciphers": "ECDHE+AESGCM", "tls_min_version": "1.3"}, "says nothing, since tls_min_version is 1.3"),
    ],
)
def test_odd_ciphers_are_a_warning(values: dict[str, Any], warning: str | None) -> None:
    chosen = settings(**values)
    found = cipher_warnings(chosen, new_context(chosen))
    assert [warning in sentence for sentence in found if warning] == [True] * bool(warning)
    assert bool(found) == bool(warning)


def test_required_client_certificate_lets_in_who_has_one() -> None:
    server = context(tls_client_ca=certificates().ca, tls_verify="required")
    _, answering = shake_hands(server, client_context(certificates().client))
    shown = answering.getpeercert()
    assert shown is not None
    assert (("commonName", "device-1"),) in shown["subject"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("verify", ["required", "optional"])
def test_client_certificate_of_a_strange_authority_is_refused(version: ssl.TLSVersion, verify: str) -> None:
    server = context(tls_client_ca=certificates().ca, tls_verify=verify)
    client = client_context(certificates().stranger)
    client.maximum_version = version
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(server, client)


def test_required_client_certificate_is_missed() -> None:
    server = context(tls_client_ca=certificates().ca, tls_verify="required")
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(server, client_context())


def test_optional_client_certificate_is_not_missed() -> None:
    server = context(tls_client_ca=certificates().ca, tls_verify="optional")
    _, answering = shake_hands(server, client_context())
    assert answering.getpeercert() is None


def test_issuing_authority_alone_is_enough_to_know_a_client(tmp_path: Path) -> None:
    """Of an authority that another one signed, without that other one."""
    issuing = authority().create_child_ca()
    (tmp_path / "ca.pem").write_bytes(issuing.cert_pem.bytes())
    device = issuing.issue_cert(common_name="device-2")
    client = client_context()
    device.configure_cert(client)
    server = context(tls_client_ca=str(tmp_path / "ca.pem"), tls_verify="required")
    _, answering = shake_hands(server, client)
    assert answering.getpeercert()


def test_no_authorities_are_read_where_no_client_is_checked() -> None:
    assert read_authorities(settings(), NOW) is None


def test_text_around_authorities_may_be_in_any_language(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(f"# Behörde\n{Path(certificates().ca).read_text()}\n# é\n")
    assert context(tls_client_ca=str(path), tls_verify="required").cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "holds no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read: it is damaged"),
        (b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----\n", "cannot be read: it is damaged"),
    ],
)
def test_file_without_authorities_is_named(tmp_path: Path, text: bytes, what: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(text)
    with pytest.raises(SettingError, match=f"^tls_client_ca of 127.0.0.1:0: {path} .*{what}"):
        read_authorities(settings(tls_client_ca=str(path)), NOW)


def test_authorities_that_have_all_expired_let_nobody_in() -> None:
    with pytest.raises(SettingError, match=r"ca\.pem expired on 3000-01-01 00:00 UTC, and no client would be let in"):
        read_authorities(settings(tls_client_ca=certificates().ca), 32503680000.0)


def test_ends_are_those_of_authorities_only() -> None:
    leaf = issue("localhost").cert_chain_pems[0].bytes().decode()
    assert ends_of_authorities(leaf) == {}
    (end,) = ends_of_authorities(leaf + Path(certificates().ca).read_text()).values()
    assert date(end) == "3000-01-01 00:00 UTC"


def test_key_log_is_made_for_this_user_alone_and_is_filled(tmp_path: Path) -> None:
    chosen = settings(tls_key_log=str(tmp_path / "keys.log"))
    before = os.umask(0)
    try:
        (warning,) = open_key_log(chosen)
        made = context(tls_key_log=str(tmp_path / "keys.log"))
    finally:
        os.umask(before)
    assert "whoever reads it reads all traffic" in warning
    assert stat.S_IMODE((tmp_path / "keys.log").stat().st_mode) == 0o600
    shake_hands(made, client_context())
    assert "SERVER_HANDSHAKE_TRAFFIC_SECRET" in (tmp_path / "keys.log").read_text()


def test_key_log_that_others_may_read_is_a_warning_more(tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    path.write_text("")
    path.chmod(0o644)
    assert open_key_log(settings(tls_key_log=str(path)))[1].endswith(f"chmod 600 {path}")


@pytest.mark.parametrize(
    ("name", "what"),
    [("", "Is a directory"), ("no/keys.log", "No such file or directory"), ("pipe", "(No such device|is no regular)")],
)
def test_key_log_that_cannot_be_written_is_named(tmp_path: Path, name: str, what: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingError, match=f"^tls_key_log of 127.0.0.1:0: .*{what}"):
        open_key_log(settings(tls_key_log=str(tmp_path / name)))


def test_no_key_log_is_no_file() -> None:
    assert open_key_log(settings()) == ()
