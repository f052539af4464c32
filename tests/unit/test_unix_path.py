"""Unix paths: whose they are, and who may take them."""

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from moorage import unix_path
from moorage.config import ListenerSettings, parse_address
from moorage.errors import BindError, SettingError
from moorage.unix_path import UnixPath, owner_of, unix_error


class SpySocket(socket.socket):
    """Remembers what its path looked like when it began to listen."""

    mode_at_listen = 0
    owner_at_listen = (-1, -1)

    def listen(self, backlog: int = 128, /) -> None:
        found = os.stat(self.getsockname())
        self.mode_at_listen = stat.S_IMODE(found.st_mode)
        self.owner_at_listen = found.st_uid, found.st_gid
        super().listen(backlog)


@pytest.fixture
def sock() -> Iterator[SpySocket]:
    with SpySocket(socket.AF_UNIX) as sock:
        yield sock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


def as_set(path: Path | str, mode: int = 0o600, **settings: Any) -> ListenerSettings:
    return ListenerSettings(bind=f"unix:{path}", unix_mode=mode, **settings)


def listen(path: Path | str, sock: socket.socket, mode: int = 0o600, **settings: Any) -> UnixPath:
    name = UnixPath(str(path), as_set(path, mode, **settings))
    name.listen(sock, 64)
    return name


