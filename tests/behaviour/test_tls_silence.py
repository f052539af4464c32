"""TLS that says nothing: records without data neither keep a connection nor cost the server without end."""

from pathlib import Path

import pytest

from moorage import Connection
from moorage.events import Cause
from support.client import SOON
from support.house import Open
from support.key_updates import KeyUpdater
from support.waiting import eventually

pytestmark = [
    pytest.mark.security("tls"),
    pytest.mark.runners("threads", "fibers"),
    pytest.mark.families("tcp4"),
]


def echo(conn: Connection) -> None:
    while data := conn.recv(65536):
        conn.sendall(data)


def read_on(conn: Connection) -> None:
    while conn.recv(65536):
        pass


def test_data_after_a_change_of_keys_is_read(house: Open, tmp_path: Path) -> None:
    opened = house(echo)
    with KeyUpdater(opened.server.address, tmp_path) as client:
        client.sock.sendall(client.data(b"one") + client.update() + client.data(b"two!"))
        eventually(lambda: [conn.bytes_received for conn in opened.server.connections] == [7])


def test_client_that_only_changes_its_keys_is_idle(house: Open, tmp_path: Path) -> None:
    opened = house(read_on, idle_timeout=0.5)
    with KeyUpdater(opened.server.address, tmp_path) as client:
        with pytest.raises(ConnectionError):
            for _ in range(int(SOON / 0.1)):
                client.sock.sendall(client.update())
                wait_for_silence(client)
        assert opened.cause() is Cause.IDLE


def wait_for_silence(client: KeyUpdater) -> None:
    """A tenth of a second in which an answer may come and the end must not be seen before it is one."""
    client.sock.settimeout(0.1)
    try:
        while client.sock.recv(65536):
            pass
    except TimeoutError:
        return
    raise ConnectionError("ended")


@pytest.mark.parametrize(
    ("handler", "text"),
    [(echo, b""), (read_on, b""), (read_on, b"x")],
    ids=["alone", "not answered", "beside data"],
)
def test_flood_of_changed_keys_is_ended(house: Open, tmp_path: Path, handler: object, text: bytes) -> None:
    opened = house(handler, idle_timeout=30, write_timeout=1, send_buffer=8192)
    with KeyUpdater(opened.server.address, tmp_path) as client:
        with pytest.raises(ConnectionError):
            for _ in range(200):
                updates = b"".join(client.update() for _ in range(300))
                client.sock.sendall(updates + (client.data(text) if text else b""))
        assert opened.cause() in {Cause.TLS_ERROR, Cause.WRITE_STALLED}
