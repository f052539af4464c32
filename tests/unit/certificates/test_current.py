"""Current: the certificates of one listener that are in use now, and their renewal."""

import gc
import os
import ssl
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest
import trustme

from moorage.certificates import Certificates, current
from moorage.certificates.contexts import ends_of_authorities
from moorage.certificates.current import RETRY_SECONDS
from moorage.certificates.pair import load_pair
from moorage.config import ListenerSettings
from moorage.events import CertificatesLoaded, CertificatesRejected, Events
from support.certificates import (
    HOSTS,
    Files,
    certificates,
    client_context,
    issue,
    put,
    shake_hands,
    write,
)
from support.clock import FakeClock
from support.sink import Sink
from support.sockets import PATIENCE

BIND = "127.0.0.1:0"


def settings(*files: Files, **values: Any) -> ListenerSettings:
    certs, keys = tuple(one.cert for one in files), tuple(one.key for one in files)
    return ListenerSettings(bind=BIND, tls_cert=certs, tls_key=keys, **values)


def shown(context: ssl.SSLContext) -> str:
    """The first name of the certificate that a client gets."""
    client = client_context()
    client.check_hostname = False
    asking, _ = shake_hands(context, client)
    told: Any = asking.getpeercert()
    return str(told["subjectAltName"][0][1])


def rest(made: Certificates, clock: FakeClock) -> None:
    """A second passes until a change is seen, and one more in which there is no other."""
    for _ in range(2):
        clock.advance(1)
        made.context()


