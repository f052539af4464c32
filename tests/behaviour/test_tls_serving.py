"""Certificates as an operator has them: checked at the start, renewed under load, changed by a reload."""

import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage import Connection
from moorage.events import CertificatesLoaded, CertificatesRejected
from support.certificates import HOSTS, Files, certificates, issue, put, write
from support.client import SOON, Client
from support.house import Background, House, Open
from support.serving import Serving, mistake
from support.tls_client import TlsClient
from support.waiting import eventually

Serve = Callable[..., Serving]


def echo(conn: Connection) -> None:
    while data := conn.recv(100):
        conn.sendall(data)


def serial(client: TlsClient) -> str:
    """Which certificate a client was shown."""
    shown: Any = client.session.getpeercert()
    return str(shown["serialNumber"])


def shown(address: Any) -> str:
    """Which certificate a client that comes now is shown; it is served, too."""
    with TlsClient(address) as client:
        assert client.ask(b"x") == b"x"
        return serial(client)


def serial_of(files: Files) -> str:
    """Of a certificate in a file."""
    return str(ssl._ssl._test_decode_cert(files.cert)["serialNumber"])  # type: ignore[attr-defined]  # not public, but in every version


# --- renewal -----------------------------------------------------------------------------------------


class Load:
    """Clients that come, talk and leave, one after the other; none of them may fail."""

    def __init__(self, opened: House, clients: int = 3) -> None:
        self._address = opened.server.address
        self._over = threading.Event()
        self._seen: list[str] = []
        self._clients = [Background(self._come_and_go) for _ in range(clients)]

    def _come_and_go(self) -> int:
        count = 0
        while not self._over.is_set():
            self._seen.append(shown(self._address))
            count += 1
        return count

    def wait_for(self, files: Files) -> None:
        """Until somebody was shown this certificate."""
        wanted = serial_of(files)
        eventually(lambda: wanted in self._seen[-10:])

    def wait_for_more(self, number: int) -> None:
        """Until so many more have been served."""
        until = len(self._seen) + number
        eventually(lambda: len(self._seen) >= until)

    def end(self) -> int:
        """How many were served; raises what one of them raised."""
        self._over.set()
        return sum(client.result() for client in self._clients)


@pytest.mark.security("tls")
@pytest.mark.runners("threads", "fibers")
def test_renewed_certificate_is_shown_and_no_handshake_fails_meanwhile(house: Open, tmp_path: Path) -> None:
    old = write(issue(*HOSTS), tmp_path)
    opened = house(echo, tls_cert=old.cert, tls_key=old.key)
    loaded = opened.server.events.queue(10, CertificatesLoaded)
    rejected = opened.server.events.queue(10, CertificatesRejected)
    with opened.client() as stays:
        assert stays.ask(b"x") == b"x"
        load = Load(opened)
        try:
            load.wait_for(old)
            put(old.cert, Path(old.cert).read_bytes()[:200])  # half written
            event = rejected.get(SOON)
            assert isinstance(event, CertificatesRejected)
            assert old.cert in event.reason
            load.wait_for_more(20)
            with pytest.raises(TimeoutError):
                rejected.get(0)  # it is said once
            new = write(issue(*HOSTS), tmp_path)
            assert isinstance(loaded.get(SOON), CertificatesLoaded)
            load.wait_for(new)
        finally:
            served = load.end()
        assert served > 20
        assert stays.ask(b"y") == b"y"
    assert shown(opened.server.address) == serial_of(new)
    assert not opened.setup_failures()
    assert opened.is_quiet()