def die_on(path: Path) -> None:
    """Leave the file of a server that crashed."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


def test_path_is_made_with_its_mode_whatever_the_umask(path: Path, sock: SpySocket) -> None:
    old = os.umask(0o077)
    try:
        listen(path, sock, 0o660)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_path_has_its_mode_before_anyone_can_connect(path: Path, sock: SpySocket) -> None:
    old = os.umask(0)
    try:
        listen(path, sock, 0o600)
    finally:
        os.umask(old)
    assert sock.mode_at_listen == 0o600


def test_path_of_a_dead_server_is_replaced(path: Path, sock: SpySocket) -> None:
    die_on(path)
    listen(path, sock)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_path_of_a_live_server_is_never_taken(path: Path, sock: SpySocket) -> None:
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        with pytest.raises(BindError, match=rf"in use by .*\(pid {os.getpid()}\)"):
            listen(path, sock)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_path_of_a_live_server_with_a_full_backlog_is_never_taken(path: Path, sock: SpySocket) -> None:
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(path))
            with pytest.raises(BindError, match="in use"):
                listen(path, sock)
    assert path.is_socket()


def test_path_of_a_socket_of_another_kind_is_never_taken(path: Path, sock: SpySocket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as live:
        live.bind(str(path))
        with pytest.raises(BindError, match="in use by another process"):
            listen(path, sock)
    assert path.is_socket()


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_path_that_is_no_socket_is_left_alone(path: Path, sock: SpySocket, what: str) -> None:
    if what == "file":
        path.write_text("dear diary")
    elif what == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(BindError, match="no socket"):
        listen(path, sock)
    assert os.path.lexists(path)


def test_path_is_removed_and_no_lock_is_left(path: Path, sock: SpySocket) -> None:
    name = listen(path, sock)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.sock"]
    name.remove()
    name.remove()
    assert list(path.parent.iterdir()) == []


def test_path_that_somebody_else_made_meanwhile_is_not_removed(path: Path, sock: SpySocket) -> None:
    name = listen(path, sock)
    path.rename(path.with_name("moved.sock"))  # so that its inode is not given out again
    die_on(path)
    name.remove()
    assert path.is_socket()


def test_path_is_removed_only_by_the_process_that_made_it(path: Path, sock: SpySocket) -> None:
    name = listen(path, sock)
    pid = os.fork()
    if pid == 0:
        name.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert path.is_socket()


def test_path_that_was_disowned_is_left(path: Path, sock: SpySocket) -> None:
    name = listen(path, sock)
    name.disown()
    name.remove()
    assert path.is_socket()


def test_path_that_was_adopted_is_removed(path: Path, sock: SpySocket) -> None:
    listen(path, sock).disown()
    heir = UnixPath(str(path), as_set(path))
    heir.remove()
    assert path.is_socket()
    heir.adopt()
    heir.remove()
    assert not path.exists()


def test_path_that_is_no_socket_is_not_adopted(path: Path) -> None:
    heir = UnixPath(str(path), as_set(path))
    heir.adopt()  # it is gone
    path.write_text("dear diary")
    heir.adopt()
    heir.remove()
    assert path.read_text() == "dear diary"


def test_mode_is_set_on_our_own_path_only(path: Path, sock: SpySocket) -> None:
    name = listen(path, sock)
    name.permit(as_set(path, 0o660))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    path.unlink()
    path.write_text("dear diary")
    path.chmod(0o600)
    name.permit(as_set(path, 0o666))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


ANOTHER = 65534  # a number that is neither root's nor ours; it needs no name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_path_has_its_owner_before_anyone_can_connect(path: Path, sock: SpySocket) -> None:
    listen(path, sock, 0o660, unix_user=str(ANOTHER), unix_group=str(ANOTHER - 1))
    assert sock.owner_at_listen == (ANOTHER, ANOTHER - 1)
    assert sock.mode_at_listen == 0o660


def test_path_may_be_given_to_a_group_of_this_user_by_number_or_name(path: Path, sock: SpySocket) -> None:
    number = os.getegid()
    listen(path, sock, unix_group=str(number))
    assert path.stat().st_gid == number
    assert owner_of(as_set(path, unix_group=grp.getgrgid(number).gr_name)) == (-1, number)
    assert owner_of(as_set(path, unix_user=pwd.getpwuid(os.geteuid()).pw_name)) == (os.geteuid(), -1)


@pytest.mark.parametrize("setting", ["unix_user", "unix_group"])
@pytest.mark.parametrize("name", ["nobody-at-all", str((1 << 32) - 1), "-1", "\udc80"])
def test_owner_that_this_host_does_not_know_is_one_sentence(path: Path, setting: str, name: str) -> None:
    given: dict[str, Any] = {setting: name}
    with pytest.raises(SettingError, match=rf"^{setting} = .* of unix:.*a\.sock: there is no .* choose another with"):
        UnixPath(str(path), as_set(path, **given))


def refuse_to_chown(monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)


def test_path_that_cannot_be_given_away_is_one_sentence_and_not_left(
    path: Path, sock: SpySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_chown(monkeypatch)
    with pytest.raises(
        BindError, match=r"cannot be given to unix_user = 0 and unix_group = 7 \(Operation not permitted"
    ):
        listen(path, sock, unix_user="0", unix_group="7")
    assert list(path.parent.iterdir()) == []


def test_owner_is_changed_on_our_own_path_only(path: Path, sock: SpySocket, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, int, int]] = []
    name = listen(path, sock)
    monkeypatch.setattr(os, "chown", lambda path, user, group, **_: given.append((path, user, group)))
    name.permit(as_set(path, unix_user="5"))
    name.permit(as_set(path, unix_user="5"))
    assert given == [(str(path), 5, -1)]
    path.unlink()
    path.write_text("dear diary")
    name.permit(as_set(path, unix_user="6"))
    assert len(given) == 1


def test_owner_that_cannot_be_changed_is_one_sentence_and_stays(
    path: Path, sock: SpySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = listen(path, sock)
    refuse_to_chown(monkeypatch)
    for _ in range(2):  # the second time it is still a change
        with pytest.raises(BindError, match="cannot be given to unix_user = 5"):
            name.permit(as_set(path, 0o666, unix_user="5"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_owner_that_is_no_longer_named_stays_and_is_told(path: Path, sock: SpySocket) -> None:
    name = listen(path, sock, unix_group=str(os.getegid()))
    assert name.unchangeable(as_set(path)) == ["unix_group"]
    assert name.unchangeable(as_set(path, unix_group="7")) == []


def test_directory_that_is_forbidden_or_missing_is_one_sentence() -> None:
    name = UnixPath("/x/a", as_set("/x/a"))
    error = unix_error(parse_address("unix:/x/a"), name, PermissionError(errno.EACCES, "no"))
    assert str(error) == "cannot listen on unix:/x/a: this user may not write in /x; choose a directory of its own"
    assert error.errno == errno.EACCES
    error = unix_error(parse_address("unix:/x/a"), name, FileNotFoundError(errno.ENOENT, "no"))
    assert "there is no directory /x; make it" in str(error)
    error = unix_error(parse_address("unix:/x/a"), name, OSError(errno.EIO, "Input/output error"))
    assert str(error).endswith(": Input/output error; choose another path with `bind`")


def test_path_is_found_again_after_a_change_of_directory(
    path: Path, sock: SpySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    name = listen("a.sock", sock)
    monkeypatch.chdir("/")
    name.remove()
    assert not path.exists()


def test_path_in_a_directory_that_is_gone_is_removed_quietly(tmp_path: Path, sock: SpySocket) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    name = listen(folder / "a.sock", sock)
    (folder / "a.sock").unlink()
    folder.rmdir()
    name.remove()


def test_path_whose_listen_fails_is_not_left_behind(path: Path) -> None:
    class Refusing(socket.socket):
        def listen(self, backlog: int = 128, /) -> None:
            raise OSError(errno.ENOMEM, "no memory")

    with Refusing(socket.AF_UNIX) as sock, pytest.raises(OSError, match="no memory"):
        listen(path, sock)
    assert list(path.parent.iterdir()) == []


def test_path_locked_for_long_is_one_sentence(path: Path, sock: SpySocket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_path, "LOCK_SECONDS", 0.02)
    lock = path.with_name("a.sock.lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BindError, match=r"a\.sock\.lock"):
            listen(path, sock)
    listen(path, sock)
    assert not lock.exists()


def test_path_that_many_want_at_once_goes_to_one(path: Path) -> None:
    die_on(path)
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    start = threading.Barrier(len(sockets))
    winners: list[socket.socket] = []

    def want(sock: socket.socket) -> None:
        start.wait(10)
        with suppress(BindError):
            listen(path, sock)
            winners.append(sock)

    threads = [threading.Thread(target=want, args=(sock,)) for sock in sockets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(winners) == 1
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        winners[0].accept()[0].close()
    for sock in sockets:
        sock.close()


def test_abstract_name_needs_no_file(sock: SpySocket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as plain:
        name = listen(f"@moorage-test-{os.getpid()}", plain)
        assert plain.getsockname() == f"\0moorage-test-{os.getpid()}".encode()
        assert name.occupant() is not None
        name.remove()
    assert list(tmp_path.iterdir()) == []