class Renewed:
    """Certificates whose files a test replaces, with a clock and a sink of events."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.wall = FakeClock(time())
        self.files = write(issue("old.example", *HOSTS), folder)
        self.current = Certificates(settings(self.files), self.clock, self.wall)
        self.current.events = Events()
        self.sink = Sink(self.current.events)

    def replace(self, *names: str, starts: float = -3600, ends: float = 365 * 86400) -> Files:
        """A renewal as it should be."""
        return write(issue(*names, starts=starts, ends=ends), self.folder)

    def next(self) -> str:
        """What a client sees who comes when the files have rested."""
        rest(self.current, self.clock)
        return self.shown()

    def look(self) -> str:
        """What a client sees who comes a second later."""
        self.clock.advance(1)
        return self.shown()

    def shown(self) -> str:
        return shown(self.current.context())

    def rejections(self) -> list[str]:
        return [event.reason for event in self.sink.of(CertificatesRejected)]


@pytest.fixture
def renewed(tmp_path: Path) -> Renewed:
    return Renewed(tmp_path)


def test_end_is_that_of_the_first_to_expire(tmp_path: Path) -> None:
    files = write(issue("soon.example", ends=30 * 86400), tmp_path)
    made = Certificates(settings(certificates().server, files))
    assert abs(made.expires - time() - 30 * 86400) < 3600


def test_warnings_are_those_of_all(tmp_path: Path) -> None:
    files = write(issue("a.example"), tmp_path)
    Path(files.key).chmod(0o644)
    made = Certificates(settings(certificates().server, files, tls_ciphers="ALL", tls_key_log=str(tmp_path / "log")))
    assert len(made.warnings) == 3


def test_context_stays_the_same_while_nothing_changes(renewed: Renewed) -> None:
    first = renewed.current.context()
    renewed.clock.advance(3600)
    assert renewed.current.context() is first
    assert renewed.sink.seen == []


def test_renewal_is_used_for_the_next_handshake_and_told(renewed: Renewed) -> None:
    assert renewed.shown() == "old.example"
    renewed.replace("new.example", ends=50 * 86400)
    assert renewed.shown() == "old.example"  # a look a second
    assert renewed.look() == "old.example"  # another file may follow
    assert renewed.look() == "new.example"
    (event,) = renewed.sink.of(CertificatesLoaded)
    assert event.paths == (renewed.files.cert,)
    assert event.expires == renewed.current.expires
    assert abs(event.expires - time() - 50 * 86400) < 3600


def test_handshake_under_way_keeps_its_certificate(renewed: Renewed) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client_context().wrap_bio(to_client, to_server, server_hostname="localhost")
    answering = renewed.current.context().wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        asking.do_handshake()
    renewed.replace("new.example")
    assert renewed.next() == "new.example"
    with pytest.raises(ssl.SSLWantReadError):
        answering.do_handshake()
    asking.do_handshake()
    answering.do_handshake()
    told: Any = asking.getpeercert()
    assert told["subjectAltName"][0] == ("DNS", "old.example")


def test_half_of_a_renewal_changes_nothing_until_the_other_half_is_there(renewed: Renewed) -> None:
    made = issue("new.example", *HOSTS)
    put(renewed.files.cert, made.cert_chain_pems[0].bytes())
    assert renewed.next() == "old.example"
    assert ["is not the key of" in reason for reason in renewed.rejections()] == [True]
    assert renewed.next() == "old.example"
    assert len(renewed.rejections()) == 1
    put(renewed.files.key, made.private_key_pem.bytes())
    assert renewed.next() == "new.example"
    assert len(renewed.sink.of(CertificatesLoaded)) == 1


def test_renewal_that_is_seen_between_two_files_is_no_fault(renewed: Renewed) -> None:
    made = issue("new.example", *HOSTS)
    put(renewed.files.cert, made.cert_chain_pems[0].bytes())
    assert renewed.look() == "old.example"
    put(renewed.files.key, made.private_key_pem.bytes())
    assert renewed.look() == "old.example"
    assert renewed.look() == "new.example"
    assert renewed.rejections() == []
    assert len(renewed.sink.of(CertificatesLoaded)) == 1


@pytest.mark.parametrize("is_good", [True, False])
def test_what_is_read_while_a_file_changes_is_not_taken_and_no_fault(
    renewed: Renewed, monkeypatch: pytest.MonkeyPatch, is_good: bool
) -> None:
    def load(*args: Any) -> Any:
        monkeypatch.undo()
        loaded = load_pair(*args)
        renewed.replace("newer.example", *HOSTS)
        if is_good:
            return loaded
        raise ValueError("the key is not that of the certificate")

    renewed.replace("new.example", *HOSTS)
    monkeypatch.setattr(current, "load_pair", load)
    assert renewed.next() == "old.example"
    assert renewed.sink.seen == []
    assert renewed.next() == "newer.example"
    assert renewed.rejections() == []


def test_file_that_is_being_written_changes_nothing(renewed: Renewed) -> None:
    whole = issue("new.example", *HOSTS).cert_chain_pems[0].bytes()
    for length in (0, len(whole) // 2, len(whole) - 2):
        Path(renewed.files.cert).write_bytes(whole[:length])
        assert renewed.next() == "old.example"
    assert len(renewed.rejections()) == 1  # all for the same reason
    assert renewed.current.expires > time()


@pytest.mark.parametrize(
    ("life", "what"), [({"starts": -200.0, "ends": -100.0}, "expired"), ({"starts": 100.0}, "not valid")]
)
def test_renewal_that_is_not_valid_now_is_rejected(renewed: Renewed, life: dict[str, float], what: str) -> None:
    renewed.replace("new.example", **life)
    assert renewed.next() == "old.example"
    (reason,) = renewed.rejections()
    assert what in reason


def test_renewal_of_the_authorities_is_taken_and_an_empty_file_is_not(tmp_path: Path) -> None:
    ca, clock = tmp_path / "ca.pem", FakeClock()
    ca.write_text(Path(certificates().ca).read_text())
    made = Certificates(settings(certificates().server, tls_client_ca=str(ca), tls_verify="required"), clock)
    client = client_context(certificates().stranger)
    for text in ("", "nothing"):
        ca.write_text(text)
        rest(made, clock)
        with pytest.raises(ssl.SSLError):
            shake_hands(made.context(), client)
        shake_hands(made.context(), client_context(certificates().client))
    other = trustme.CA()
    ca.write_bytes(other.cert_pem.bytes())
    rest(made, clock)
    with pytest.raises(ssl.SSLError):
        shake_hands(made.context(), client_context(certificates().client))
    other.issue_cert(common_name="device-3").configure_cert(client)
    shake_hands(made.context(), client)


def test_vanished_file_changes_nothing_until_it_is_back(renewed: Renewed) -> None:
    Path(renewed.files.key).rename(renewed.folder / "away")
    assert renewed.next() == "old.example"
    assert ["does not exist" in reason for reason in renewed.rejections()] == [True]
    (renewed.folder / "away").rename(renewed.files.key)
    assert renewed.next() == "old.example"
    assert len(renewed.sink.of(CertificatesLoaded)) == 1


def test_rejected_renewal_is_tried_again_though_no_file_changes(renewed: Renewed) -> None:
    """It was not yet valid; or descriptors had run out."""
    renewed.replace("new.example", *HOSTS, starts=100.0)
    assert renewed.next() == "old.example"
    renewed.wall.advance(101)
    assert renewed.next() == "old.example"
    renewed.clock.advance(RETRY_SECONDS)
    renewed.current.context()  # clients here have another clock, and would refuse it
    assert len(renewed.sink.of(CertificatesLoaded)) == len(renewed.rejections()) == 1


def test_want_of_descriptors_costs_no_connection(renewed: Renewed, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(24, "Too many open files")

    renewed.replace("new.example", *HOSTS)
    monkeypatch.setattr(current, "load_pair", refuse)
    assert renewed.next() == "old.example"
    assert renewed.rejections() == ["[Errno 24] Too many open files"]
    monkeypatch.undo()
    renewed.clock.advance(RETRY_SECONDS)
    assert renewed.next() == "new.example"


def test_nobody_needs_to_listen_for_events(renewed: Renewed) -> None:
    renewed.current.events = None
    renewed.replace("new.example", *HOSTS)
    assert renewed.next() == "new.example"
    renewed.current.events = Events()  # without a subscriber
    renewed.replace("other.example", *HOSTS)
    assert renewed.next() == "other.example"


def test_subscriber_may_ask_for_the_context(renewed: Renewed) -> None:
    """It is told without a lock held."""
    assert renewed.current.events is not None
    asked: list[ssl.SSLContext] = []
    renewed.current.events.subscribe(lambda _: asked.append(renewed.current.context()), CertificatesLoaded)
    renewed.replace("new.example", *HOSTS)
    assert renewed.next() == "new.example"
    assert asked == [renewed.current.context()]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Loading a pair says that it has begun, and waits until it may go on."""
    begun, go_on = threading.Event(), threading.Event()

    def load(*args: Any) -> Any:
        loaded = load_pair(*args)
        begun.set()
        assert go_on.wait(PATIENCE)
        return loaded

    monkeypatch.setattr(current, "load_pair", load)
    yield begun, go_on
    go_on.set()


