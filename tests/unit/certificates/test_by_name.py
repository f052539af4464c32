"""ByName: which certificate a client gets that says which host it wants (SNI)."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from moorage.certificates import Certificates
from moorage.config import ListenerSettings
from support.certificates import FIRST_NAME, Files, certificates, client_context, issue, shake_hands, write

BIND = "127.0.0.1:0"


def settings(*files: Files, **values: Any) -> ListenerSettings:
    certs, keys = tuple(one.cert for one in files), tuple(one.key for one in files)
    return ListenerSettings(bind=BIND, tls_cert=certs, tls_key=keys, **values)


def several(**values: Any) -> Certificates:
    made = certificates()
    return Certificates(settings(made.server, made.first, made.second, **values))


def shown(context: ssl.SSLContext, name: str | None) -> str:
    """The first name of the certificate that a client which asks for this one gets."""
    client = client_context()
    client.check_hostname = False
    asking, _ = shake_hands(context, client, name)
    told: Any = asking.getpeercert()
    return str(told["subjectAltName"][0][1])


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        (None, "localhost"),
        ("localhost", "localhost"),
        ("first.example", FIRST_NAME),
        ("FIRST.Example", FIRST_NAME),
        ("first.example.", FIRST_NAME),
        ("second.example", "second.example"),
        ("www.second.example", "second.example"),
        ("WWW.SECOND.EXAMPLE.", "second.example"),
        ("xn--bcher-kva.second.example", "second.example"),
        ("a.www.second.example", "localhost"),  # a wildcard stands for one label
        ("other.example", "localhost"),
        ("example", "localhost"),
    ],
)
def test_name_chooses_the_certificate(name: str | None, whose: str) -> None:
    assert shown(several().context(), name) == whose


def test_name_in_full_counts_more_than_a_wildcard_before_it(tmp_path: Path) -> None:
    wide, exact = write(issue("*.wide.example"), tmp_path, "wide"), write(issue("a.wide.example"), tmp_path, "exact")
    made = Certificates(settings(wide, exact))
    assert shown(made.context(), "a.wide.example") == "a.wide.example"
    assert shown(made.context(), "b.wide.example") == "*.wide.example"
    assert made.warnings == ()


def test_international_name_finds_its_certificate(tmp_path: Path) -> None:
    files = write(issue("bücher.example"), tmp_path)
    made = Certificates(settings(certificates().server, files))
    assert shown(made.context(), "bücher.example") == shown(made.context(), "XN--BCHER-KVA.example")
    assert shown(made.context(), "bücher.example") == "xn--bcher-kva.example"


def test_of_two_with_the_same_name_the_first_is_shown_and_the_other_is_a_warning(tmp_path: Path) -> None:
    again = write(issue(FIRST_NAME), tmp_path)
    made = Certificates(settings(certificates().server, certificates().first, again))
    (warning,) = made.warnings
    assert warning.startswith(f"tls_cert of {BIND}: {again.cert} is never shown")


def test_one_certificate_is_for_every_name() -> None:
    made = Certificates(settings(certificates().server)).context()
    assert made.for_name("other.example") is made.for_name(None) is made
    assert made.sni_callback is None  # CPython prints a traceback for a name that is not ASCII, wherever there is one


def test_context_for_a_name_has_no_others() -> None:
    made = several().context().for_name(FIRST_NAME)
    assert made.for_name("second.example") is made


@pytest.mark.parametrize("name", ["localhost", FIRST_NAME])
def test_every_name_gets_the_same_settings(name: str) -> None:
    made = several(tls_client_ca=certificates().ca, tls_verify="required", tls_alpn=("echo",), tls_min_version="1.3")
    client = client_context(certificates().client)
    client.set_alpn_protocols(["echo"])
    asking, answering = shake_hands(made.context(), client, name)
    assert asking.selected_alpn_protocol() == "echo"
    assert answering.getpeercert()
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake_hands(made.context(), client_context(), name)


@pytest.mark.parametrize("name", ["localhost", FIRST_NAME])
def test_every_name_is_in_the_key_log(tmp_path: Path, name: str) -> None:
    made = several(tls_key_log=str(tmp_path / "keys.log"))
    shake_hands(made.context(), client_context(), name)
    assert "SERVER_HANDSHAKE_TRAFFIC_SECRET" in (tmp_path / "keys.log").read_text()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["localhost", FIRST_NAME])
def test_session_is_resumed_with_its_client_certificate(name: str, version: ssl.TLSVersion) -> None:
    made = several(tls_client_ca=certificates().ca, tls_verify="required")
    client = client_context(certificates().client)
    client.maximum_version = version
    asking, _ = shake_hands(made.context(), client, name)
    assert asking.session is not None
    again, answering = shake_hands(made.context(), client, name, asking.session)
    assert again.session_reused
    assert answering.getpeercert()
