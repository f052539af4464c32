"""A certificate for one run: an authority and a server's certificate and key, by trustme.

Owns      the two PEM files; they are as old as the run and lie in a folder that ends with it.
Promises  the keys are ECDSA on P-256, the usual choice of today: with RSA the server's signature would cost several
          times as much, and hide what the server adds to it; both sides of a comparison have the same files.
"""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import CannotMeasure

__all__ = ["NAME", "PEM_VARIABLE", "Certificates", "for_server", "make"]

NAME = "localhost"  # what the clients ask for (SNI) and find in the certificate
PEM_VARIABLE = "BENCH_PEM"  # in the environment of a server that is to serve TLS: the path of `server`


@dataclass(frozen=True)
class Certificates:
    server: Path  # key and certificate
    authority: Path  # what the clients trust


def make(folder: Path) -> Certificates:
    try:
        trustme: Any = importlib.import_module("trustme")
    except ImportError as error:
        raise CannotMeasure("TLS is measured with certificates of trustme: pip install trustme") from error
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    leaf = authority.issue_cert(NAME, key_type=trustme.KeyType.ECDSA)
    made = Certificates(folder / "server.pem", folder / "authority.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(made.server))
    made.server.chmod(0o600)
    authority.cert_pem.write_to_path(str(made.authority))
    return made


def for_server(made: Certificates | None) -> dict[str, str]:
    """What a server's environment gets."""
    return {PEM_VARIABLE: os.fspath(made.server)} if made else {}
