"""Pair: one certificate with its key, loaded and looked at; `openssl req` makes what trustme does not."""

import re
import ssl
import subprocess
from pathlib import Path
from time import time
from typing import Any

import pytest

from moorage.certificates.contexts import date
from moorage.certificates.pair import DAY, Pair, load_pair
from moorage.config import ListenerSettings
from moorage.errors import SettingError
from support.certificates import (
    HOSTS,
    SECOND_NAMES,
    Files,
    authority,
    certificates,
    client_context,
    issue,
    put,
    shake_hands,
    write,
)

BIND = "127.0.0.1:0"


def load(cert: str, key: str | None = None, at: float | None = None, **values: Any) -> Pair:
    settings = ListenerSettings(bind=BIND, tls_cert=(cert,), tls_key=(key,) if key else (), **values)
    return load_pair(settings, 0, time() if at is None else at)


def refusal(cert: str, key: str | None = None, **values: Any) -> str:
    with pytest.raises(SettingError) as raised:
        load(cert, key, **values)
    return str(raised.value)


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=30)


def requested(folder: Path, *args: str, key: str = "ed25519") -> Files:
    """A certificate that `openssl req` has signed with its own key."""
    files = Files(str(folder / "own.pem"), str(folder / "own-key.pem"))
    openssl("req", "-x509", "-newkey", key, "-nodes", "-keyout", files.key, "-out", files.cert, "-subj", "/CN=x", *args)
    Path(files.key).chmod(0o600)
    return files


def test_pair_knows_its_names_and_its_end() -> None:
    server = certificates().server
    pair = load(server.cert, server.key)
    assert pair.names == ("localhost",)
    assert pair.path == server.cert
    assert abs(pair.expires - time() - 365 * DAY) < DAY
    assert pair.warnings == ()


def test_pair_is_served_to_who_trusts_its_authority() -> None:
    server = certificates().server
    asking, _ = shake_hands(load(server.cert, server.key).context, client_context())
    assert asking.getpeercert()


def test_names_are_all_of_the_certificate() -> None:
    second = certificates().second
    assert load(second.cert, second.key).names == SECOND_NAMES


def test_names_are_told_as_they_are_compared(tmp_path: Path) -> None:
    files = requested(tmp_path, "-addext", "subjectAltName=DNS:WWW.Example.ORG.,DNS:xn--BCHER-kva.example")
    assert load(files.cert, files.key).names == ("www.example.org", "xn--bcher-kva.example")


def test_key_in_the_file_of_the_certificate_is_found() -> None:
    assert load(certificates().in_one).names == ("localhost",)


def test_second_pair_takes_the_second_key() -> None:
    first, second = certificates().first, certificates().second
    settings = ListenerSettings(bind=BIND, tls_cert=(first.cert, second.cert), tls_key=(first.key, second.key))
    assert load_pair(settings, 1, time()).names == SECOND_NAMES


@pytest.mark.parametrize(
    ("kind", "curve"), [("ed25519", ()), ("rsa:2048", ()), ("ec", ("-pkeyopt", "ec_paramgen_curve:P-384"))]
)
def test_key_of_every_kind_is_served(tmp_path: Path, kind: str, curve: tuple[str, ...]) -> None:
    files = requested(tmp_path, *curve, "-addext", "subjectAltName=DNS:own.example", key=kind)
    pair = load(files.cert, files.key)
    client = ssl.create_default_context(cafile=files.cert)
    shake_hands(pair.context, client, "own.example")


def test_certificate_of_an_issuing_authority_is_served_with_its_chain(tmp_path: Path) -> None:
    files = write(authority().create_child_ca().issue_cert("localhost"), tmp_path)
    shake_hands(load(files.cert, files.key).context, client_context())


def test_missing_files_are_named_by_their_settings() -> None:
    server = certificates().server
    assert refusal("/no/cert.pem", server.key).startswith(f"tls_cert of {BIND}: /no/cert.pem does not exist")
    assert refusal(server.cert, "/no/key.pem").startswith(f"tls_key of {BIND}: /no/key.pem does not exist")


def test_certificate_without_key_says_where_to_name_one() -> None:
    assert refusal(certificates().server.cert).endswith("holds no key: name the key's file in tls_key")


def test_settings_that_were_swapped_are_noticed() -> None:
    server = certificates().server
    assert "holds a key and no certificate" in refusal(server.key, server.cert)


def test_key_of_another_certificate_is_refused() -> None:
    server, first = certificates().server, certificates().first
    assert refusal(server.cert, first.key) == (
        f"tls_key of {BIND}: {first.key} is not the key of {server.cert}: name the key it was made with"
    )


def test_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = requested(tmp_path, key="rsa:2048")
    assert "is not the key of" in refusal(certificates().server.cert, other.key)


def test_chain_in_the_wrong_order_gets_a_hint(tmp_path: Path) -> None:
    server = certificates().server
    put(str(tmp_path / "chain.pem"), Path(certificates().ca).read_bytes() + Path(server.cert).read_bytes())
    assert refusal(str(tmp_path / "chain.pem"), server.key).endswith(
        "its own certificate must be the first in the file"
    )


@pytest.mark.parametrize("form", ["pkey", "rsa -traditional"])
def test_key_with_a_password_asks_nobody(tmp_path: Path, form: str) -> None:
    files = requested(tmp_path, key="rsa:2048")
    locked = str(tmp_path / "locked.pem")
    openssl(*form.split(), "-aes256", "-passout", "pass:secret", "-in", files.key, "-out", locked)
    said = refusal(files.cert, locked)
    assert f"{locked} holds a key with a password, which a server cannot be asked for" in said
    assert f"openssl pkey -in {locked} -out NEW.pem" in said


