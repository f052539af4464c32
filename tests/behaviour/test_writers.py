"""Several writers of one connection: whole messages never interleave, whoever writes and however slowly is read."""

import pytest

from support.client import Client
from support.house import Place
from support.twin_programs import on_both_twins, twin_server
from support.writing import WAYS, expected, read_messages

RECEIVE_BUFFER = 4096
SLICE = 3000  # bytes that are read at once: less than is sent, so the sockets are full all the time

pytestmark = pytest.mark.runners("threads", "fibers")


class SlowReader:
    """Takes a little at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def receive(self, size: int) -> bytes:
        """Exactly so many bytes, fewer at the end of the stream."""
        data = bytearray()
        while len(data) < size and (part := self._client.recv(min(SLICE, size - len(data)))):
            data += part
        return bytes(data)


def check(place: Place, twin: str, folder: str, way: str) -> None:
    with (
        twin_server(
            twin, "support.writing:write_as_asked", place.bind(folder), runner=place.runner, **place.settings()
        ) as server,
        place.client(server.address, RECEIVE_BUFFER) as client,
    ):
        client.sendall(f"{way}\n".encode())
        seen: dict[int, list[int]] = {}
        for writer, size in read_messages(SlowReader(client).receive):
            seen.setdefault(writer, []).append(size)
        assert seen == expected(), server.log
    assert not [line for line in server.log if "Traceback" in line], server.log


@on_both_twins
@pytest.mark.tls_families("tcp4", "unix")  # there are two ways to wait
def test_messages_of_siblings_are_whole(place: Place, twin: str, tmp_path: object) -> None:
    check(place, twin, str(tmp_path), "siblings")


@pytest.mark.tls_families  # long, so over TLS it is left to `make test-full`
@on_both_twins
@pytest.mark.families("tcp4")
@pytest.mark.parametrize(
    "way", [*(way for way in WAYS if way != "siblings"), "patiently siblings", "patiently threads"]
)
def test_messages_are_whole_however_they_are_written(place: Place, twin: str, way: str, tmp_path: object) -> None:
    check(place, twin, str(tmp_path), way)