@pytest.mark.security("tls")
@pytest.mark.runners("threads", "fibers")
def test_program_of_ones_own_is_warned_at_the_start_and_after_each_renewal(
    house: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> int:
        return caplog.text.count(f"chmod 600 {files.key}")

    files = write(issue(*HOSTS), tmp_path)
    Path(files.key).chmod(0o644)
    opened = house(echo, tls_cert=files.cert, tls_key=files.key)
    assert said() == 1
    new = write(issue(*HOSTS), tmp_path)
    Path(new.key).chmod(0o644)
    eventually(lambda: shown(opened.server.address) == serial_of(new), SOON)
    eventually(lambda: said() == 2)


# --- the command line --------------------------------------------------------------------------------


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers; none outlives the test."""
    servers: list[Serving] = []

    def start(*arguments: str) -> Serving:
        servers.append(Serving("echo", *arguments, cwd=tmp_path))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def settings_of(files: Files, *, runner: str = "threads", workers: int = 1) -> str:
    return (
        f"bind = '127.0.0.1:0'\nrunner = '{runner}'\nworkers = {workers}\n"
        f"tls_cert = '{files.cert}'\ntls_key = '{files.key}'\n"
    )


def test_echo_over_tls_is_served_from_the_command_line(serve: Serve) -> None:
    files = certificates().server
    server = serve("--bind", "127.0.0.1:0", "--tls-cert", files.cert, "--tls-key", files.key, "--drain-quiet", "0.1")
    with TlsClient(server.address()) as client:
        assert client.ask(b"hello\n") == b"hello\n"
        server.signal(signal.SIGTERM)
        assert client.rest() == b""
    assert server.status() == 0


def test_each_listener_has_its_own_tls(serve: Serve, tmp_path: Path) -> None:
    files = certificates().server
    tls = f"tls_cert={files.cert},tls_key={files.key}"
    serve("--bind", f"unix:{tmp_path}/plain", "--bind", f"unix:{tmp_path}/tls,{tls}").hear("listening")
    with Client(f"{tmp_path}/plain") as plain, TlsClient(f"{tmp_path}/tls") as secure:
        assert plain.ask(b"x") == b"x"
        assert secure.ask(b"y") == b"y"


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("expired", "expired", "expired on"),
        ("server", "first", "is not the key of"),
        ("absent", "server", "absent"),
        ("unreadable", "server", "unreadable"),
        ("server", "unreadable", "unreadable"),
        ("garbage", "server", "garbage"),
        ("server", "garbage", "garbage"),
    ],
)
def test_certificate_that_will_not_do_is_one_sentence_at_the_start(
    tmp_path: Path, cert: str, key: str, words: str
) -> None:
    known = certificates()
    (tmp_path / "garbage").write_text("no PEM at all")
    (tmp_path / "unreadable").mkdir()
    paths = [
        getattr(getattr(known, name), kind) if hasattr(known, name) else str(tmp_path / name)
        for name, kind in ((cert, "cert"), (key, "key"))
    ]
    before = sorted(tmp_path.iterdir())
    arguments = ["--bind", f"unix:{tmp_path}/s", "--tls-cert", paths[0], "--tls-key", paths[1]]
    sentence = mistake(tmp_path, "serve", "echo", *arguments)
    assert words in sentence
    assert "tls_" in sentence
    assert sorted(tmp_path.iterdir()) == before


def test_key_without_the_right_to_read_it_is_one_sentence(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    files = write(issue(*HOSTS), tmp_path / "files")
    Path(files.key).chmod(0)
    arguments = ["--bind", f"unix:{tmp_path}/s", "--tls-cert", files.cert, "--tls-key", files.key]
    assert files.key in mistake(tmp_path, "serve", "echo", *arguments)


def test_key_that_everybody_may_read_is_a_warning(serve: Serve, tmp_path: Path) -> None:
    files = write(issue(*HOSTS), tmp_path / "files")
    Path(files.key).chmod(0o644)
    server = serve("--bind", "127.0.0.1:0", "--tls-cert", files.cert, "--tls-key", files.key)
    server.hear(f"WARNING .*{files.key}")


@pytest.mark.parametrize(("runner", "workers"), [("threads", 2), ("fibers", 1)])
def test_reload_takes_a_certificate_from_another_file(serve: Serve, tmp_path: Path, runner: str, workers: int) -> None:
    one, two = (write(issue(*HOSTS), tmp_path / name) for name in ("one", "two"))
    settings = tmp_path / "moorage.toml"
    settings.write_text(settings_of(one, runner=runner, workers=workers))
    server = serve()
    address = server.address()
    assert shown(address) == serial_of(one)
    with TlsClient(address) as stays:
        assert stays.ask(b"x") == b"x"
        settings.write_text(settings_of(two, runner=runner, workers=workers))
        server.signal(signal.SIGHUP)
        server.hear("reloaded after")
        assert stays.ask(b"y") == b"y"
    eventually(lambda: shown(address) == serial_of(two), SOON)  # for a moment old and new accept


def test_reload_with_a_certificate_that_will_not_do_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    one, old = write(issue(*HOSTS), tmp_path / "one"), certificates().expired
    settings = tmp_path / "moorage.toml"
    settings.write_text(settings_of(one))
    server = serve()
    address = server.address()
    settings.write_text(settings_of(old))
    server.signal(signal.SIGHUP)
    server.hear("ERROR .*reload failed.*expired")
    assert shown(address) == serial_of(one)
    assert not server.said("Traceback")


def test_renewal_without_a_signal_is_seen_by_every_worker(serve: Serve, tmp_path: Path) -> None:
    old = write(issue(*HOSTS), tmp_path / "files")
    (tmp_path / "moorage.toml").write_text(settings_of(old, workers=2))
    server = serve()
    address = server.address()
    assert shown(address) == serial_of(old)
    new = write(issue(*HOSTS), tmp_path / "files")
    until = time.monotonic() + SOON
    last: list[str] = []
    while last[-20:] != [serial_of(new)] * 20:
        assert time.monotonic() < until
        last.append(shown(address))
    server.hear("certificate")
    assert not server.said("Traceback")


@pytest.mark.full  # waits for a certificate to expire
def test_renewal_that_workers_took_and_that_expires_is_warned_of_once_and_stops_no_reload(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "moorage.toml").write_text(settings_of(write(issue(*HOSTS), tmp_path / "files"), workers=2))
    server = serve()
    address = server.address()
    new, ends = write(issue(*HOSTS, ends=10.0), tmp_path / "files"), time.time() + 10.0
    eventually(lambda: shown(address) == serial_of(new), SOON)
    server.hear(f"WARNING .*{new.cert} expires on")
    eventually(lambda: time.time() > ends, SOON)
    server.signal(signal.SIGHUP)
    server.hear("reloaded after")
    server.hear(f"WARNING .*{new.cert} expired on")
    assert sum("expires on" in line for line in server.log if "WARNING" in line) == 1
    assert not server.said("ERROR")
