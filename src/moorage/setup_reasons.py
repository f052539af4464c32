"""Setup reasons: what a failed TLS handshake means, in words for operators.

Owns      the sentence for each failure that is often met; the rest is said in OpenSSL's own words.
Promises  one line without the peer's bytes: what a stranger sends does not get into the log by this way.
"""

import ssl

#: OpenSSL's word for it, and what has mostly happened
_MEANINGS = {
    "HTTP_REQUEST": "plain HTTP came to a port of TLS",
    "HTTPS_PROXY_REQUEST": "a request to an HTTP proxy came to a port of TLS",
    "WRONG_VERSION_NUMBER": "what came is not TLS",
    "UNEXPECTED_MESSAGE": "a message came out of order",
    "UNKNOWN_PROTOCOL": "what came is not TLS",
    "UNSUPPORTED_PROTOCOL": "the client offers only versions of TLS below tls_min_version",
    "VERSION_TOO_LOW": "the client offers only versions of TLS below tls_min_version",
    "NO_SHARED_CIPHER": "client and server have no cipher in common",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "the client does not support the kind of key that the certificate has",
    "NO_SUITABLE_KEY_SHARE": "client and server have no group of the key exchange in common",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate, and tls_verify is required",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust who signed our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client finds our certificate expired",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the client does not support the kind of certificate that we show",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the client does not support the version of TLS that was chosen",
}
_LONGEST = 200  # characters of a reason


def why(error: Exception) -> str:
    """Why a TLS handshake failed."""
    if not isinstance(error, ssl.SSLError):
        return f"{type(error).__name__}: {error}"[:_LONGEST]
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is not good: {error.verify_message}"[:_LONGEST]
    if isinstance(error, ssl.SSLEOFError):
        return "the client left in the middle of the handshake"
    word = getattr(error, "reason", None) or ""  # one that Python has raised has none
    if not word:
        return str(error.strerror or error)[:_LONGEST]
    own = word.lower().replace("_", " ")
    return f"{_MEANINGS[word]} ({own})" if word in _MEANINGS else own