def test_expired_certificate_is_refused_with_its_date() -> None:
    expired = certificates().expired
    said = refusal(expired.cert, expired.key)
    assert said.startswith(f"tls_cert of {BIND}: {expired.cert} expired on {date(time() - DAY)[:10]}")
    assert said.endswith("UTC: renew it")


def test_certificate_of_tomorrow_is_refused_with_its_date(tmp_path: Path) -> None:
    files = write(issue(*HOSTS, starts=DAY), tmp_path)
    assert f"is not valid before {date(time() + DAY)[:10]}" in refusal(files.cert, files.key)


def test_damaged_certificate_is_named(tmp_path: Path) -> None:
    server = certificates().server
    put(str(tmp_path / "bad.pem"), Path(server.cert).read_bytes().replace(b"\nM", b"\n!"))
    assert "bad.pem holds a certificate that cannot be read: it is damaged" in refusal(
        str(tmp_path / "bad.pem"), server.key
    )


@pytest.mark.parametrize("damage", [(rb"(\d{12})Z", rb"\1?"), (b"localhost", b"local\xff\xff\xff\xff")])
def test_date_and_name_that_are_none_are_refused(tmp_path: Path, damage: tuple[bytes, bytes]) -> None:
    """Found by changing bytes at random: OpenSSL takes them, and Python does not."""
    server = certificates().server
    der = re.sub(*damage, ssl.PEM_cert_to_DER_cert(Path(server.cert).read_text()))
    put(str(tmp_path / "bad.pem"), ssl.DER_cert_to_PEM_cert(der).encode())
    said = refusal(str(tmp_path / "bad.pem"), server.key)
    assert "bad.pem holds a certificate with a name or a date that is none" in said


def test_damaged_key_is_named(tmp_path: Path) -> None:
    server = certificates().server
    put(str(tmp_path / "bad.pem"), Path(server.key).read_bytes().replace(b"\nM", b"\n!"))
    assert "bad.pem holds a key that cannot be read: it is damaged" in refusal(server.cert, str(tmp_path / "bad.pem"))


def test_key_that_is_too_short_is_named(tmp_path: Path) -> None:
    files = requested(tmp_path, "-addext", "subjectAltName=DNS:x", key="rsa:1024")
    assert "is too weak for this host's OpenSSL (ee key too small)" in refusal(files.cert, files.key)
    assert load(files.cert, files.key, tls_ciphers="DEFAULT@SECLEVEL=0").names == ("x",)


def test_certificate_for_clients_is_refused(tmp_path: Path) -> None:
    files = requested(tmp_path, "-addext", "extendedKeyUsage=clientAuth", "-addext", "subjectAltName=DNS:x")
    assert "is a certificate no client takes (" in refusal(files.cert, files.key)


def test_files_that_change_while_they_are_loaded_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", vanish)
    server = certificates().server
    assert "see whether it is being changed" in refusal(server.cert, server.key)


def test_key_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    files = write(issue(*HOSTS), tmp_path)
    Path(files.key).chmod(0o644)
    assert load(files.cert, files.key).warnings == (
        f"tls_key of {BIND}: any user of this host may read the key in {files.key}: chmod 600 {files.key}",
    )


def test_key_that_a_group_may_read_is_none(tmp_path: Path) -> None:
    files = write(issue(*HOSTS), tmp_path)
    Path(files.key).chmod(0o640)
    assert load(files.cert, files.key).warnings == ()


def test_certificate_that_others_may_read_is_none_unless_the_key_is_in_it(tmp_path: Path) -> None:
    files = write(issue(*HOSTS), tmp_path)
    Path(files.cert).chmod(0o644)
    assert load(files.cert, files.key).warnings == ()
    with Path(files.cert).open("ab") as file:
        file.write(Path(files.key).read_bytes())
    (warning,) = load(files.cert).warnings
    assert warning.startswith(f"tls_cert of {BIND}: any user of this host may read the key")


@pytest.mark.parametrize(
    ("life", "left", "is_warned"), [(365, 13, True), (365, 15, False), (6, 3, False), (6, 1.9, True)]
)
def test_end_that_comes_soon_is_a_warning(tmp_path: Path, life: float, left: float, is_warned: bool) -> None:
    files = write(issue(*HOSTS, starts=(left - life) * DAY, ends=left * DAY), tmp_path)
    warnings = load(files.cert, files.key).warnings
    assert [warning.startswith(f"tls_cert of {BIND}: {files.cert} expires on ") for warning in warnings] == [
        True
    ] * is_warned


def test_certificate_without_names_is_a_warning(tmp_path: Path) -> None:
    files = requested(tmp_path)
    (warning,) = load(files.cert, files.key).warnings
    assert "names no host (subjectAltName)" in warning


def test_authority_in_the_chain_that_has_expired_is_a_warning(tmp_path: Path) -> None:
    server, old = certificates().server, tmp_path / "old.pem"
    openssl(
        *["req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", str(tmp_path / "k.pem"), "-out", str(old)],
        *["-subj", "/CN=Old One", "-days", "1"],
    )
    put(str(tmp_path / "chain.pem"), Path(server.cert).read_bytes() + old.read_bytes())
    assert load(str(tmp_path / "chain.pem"), server.key).warnings == ()
    (warning,) = load(str(tmp_path / "chain.pem"), server.key, at=time() + 2 * DAY).warnings
    assert "has expired at Old One (" in warning


def test_ciphers_that_do_not_fit_the_key_are_a_warning() -> None:
    server = certificates().server
    (warning,) = load(server.cert, server.key, tls_ciphers="ECDHE-RSA-AES128-GCM-SHA256").warnings
    assert "has no cipher for the key of" in warning
    assert load(server.cert, server.key, tls_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256").warnings == ()
