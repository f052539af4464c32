"""Devcert: certificates for a developer's own machine, signed by an authority that is made for them."""

import os
import shlex
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moorage.certificates import Certificates
from moorage.config import ListenerSettings
from moorage.devcert import LOCAL, make
from moorage.errors import OperatorError
from support.certificates import shake_hands


def served(folder: Path) -> Certificates:
    return Certificates(ListenerSettings(tls_cert=(str(folder / "cert.pem"),), tls_key=(str(folder / "key.pem"),)))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(names: list[str], folder: Path, force: bool = False) -> str:
    with pytest.raises(OperatorError) as raised:
        make(names, str(folder), force)
    return str(raised.value)


def test_certificate_is_for_this_machine_when_nothing_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    make([], str(folder), False)
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    for name in LOCAL:
        asking, _ = shake_hands(served(folder).context(), client, name)
        assert asking.getpeercert()
    assert served(folder).warnings == ()


def test_certificate_is_for_the_names_that_are_given(tmp_path: Path) -> None:
    make(["*.app.test", "bücher.example", "10.1.2.3"], str(tmp_path), False)
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    for name in ("www.app.test", "bücher.example", "10.1.2.3"):
        shake_hands(served(tmp_path).context(), client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(served(tmp_path).context(), client, "localhost")


def test_key_is_of_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make([], str(tmp_path), False)
        make([], str(tmp_path), True)
    finally:
        os.umask(before)
    assert mode(tmp_path / "key.pem") == 0o600
    assert mode(tmp_path / "cert.pem") == mode(tmp_path / "ca.pem") == 0o644
    assert sorted(os.listdir(tmp_path)) == ["ca.pem", "cert.pem", "key.pem"]


def test_certificate_lives_for_a_year(tmp_path: Path) -> None:
    make([], str(tmp_path), False)
    said = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "cert.pem", "-noout", "-checkend", str(364 * 86400)], check=False
    )
    assert said.returncode == 0
    said = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "cert.pem", "-noout", "-checkend", str(366 * 86400)], check=False
    )
    assert said.returncode == 1


def test_openssl_verifies_it_against_the_authority(tmp_path: Path) -> None:
    make([], str(tmp_path), False)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost"]
    subprocess.run(
        [*command, "-CAfile", tmp_path / "ca.pem", tmp_path / "cert.pem"], check=True, stdout=subprocess.DEVNULL
    )


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
def test_file_that_exists_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert refusal([], tmp_path) == (
        f"{tmp_path}/{name} exists: name another folder with --folder, or replace the files with --force"
    )
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_file_that_exists_is_replaced_by_force(tmp_path: Path) -> None:
    (tmp_path / "key.pem.new").write_text("left by a run that was killed")
    make([], str(tmp_path), False)
    before = (tmp_path / "cert.pem").read_bytes()
    make([], str(tmp_path), True)
    assert (tmp_path / "cert.pem").read_bytes() != before
    assert served(tmp_path).warnings == ()


def test_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "key.pem").symlink_to("../elsewhere")
    assert "exists" in refusal([], tmp_path / "out")
    make([], str(tmp_path / "out"), True)
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["", "localhost:20000", "http://localhost", "10.0.0.0/8", "me@example.org", "a b", "*.test", "w*.app.test"]
)
def test_what_is_no_name_is_named(tmp_path: Path, name: str) -> None:
    assert f"devcert cannot make a certificate for {name!r}: give names such as" in refusal(
        ["localhost", name], tmp_path
    )
    assert os.listdir(tmp_path) == []


def test_what_is_no_international_name_is_named(tmp_path: Path) -> None:
    assert "devcert cannot make a certificate for ü..x (" in refusal(["ü..x"], tmp_path)


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal([], tmp_path / "file").startswith(f"devcert cannot write {tmp_path}/file")


def test_without_trustme_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    said = refusal([], tmp_path)
    assert said.startswith("devcert needs trustme, which cannot be imported (")
    assert said.endswith("install it with `pip install trustme`")
    assert os.listdir(tmp_path) == []


def test_next_steps_are_three_and_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "my certificates"
    lines = make(["127.0.0.1", "*.app.test"], str(folder), False)
    assert [line[:2] for line in lines[-3:]] == ["1.", "2.", "3."]
    serve, attempt = (shlex.split(line.split(":", 1)[1]) for line in lines[-3:-1])
    assert serve[:3] == ["moorage", "serve", "echo"]
    assert serve[3:] == ["--tls-cert", f"{folder}/cert.pem", "--tls-key", f"{folder}/key.pem"]
    assert attempt[attempt.index("-servername") + 1] == "www.app.test"
    assert attempt[attempt.index("-CAfile") + 1] == f"{folder}/ca.pem"
    assert any("127.0.0.1, *.app.test, for a year" in line for line in lines)


def test_steps_for_addresses_alone_ask_for_localhost(tmp_path: Path) -> None:
    assert "-servername localhost" in make(["127.0.0.1"], str(tmp_path), False)[-2]


def test_authority_may_sign_and_its_key_is_nowhere(tmp_path: Path) -> None:
    make([], str(tmp_path), False)
    client: Any = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    assert client.cert_store_stats() == {"x509": 1, "crl": 0, "x509_ca": 1}
    assert [path.name for path in tmp_path.iterdir() if "PRIVATE KEY" in path.read_text()] == ["key.pem"]
