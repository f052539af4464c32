"""Setup reasons: one line for each failure, in words for operators."""

import ssl

import pytest

from moorage.setup_reasons import why
from support.certificates import certificates, client_context


def context(**changes: object) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = certificates().server
    made.load_cert_chain(files.cert, files.key)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def failure(server: ssl.SSLContext, client: ssl.SSLContext | bytes) -> Exception:
    """What the server raises when this client comes."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    if isinstance(client, bytes):
        to_server.write(client)
        with pytest.raises(ssl.SSLError) as caught:
            answering.do_handshake()
        return caught.value
    asking = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(5):
        try:
            asking.do_handshake()
        except ssl.SSLError:
            pass
        try:
            answering.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            return error
    raise AssertionError("nothing has failed")


def old_client() -> ssl.SSLContext:
    made = client_context()
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    return made


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "plain HTTP came to a port of TLS (http request)"),
        (b"CONNECT x HTTP/1.0\r\n\r\n", "a request to an HTTP proxy came to a port of TLS (https proxy request)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what came is not TLS (wrong version number)"),
    ],
)
def test_reason_says_what_came_in_the_place_of_tls(sent: bytes, reason: str) -> None:
    assert why(failure(context(), sent)) == reason


def test_reason_names_the_setting_that_an_old_client_is_below() -> None:
    assert "tls_min_version" in why(failure(context(minimum_version=ssl.TLSVersion.TLSv1_3), old_client()))


def test_reason_says_that_the_client_does_not_trust_us() -> None:
    assert "does not trust" in why(failure(context(), ssl.create_default_context()))


def test_reason_says_that_a_certificate_of_the_client_is_missing() -> None:
    server = context(verify_mode=ssl.CERT_REQUIRED)
    server.load_verify_locations(certificates().ca)
    assert "showed no certificate" in why(failure(server, client_context()))


def test_reason_says_what_is_wrong_with_the_certificate_of_the_client() -> None:
    server = context(verify_mode=ssl.CERT_REQUIRED)
    server.load_verify_locations(certificates().ca)
    reason = why(failure(server, client_context(certificates().stranger)))
    assert reason.startswith("the client's certificate is not good: ")


def test_reason_says_that_there_is_no_cipher_in_common() -> None:
    server, client = context(), old_client()
    server.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    client.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
    assert why(failure(server, client)).startswith("client and server have no cipher in common")


def test_reason_without_a_sentence_of_ours_is_that_of_openssl() -> None:
    error = ssl.SSLError(1, "something")
    error.reason = "BAD_DIGEST_LENGTH"
    assert why(error) == "bad digest length"


def test_reason_of_an_error_without_any_is_its_text() -> None:
    assert why(ssl.SSLError(1, "the stars are not right")) == "the stars are not right"


def test_reason_of_an_end_says_who_has_left() -> None:
    assert why(ssl.SSLEOFError(8, "EOF occurred")) == "the client left in the middle of the handshake"


def test_reason_of_an_error_of_ours_names_it_and_is_short() -> None:
    assert why(ValueError("x" * 1000)).startswith("ValueError: xxx")
    assert len(why(ValueError("x" * 1000))) == 200
