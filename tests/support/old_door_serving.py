"""Servers of the old door under test: served in a thread, ended and closed when the block ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from moorage import socketserver

from .waiting import Running, in_thread

__all__ = ["HOST", "Echo", "serving"]

HOST = ("127.0.0.1", 0)
S = TypeVar("S")


class Echo(socketserver.StreamRequestHandler):
    """Each line back."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


@contextmanager
def serving(server: Any) -> Iterator[Running]:
    """`serve_forever()` in a thread; its error, if any, is raised at the end of the block."""
    try:
        with in_thread(server.serve_forever) as running:
            try:
                yield running
            finally:
                server.shutdown()
        running.result()
    finally:
        server.server_close()
