"""Handlers of the deploy tests: each tells first which process serves, so that a client knows whose it is."""

import os
from typing import Any

__all__ = ["echo"]


def echo(conn: Any) -> None:
    """The number of this process in a line, then everything back."""
    conn.sendall(b"%d\n" % os.getpid())
    while data := conn.recv(65536):
        conn.sendall(data)