def test_who_comes_while_another_thread_loads_does_not_wait(
    renewed: Renewed, slow: tuple[threading.Event, threading.Event]
) -> None:
    begun, go_on = slow
    renewed.replace("new.example", *HOSTS)
    assert renewed.look() == "old.example"
    renewed.clock.advance(1)
    thread = threading.Thread(target=renewed.current.context)
    thread.start()
    assert begun.wait(PATIENCE)
    assert renewed.shown() == "old.example"
    renewed.replace("newer.example", *HOSTS)  # seen by one who may not load; it must not be forgotten
    assert renewed.next() == "old.example"
    go_on.set()
    thread.join(PATIENCE)
    assert renewed.next() == "newer.example"


def test_contexts_of_before_are_given_up(renewed: Renewed, tmp_path: Path) -> None:
    made = Certificates(settings(renewed.files, certificates().first, certificates().second), renewed.clock)
    before = weakref.ref(made.context())
    renewed.replace("new.example", *HOSTS)
    rest(made, renewed.clock)
    gc.collect()
    assert before() is None


def test_descriptors_of_the_key_log_are_given_up(renewed: Renewed, tmp_path: Path) -> None:
    made = Certificates(settings(renewed.files, tls_key_log=str(tmp_path / "keys.log")), renewed.clock)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        renewed.replace(f"n{number}.example", *HOSTS)
        rest(made, renewed.clock)
        assert shown(made.context()) == f"n{number}.example"
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_renewal_under_load_loses_no_handshake(renewed: Renewed) -> None:
    """Eight threads shake hands while the files are replaced twenty times, in halves."""
    made = Certificates(settings(renewed.files))  # with the real clock
    made._freshness._quiet = 0.0  # halves are read
    is_over = threading.Event()
    faults: list[BaseException] = []
    seen: set[str] = set()
    done = threading.Semaphore(0)

    def shake() -> None:
        try:
            while not is_over.is_set():
                seen.add(shown(made.context()))
                done.release()
        except BaseException as fault:
            faults.append(fault)
            done.release()

    threads = [threading.Thread(target=shake) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        made._freshness._next_look = 0.0  # the next one looks
        leaf = issue(f"n{number}.example", *HOSTS)
        put(renewed.files.cert, leaf.cert_chain_pems[0].bytes())
        for _ in range(4):
            assert done.acquire(timeout=PATIENCE)
        made._freshness._next_look = 0.0
        put(renewed.files.key, leaf.private_key_pem.bytes())
        for _ in range(8):
            assert done.acquire(timeout=PATIENCE)
    is_over.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert faults == []
    assert len(seen) > 2


def lapsed_and_renewed(folder: Path, **values: Any) -> tuple[Certificates, FakeClock, FakeClock, Files, Files]:
    """Two certificates: the second expires, and the first is renewed."""
    clock, wall = FakeClock(), FakeClock(time())
    first = write(issue("old.example", *HOSTS), folder, "first")
    second = write(issue("lapsed.example", ends=1000.0), folder, "second")
    made = Certificates(settings(first, second, **values), clock, wall)
    wall.advance(2000)
    write(issue("new.example", *HOSTS), folder, "first")
    clock.advance(1)
    return made, clock, wall, first, second


def test_expired_one_in_use_does_not_stop_the_renewal_of_others(tmp_path: Path) -> None:
    made, _, _, _, second = lapsed_and_renewed(tmp_path)
    assert shown(made.context()) == "new.example"
    assert any(f"{second.cert} expired on " in warning for warning in made.warnings)


def test_expired_one_that_is_new_is_refused(tmp_path: Path) -> None:
    made, _, _, _, _ = lapsed_and_renewed(tmp_path)
    write(issue("other.example", ends=500.0), tmp_path, "second")
    assert shown(made.context()) == "old.example"


def test_expired_one_is_kept_at_a_reload_and_refused_at_a_start(tmp_path: Path) -> None:
    made, _, wall, first, second = lapsed_and_renewed(tmp_path)
    again = Certificates(settings(first, second), now=wall, before=[made])
    assert shown(again.context()) == "new.example"
    with pytest.raises(ValueError, match="expired on"):
        Certificates(settings(first, second), now=wall)


def test_expired_authorities_in_use_do_not_stop_a_renewal(tmp_path: Path) -> None:
    ca = Path(certificates().ca)
    clock, wall = FakeClock(), FakeClock(time())
    files = write(issue("old.example", *HOSTS), tmp_path)
    made = Certificates(settings(files, tls_client_ca=str(ca), tls_verify="optional"), clock, wall)
    wall.advance(max(ends_of_authorities(ca.read_text()).values()) - wall())
    write(issue("new.example", *HOSTS, ends=wall() - time() + 86400), tmp_path)
    clock.advance(1)
    made.context()
    assert any("no client is let in" in warning for warning in made.warnings)
