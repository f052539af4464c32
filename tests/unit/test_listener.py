"""Listeners: made, inherited, changed, all or none; what accepted sockets inherit; what the operator is told."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.config import ListenerSettings, plain_address
from moorage.errors import BindError, SettingError
from moorage.listener import Listener, change_listeners, describe, open_listeners
from moorage.listener_files import ListenerFiles
from support.sockets import open_fds

Open = Callable[..., list[Listener]]


@pytest.fixture
def opening() -> Iterator[Open]:
    opened: list[Listener] = []

    def opening(*binds: str, inherited: Any = None, **settings: Any) -> list[Listener]:
        listeners = open_listeners([ListenerSettings(bind=bind, **settings) for bind in binds], inherited)
        opened.extend(listeners)
        return listeners

    yield opening
    for listener in opened:
        listener.close()


class Reading:
    """Stands for the reading of files; remembers what it gave, in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[ListenerFiles] = []
        monkeypatch.setattr("moorage.listener.read_files", self._read)

    def _read(self, settings: ListenerSettings, _before: object = ()) -> ListenerFiles:
        rules: Any = object()
        self.files.append(ListenerFiles(rules=rules))
        return self.files[-1]


def connect(listener: Listener) -> socket.socket:
    client = socket.socket(listener.family)
    client.settimeout(10)
    client.connect(listener.address)
    return client


# TCP


@pytest.mark.parametrize(("bind", "family"), [("127.0.0.1:0", socket.AF_INET), ("[::1]:0", socket.AF_INET6)])
def test_listener_accepts_a_blocking_socket_with_its_peer(opening: Open, bind: str, family: int) -> None:
    [listener] = opening(bind)
    assert listener.family == family
    assert listener.address[1] > 0
    with connect(listener) as client:
        sock, addr = listener.accept()
        assert addr == client.getsockname()
        assert sock.gettimeout() is None
        assert os.get_blocking(sock.fileno())
        assert not os.get_inheritable(sock.fileno())
        assert (sock.family, sock.type, sock.proto) == (family, socket.SOCK_STREAM, 0)
        client.sendall(b"x")
        assert sock.recv(10) == b"x"
        sock.close()


def test_listener_does_not_block_and_is_not_passed_on(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0")
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert not os.get_inheritable(listener.fileno())
    assert listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert not listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_listener_options_are_inherited_by_accepted_sockets(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0", keepalive=(61, 16, 5), user_timeout=121.5)
    with connect(listener):
        sock, _ = listener.accept()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for option, value in (
            (socket.TCP_NODELAY, 1),
            (socket.TCP_KEEPIDLE, 61),
            (socket.TCP_KEEPINTVL, 16),
            (socket.TCP_KEEPCNT, 5),
            (socket.TCP_USER_TIMEOUT, 121500),
        ):
            assert sock.getsockopt(socket.IPPROTO_TCP, option) == value
        sock.close()


def test_listener_options_off_are_inherited_too(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0", nodelay=False, keepalive=None, user_timeout=None)
    with connect(listener):
        sock, _ = listener.accept()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        sock.close()


def test_listener_rebinds_at_once_after_serving(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0")
    with connect(listener):
        sock, _ = listener.accept()
        sock.close()  # the server closes first: its side is the one in TIME_WAIT
        listener.close()
        [again] = opening(f"127.0.0.1:{listener.address[1]}")
        assert again.address == listener.address


def test_listener_tells_how_many_wait_and_may(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0", backlog=5)
    assert (listener.backlog, listener.backlog_length()) == (5, 0)
    clients = [connect(listener) for _ in range(3)]
    assert listener.backlog_length() == 3
    listener.accept()[0].close()
    assert listener.backlog_length() == 2
    for client in clients:
        client.close()


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_listener_backlog_is_clipped_by_the_kernel(opening: Open, family: str, tmp_path: Path) -> None:
    bind = "127.0.0.1:0" if family == "tcp" else f"unix:{tmp_path}/a.sock"
    [listener] = opening(bind, backlog=1_000_000)
    assert listener.backlog == int(Path("/proc/sys/net/core/somaxconn").read_text())


def test_listener_no_longer_listening_does_not_tell_its_backlog(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0")
    listener.socket.shutdown(socket.SHUT_RDWR)
    assert listener.backlog_length() is None
    with pytest.raises(OSError, match="Invalid argument"):
        listener.accept()


def test_listener_closed_twice_is_quiet(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0")
    listener.close()
    listener.close()
    assert listener.fileno() == -1
    with pytest.raises(OSError, match="Bad file"):
        listener.accept()


# Dual stack


def test_dual_stack_listener_shows_v4_peers_as_v4(opening: Open) -> None:
    [listener] = opening("[::]:0", v6only=False)
    with socket.create_connection(("127.0.0.1", listener.address[1]), timeout=10) as client:
        sock, addr = listener.accept()
        assert addr == client.getsockname()
        assert plain_address(sock.getsockname()) == client.getpeername()
        sock.close()


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        (("::ffff:192.0.2.1", 80, 0, 0), ("192.0.2.1", 80)),
        (("::1", 80, 0, 0), ("::1", 80, 0, 0)),
        (("::ffff:0:1", 80, 0, 0), ("::ffff:0:1", 80, 0, 0)),
        (("192.0.2.1", 80), ("192.0.2.1", 80)),
        ("/run/a.sock", "/run/a.sock"),
        ("", ""),
    ],
)
def test_plain_address_unmaps_only_mapped_v4(address: Any, plain: Any) -> None:
    assert plain_address(address) == plain


# Unix sockets


def test_unix_listener_serves_and_removes_its_path(opening: Open, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    [listener] = opening(f"unix:{path}", unix_mode=0o660)
    assert (listener.address, str(listener), listener.backlog_length()) == (str(path), f"unix:{path}", None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with connect(listener) as client:
        sock, _ = listener.accept()
        client.sendall(b"x")
        assert sock.recv(10) == b"x"
        sock.close()
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_abstract_unix_listener_serves(opening: Open) -> None:
    [listener] = opening(f"unix:@moorage-{os.getpid()}")
    assert str(listener) == f"unix:@moorage-{os.getpid()}"
    with connect(listener):
        listener.accept()[0].close()
    with pytest.raises(BindError, match=rf"in use by .*\(pid {os.getpid()}\)"):
        opening(f"unix:@moorage-{os.getpid()}")


def test_unix_listener_in_a_missing_directory_is_one_sentence(opening: Open, tmp_path: Path) -> None:
    with pytest.raises(BindError, match=f"there is no directory {tmp_path}/none; make it"):
        opening(f"unix:{tmp_path}/none/a.sock")


# Inherited ones


def test_inherited_listener_is_used_as_it_is(opening: Open) -> None:
    given = socket.create_server(("127.0.0.1", 0), backlog=7)
    address = given.getsockname()
    fd = given.detach()
    os.set_inheritable(fd, True)
    [listener] = opening(f"fd://{fd}")
    assert (listener.fileno(), listener.address, listener.backlog) == (fd, address, 7)
    assert not os.get_inheritable(fd)
    with connect(listener):
        sock, _ = listener.accept()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        sock.close()


def test_inherited_dual_stack_listener_is_noticed(opening: Open) -> None:
    given = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    [listener] = opening(f"fd://{given.detach()}")
    with socket.create_connection(("127.0.0.1", listener.address[1]), timeout=10) as client:
        sock, addr = listener.accept()
        assert addr == client.getsockname()
        sock.close()


def test_inherited_unix_listener_keeps_its_path(opening: Open, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        fd = given.detach()
    [listener] = opening(f"fd://{fd}")
    listener.close()
    assert path.is_socket()


@pytest.mark.parametrize("what", ["closed", "file", "unbound", "connected", "datagram"])
def test_inherited_descriptor_that_is_no_listener_is_one_sentence_and_stays(opening: Open, what: str) -> None:
    flaw = {
        "closed": "is not open",
        "file": "is no socket",
        "unbound": "does not listen",
        "connected": "does not listen",
        "datagram": "is no stream socket",
    }[what]
    one, other = socket.socketpair()
    with one, other, socket.socket() as unbound, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        file = os.open(os.devnull, os.O_RDONLY)
        fd = {"file": file, "unbound": unbound.fileno(), "connected": one.fileno(), "datagram": datagram.fileno()}
        with pytest.raises(BindError, match=flaw):
            opening(f"fd://{fd.get(what, 99999)}")
        os.close(file)
        os.fstat(unbound.fileno())


def test_inherited_descriptor_named_twice_is_one_sentence(opening: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        with pytest.raises(BindError, match="twice"):
            opening(f"fd://{given.fileno()}", f"fd://0{given.fileno()}")
        os.fstat(given.fileno())


# All or none, and what the operator is told


def test_port_in_use_names_the_port_and_the_process(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0")
    bind = f"127.0.0.1:{listener.address[1]}"
    with pytest.raises(
        BindError, match=rf"^cannot listen on {bind}: it is in use by .* \(pid {os.getpid()}\)"
    ) as raised:
        opening(bind)
    assert raised.value.errno == errno.EADDRINUSE


def test_listeners_are_opened_all_or_none(opening: Open, tmp_path: Path) -> None:
    [taken] = opening("127.0.0.1:0")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(BindError):
        opening("127.0.0.1:0", f"unix:{tmp_path}/a.sock", f"127.0.0.1:{taken.address[1]}")
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("family", "address", "text"),
    [
        (socket.AF_INET, ("192.0.2.1", 80), "192.0.2.1:80"),
        (socket.AF_INET6, ("::1", 80, 0, 0), "[::1]:80"),
        (socket.AF_UNIX, "/run/a.sock", "unix:/run/a.sock"),
        (socket.AF_UNIX, b"\0name", "unix:@name"),
    ],
)
def test_describe_writes_an_address_as_bind_does(family: int, address: Any, text: str) -> None:
    assert describe(family, address) == text


def test_listener_accept_that_cannot_make_a_socket_closes_the_descriptor(
    opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    [listener] = opening("127.0.0.1:0")
    listener.kind = ("no family", 0, 0)  # type: ignore[assignment]  # of which no socket can be made
    with connect(listener) as client:
        with pytest.raises(TypeError):
            listener._accept_any()
        assert client.recv(1) == b""


# What was passed on


class Passed:
    """Descriptors that were passed on, by address."""

    def __init__(self, **sockets: list[socket.socket]) -> None:
        self._fds = {name: [sock.detach() for sock in given] for name, given in sockets.items()}

    def claim(self, bind: str) -> list[int]:
        return self._fds.pop(bind, [])


def passed_on(opening: Open, sockets: dict[str, list[socket.socket]], *binds: str, **settings: Any) -> list[Listener]:
    return opening(*binds, inherited=Passed(**sockets), **settings)


def test_socket_that_was_passed_on_is_taken_instead_of_bound(opening: Open) -> None:
    given = socket.create_server(("127.0.0.1", 0), backlog=7)
    bind = f"127.0.0.1:{given.getsockname()[1]}"
    fd = given.fileno()
    with socket.create_connection(given.getsockname(), timeout=10) as early:
        [listener, other] = passed_on(opening, {bind: [given]}, bind, "127.0.0.1:0", backlog=9, nodelay=False)
        assert (listener.fileno(), str(listener), listener.backlog) == (fd, bind, 9)
        assert str(other) != bind
        sock, addr = listener.accept()
        assert addr == early.getsockname()
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.close()


def test_sockets_of_one_text_are_shared_by_those_who_have_it(opening: Open) -> None:
    given = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    fds = [sock.fileno() for sock in given]
    listeners = passed_on(opening, {"127.0.0.1:0": given}, "127.0.0.1:0", "127.0.0.1:0")
    assert [listener.fileno() for listener in listeners] == fds


def test_socket_of_a_service_manager_is_taken_with_its_settings(opening: Open, tmp_path: Path) -> None:
    given = socket.socket(socket.AF_UNIX)
    given.bind(str(tmp_path / "a.sock"))
    given.listen()
    [listener] = passed_on(opening, {"systemd:web": [given]}, "systemd:web")
    listener.adopt()
    listener.close()
    assert (tmp_path / "a.sock").is_socket()  # the manager's


def test_socket_of_a_service_manager_that_there_is_not_is_one_sentence(opening: Open) -> None:
    with pytest.raises(BindError, match=r"^cannot listen on systemd:web: a service manager passes sockets on to "):
        opening("systemd:web")


def test_sockets_that_were_passed_on_are_closed_when_another_address_fails(opening: Open, tmp_path: Path) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    before = open_fds()
    kept = f"{given.fileno()} {os.readlink(f'/proc/self/fd/{given.fileno()}')}"
    with pytest.raises(BindError, match="no directory"):
        passed_on(opening, {"127.0.0.1:1": [given]}, f"unix:{tmp_path}/none/a", "127.0.0.1:1")
    assert open_fds() == before - {kept}


def test_socket_that_was_passed_on_and_does_not_listen_is_one_sentence(opening: Open) -> None:
    with pytest.raises(BindError, match=r"cannot listen on 127\.0\.0\.1:1: descriptor \d+ is a socket that does not"):
        passed_on(opening, {"127.0.0.1:1": [socket.socket()]}, "127.0.0.1:1")


def test_path_that_was_passed_on_is_removed_only_after_it_was_adopted(opening: Open, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    [old] = opening(f"unix:{path}")
    [new] = passed_on(opening, {f"unix:{path}": [old.socket.dup()]}, f"unix:{path}")
    new.close()
    assert path.is_socket()
    [new] = passed_on(opening, {f"unix:{path}": [old.socket.dup()]}, f"unix:{path}")
    old.disown()
    old.close()
    assert path.is_socket()
    new.adopt()
    new.close()
    assert list(tmp_path.iterdir()) == []


# Changed by a reload


def settings_of(*binds: str, **settings: Any) -> list[ListenerSettings]:
    return [ListenerSettings(bind=bind, **settings) for bind in binds]


def test_address_that_stays_keeps_its_socket_and_who_waits_there(opening: Open) -> None:
    kept, gone = opening("127.0.0.1:0", "[::1]:0")
    with connect(kept) as client:
        change = change_listeners([kept, gone], settings_of("127.0.0.2:0", "127.0.0.1:0"))
        [added] = change.added
        assert change.listeners == [added, kept]
        assert change.removed == [gone]
        sock, addr = kept.accept()
        assert addr == client.getsockname()
        sock.close()
        added.close()
    assert gone.fileno() >= 0  # closing it is the caller's


def test_addresses_of_one_text_stay_as_many_as_they_are(opening: Open) -> None:
    both = opening("127.0.0.1:0", "127.0.0.1:0")
    for listener in both:
        listener.settings = both[0].settings
    change = change_listeners(both, settings_of("127.0.0.1:0", "127.0.0.1:0"))
    assert (change.listeners, change.added, change.removed) == (both, [], [])
    change = change_listeners(both[:1], settings_of("127.0.0.1:0", "127.0.0.1:0"))
    assert change.listeners == [both[0], *change.added]
    change.added[0].close()


def test_new_settings_are_applied_to_what_stays_when_the_change_is(opening: Open, tmp_path: Path) -> None:
    tcp, unix = opening("127.0.0.1:0", f"unix:{tmp_path}/a.sock", backlog=5)
    change = change_listeners(
        [tcp, unix], settings_of(tcp.settings.bind, unix.settings.bind, backlog=6, nodelay=False, unix_mode=0o660)
    )
    assert (tcp.backlog, stat.S_IMODE((tmp_path / "a.sock").stat().st_mode)) == (5, 0o600)
    change.apply()
    assert (tcp.backlog, stat.S_IMODE((tmp_path / "a.sock").stat().st_mode)) == (6, 0o660)
    with connect(tcp):
        sock, _ = tcp.accept()
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.close()


def test_setting_that_an_open_socket_cannot_take_on_is_named(opening: Open) -> None:
    [listener] = opening("[::1]:0")
    assert change_listeners([listener], settings_of("[::1]:0", v6only=False)).unchanged == ["v6only of [::1]:0"]
    assert change_listeners([listener], settings_of("[::1]:0")).unchanged == []


def test_change_that_fails_leaves_nothing_of_it_open(opening: Open, tmp_path: Path) -> None:
    [listener] = opening("127.0.0.1:0")
    before = open_fds()
    with pytest.raises(BindError, match="no directory"):
        change_listeners([listener], settings_of("127.0.0.1:0", "127.0.0.2:0", f"unix:{tmp_path}/none/a"))
    assert open_fds() == before


# What is consulted for its clients


def rules_in(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines))
    return str(path)


def test_files_are_read_once_for_all_sockets_of_one_setting(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(monkeypatch)
    named = opening("localhost:0", "127.0.0.1:0")
    assert len(reading.files) == 2
    assert [listener.files for listener in named[:-1]] == [reading.files[0]] * (len(named) - 1)
    assert named[-1].files == reading.files[1]


def test_files_are_read_for_a_socket_that_was_passed_on(opening: Open, tmp_path: Path) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    [listener] = passed_on(
        opening, {"127.0.0.1:1": [given]}, "127.0.0.1:1", rules_file=rules_in(tmp_path / "r", "deny 10.0.0.0/8")
    )
    assert listener.rules is not None
    assert not listener.rules.admits(("10.0.0.1", 1))


def test_mistake_in_a_file_leaves_nothing_open(opening: Open, tmp_path: Path) -> None:
    before = open_fds()
    path = rules_in(tmp_path / "r", "deny 10.0.0.0/8", "denny 10.0.0.0/8")
    with pytest.raises(SettingError, match=f"{path}.*line 2|line 2.*{path}"):
        opening("127.0.0.1:0", f"unix:{tmp_path}/a.sock", rules_file=path)
    assert open_fds() == before
    assert not (tmp_path / "a.sock").exists()


def test_files_are_read_again_at_a_change_and_swapped_when_it_is_applied(
    opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(monkeypatch)
    both = opening("127.0.0.1:0", "localhost:0")
    change = change_listeners(both, settings_of("127.0.0.1:0", "localhost:0", "127.0.0.2:0"))
    assert (both[0].files, change.added[0].files) == (reading.files[0], reading.files[4])
    change.apply()
    assert [listener.files for listener in both] == [reading.files[2]] + [reading.files[3]] * (len(both) - 1)
    change.added[0].close()


def test_mistake_in_a_file_refuses_the_change_and_changes_nothing(opening: Open, tmp_path: Path) -> None:
    path = rules_in(tmp_path / "r", "deny 10.0.0.0/8")
    [listener] = opening("127.0.0.1:0", rules_file=path)
    rules, before = listener.rules, open_fds()
    rules_in(tmp_path / "r", "deny 10.0.0.0/33")
    with pytest.raises(SettingError, match=r"10\.0\.0\.0/33"):
        change_listeners([listener], settings_of("127.0.0.2:0", "127.0.0.1:0", rules_file=path))
    assert listener.rules is rules
    assert open_fds() == before


def test_change_renewed_in_a_worker_leaves_the_socket_as_it_is(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    [listener] = opening("127.0.0.1:0", backlog=5)
    reading = Reading(monkeypatch)
    change_listeners([listener], settings_of("127.0.0.1:0", backlog=6, nodelay=False)).renew()
    assert (listener.files, listener.settings.backlog) == (reading.files[0], 6)
    assert listener.backlog == 5
    assert listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_change_that_one_listener_cannot_take_on_is_taken_back_from_all(
    opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = opening("127.0.0.1:0", "127.0.0.2:0", backlog=5)
    reading = Reading(monkeypatch)
    old = first.settings, first.files
    change = change_listeners([first, second], settings_of("127.0.0.1:0", "127.0.0.2:0", backlog=6, nodelay=False))

    def refuse(settings: ListenerSettings, files: ListenerFiles | None = None) -> None:
        raise BindError("this kernel refuses")

    monkeypatch.setattr(second, "apply", refuse)
    with pytest.raises(BindError, match="this kernel refuses"):
        change.apply()
    assert (first.settings, first.files, first.backlog) == (*old, 5)
    assert first.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert len(reading.files) == 2


def test_settings_that_a_path_or_a_buffer_keeps_are_named(opening: Open, tmp_path: Path) -> None:
    tcp, unix = opening("127.0.0.1:0", f"unix:{tmp_path}/a", receive_buffer=65536, unix_group=str(os.getegid()))
    change = change_listeners([tcp, unix], settings_of(tcp.settings.bind, unix.settings.bind))
    assert change.unchanged == ["receive_buffer of 127.0.0.1:0", f"unix_group of unix:{tmp_path}/a"]


def test_owner_that_this_host_does_not_know_refuses_the_change(opening: Open, tmp_path: Path) -> None:
    [listener] = opening(f"unix:{tmp_path}/a")
    with pytest.raises(SettingError, match="unix_user = 'nobody-at-all'"):
        change_listeners([listener], settings_of(listener.settings.bind, unix_user="nobody-at-all"))


@pytest.mark.parametrize("bind", ["fd://0", "systemd:web"])
def test_address_that_is_passed_on_cannot_be_added_later(bind: str) -> None:
    with pytest.raises(BindError, match=f"^cannot listen on {bind}: sockets are passed on only at the start"):
        change_listeners([], settings_of(bind))


def test_address_that_this_server_shuts_out_itself_says_so(opening: Open) -> None:
    [listener] = opening("127.0.0.1:0")
    port = listener.address[1]
    with pytest.raises(BindError, match=rf"^cannot listen on 0\.0\.0\.0:{port}: this server listens there already"):
        change_listeners([listener], settings_of(f"0.0.0.0:{port}"))
