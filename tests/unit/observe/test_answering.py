"""Answering: bounds on the clients of a supervisor, whatever they do."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moorage.errors import BindError, SettingError
from moorage.observe.answering import (
    ANSWER_SECONDS,
    MOST_CLIENTS,
    PAUSE_SECONDS,
    REQUEST_LIMIT,
    Answering,
    open_own,
)
from support.answering import Caller, Turner
from support.sockets import open_fds, reset


class Echo:
    """Answers a line with itself, `size` times."""

    def __init__(self) -> None:
        self.size = 1
        self.is_open = True
        self.before_reply: Callable[[], object] = lambda: None

    def admits(self, sock: socket.socket) -> bool:
        return self.is_open

    def reply(self, received: bytes) -> bytes | None:
        line, end, _ = received.partition(b"\n")
        if not end:
            return None
        self.before_reply()
        return line * self.size

    def refuse_long(self) -> bytes:
        return b"too long"


@pytest.fixture
def turner() -> Iterator[Turner]:
    turner = Turner()
    yield turner
    turner.watch.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture(params=["tcp", "unix"])
def answering(request: pytest.FixtureRequest, turner: Turner, echo: Echo, tmp_path: Path) -> Iterator[Answering]:
    bind = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/s"
    answering = Answering(open_own(bind, "metrics"), turner.watch, echo, turner.clock)
    yield answering
    answering.close()


@pytest.fixture
def call(turner: Turner, answering: Answering) -> Iterator[Callable[..., Caller]]:
    callers: list[Caller] = []

    def call(**options: int) -> Caller:
        caller = Caller(turner, answering.listeners[0].address, **options)
        callers.append(caller)
        turner.settle()
        return caller

    yield call
    for caller in callers:
        caller.sock.close()


def test_request_gets_its_reply_and_end_of_stream(call: Callable[..., Caller], turner: Turner) -> None:
    caller = call()
    caller.send(b"hello\n")
    assert caller.reply() == b"hello"
    turner.settle()
    assert turner.watch._parked == {}
    assert turner.watch._timers.delay() is None


def test_client_of_a_suspended_one_waits_until_it_resumes(
    answering: Answering, call: Callable[..., Caller], turner: Turner
) -> None:
    answering.suspend()
    caller = call()
    caller.send(b"hello\n")
    turner.settle()
    assert not caller.is_closed()
    answering.resume()
    assert caller.reply() == b"hello"


def test_request_in_pieces_is_answered_when_it_is_complete(call: Callable[..., Caller]) -> None:
    caller = call()
    for piece in (b"he", b"ll", b"o"):
        caller.send(piece)
        assert not caller.is_closed()
    caller.send(b"\n")
    assert caller.reply() == b"hello"


def test_end_of_stream_after_half_a_request_closes_without_a_reply(call: Callable[..., Caller]) -> None:
    caller = call()
    caller.send(b"hel")
    caller.sock.shutdown(socket.SHUT_WR)
    assert caller.reply() == b""


def test_client_that_half_closes_after_its_request_is_answered(call: Callable[..., Caller]) -> None:
    caller = call()
    caller.sock.send(b"hello\n")
    caller.sock.shutdown(socket.SHUT_WR)
    assert caller.reply() == b"hello"


def test_request_above_the_limit_is_refused_and_the_rest_does_not_destroy_the_reply(
    call: Callable[..., Caller],
) -> None:
    caller = call()
    caller.sock.send(b"x" * (REQUEST_LIMIT + 50_000))
    assert caller.reply() == b"too long"


def test_request_at_the_limit_is_answered(call: Callable[..., Caller]) -> None:
    caller = call()
    caller.send(b"x" * (REQUEST_LIMIT - 1) + b"\n")
    assert caller.reply() == b"x" * (REQUEST_LIMIT - 1)


@pytest.mark.parametrize("said", [b"", b"hel", b"hello\n"])
def test_client_is_closed_when_its_time_is_over_whatever_it_has_said(
    call: Callable[..., Caller], turner: Turner, said: bytes
) -> None:
    caller = call()
    caller.send(said) if said else turner.settle()
    turner.pass_time(ANSWER_SECONDS - 0.1)
    assert len(turner.watch._parked) == 1  # also the last: it was told end of stream and does not answer it
    turner.pass_time(0.2)
    assert turner.watch._parked == {}
    caller.sock.setblocking(True)
    assert caller.sock.recv(100) == (b"hello" if said.endswith(b"\n") else b"")


def test_byte_now_and_then_buys_no_time(call: Callable[..., Caller], turner: Turner) -> None:
    caller = call()
    for _ in range(5):
        turner.pass_time(ANSWER_SECONDS / 5 + 0.01)
        if not caller.is_closed():
            caller.send(b"x")
    assert turner.watch._parked == {}
    assert caller.is_closed()


def test_client_that_never_reads_holds_up_nobody_and_is_cut(
    call: Callable[..., Caller], turner: Turner, echo: Echo
) -> None:
    echo.size = 4 << 20
    deaf = call(receive_buffer=4096)
    deaf.send(b"x\n")
    assert len(turner.watch._parked) == 1
    turner.watch.turn(0)
    assert turner.watch._poll.poll(0) == []  # waits for it to read, and does not spin
    echo.size = 1
    caller = call()
    caller.send(b"hello\n")
    assert caller.reply() == b"hello"
    turner.pass_time(ANSWER_SECONDS + 0.1)
    assert turner.watch._parked == {}


def test_large_reply_reaches_a_client_that_reads_slowly(
    call: Callable[..., Caller], turner: Turner, echo: Echo
) -> None:
    echo.size = 4 << 20
    caller = call(receive_buffer=4096)
    caller.send(b"x\n")
    assert caller.reply() == b"x" * echo.size


def test_reset_is_only_an_end(call: Callable[..., Caller], turner: Turner, echo: Echo) -> None:
    echo.size = 4 << 20
    for said in (b"hel", b"hello\n"):
        caller = call(receive_buffer=4096)
        caller.send(said)
        reset(caller.sock)
        turner.until(lambda: not turner.watch._parked)
    assert turner.watch._timers.delay() is None


def test_one_client_too_many_takes_the_place_of_the_oldest(call: Callable[..., Caller], turner: Turner) -> None:
    callers = [call() for _ in range(MOST_CLIENTS)]
    assert not any(caller.is_closed() for caller in callers)
    late = call()
    assert [caller.is_closed() for caller in callers] == [True] + [False] * (MOST_CLIENTS - 1)
    late.send(b"hello\n")
    assert late.reply() == b"hello"


def test_many_at_once_are_all_answered(turner: Turner, answering: Answering) -> None:
    callers = [Caller(turner, answering.listeners[0].address) for _ in range(MOST_CLIENTS)]
    for number, caller in enumerate(callers):
        caller.sock.send(b"%d\n" % number)
    assert [caller.reply() for caller in callers] == [b"%d" % number for number in range(MOST_CLIENTS)]


def test_second_request_on_a_connection_is_not_read(call: Callable[..., Caller]) -> None:
    caller = call()
    caller.send(b"one\ntwo\n")
    assert caller.reply() == b"one"


def test_client_that_is_not_admitted_is_closed(call: Callable[..., Caller], echo: Echo) -> None:
    echo.is_open = False
    assert call().is_closed()


def test_dialogue_that_raises_ends_its_client_and_is_told_in_the_log(
    call: Callable[..., Caller], echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    echo.before_reply = fail
    caller = call()
    caller.send(b"hello\n")
    assert caller.reply() == b""
    assert "a request could not be answered" in caplog.text
    echo.before_reply = lambda: None
    caller = call()
    caller.send(b"hello\n")
    assert caller.reply() == b"hello"


def test_want_of_descriptors_pauses_accept_and_spins_not(
    turner: Turner, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted:
        tries = 0

        def accept(self) -> None:
            self.tries += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    exhausted, listener = Exhausted(), answering.listeners[0]
    with monkeypatch.context() as patch:
        caller = Caller(turner, listener.address)
        fd, real = listener.fileno(), listener.socket
        patch.setattr(listener, "socket", exhausted)
        patch.setattr(listener, "fileno", lambda: fd)
        for _ in range(5):
            turner.watch.turn(0)
        assert exhausted.tries == 1
        patch.setattr(listener, "socket", real)
        caller.sock.send(b"hello\n")
        turner.pass_time(PAUSE_SECONDS + 0.1)
        assert caller.reply() == b"hello"


def test_close_gives_every_descriptor_back(turner: Turner, echo: Echo, tmp_path: Path) -> None:
    before = open_fds()
    answering = Answering(open_own(f"unix:{tmp_path}/s", "control"), turner.watch, echo, turner.clock)
    callers = [Caller(turner, f"{tmp_path}/s") for _ in range(3)]
    turner.settle()
    answering.close()
    answering.close()
    assert all(caller.is_closed() for caller in callers)
    for caller in callers:
        caller.sock.close()
    assert open_fds() == before
    assert os.listdir(tmp_path) == []
    assert turner.watch._timers.delay() is None


def test_close_asked_for_by_a_client_still_gives_the_reply(
    call: Callable[..., Caller], echo: Echo, answering: Answering
) -> None:
    echo.before_reply = answering.close
    caller = call()
    caller.send(b"stop\n")
    assert caller.reply() == b"stop"


def test_close_during_a_pause_ends_the_pause(turner: Turner, answering: Answering) -> None:
    answering._unlisten()
    answering._pause = turner.watch.call_at(turner.clock() + PAUSE_SECONDS, answering._listen)
    answering.close()
    turner.pass_time(PAUSE_SECONDS + 0.1)
    assert len(turner.watch._listening) == 2  # its own two


def test_forked_child_closes_its_copies_and_leaves_the_rest_to_the_parent(
    call: Callable[..., Caller], turner: Turner, answering: Answering
) -> None:
    caller = call()
    caller.send(b"hel")
    pid = os.fork()
    if pid == 0:
        fds = [*answering.sockets(), *turner.watch._parked]
        answering.leave_to_parent()
        os._exit(sum(os.path.exists(f"/proc/self/fd/{fd}") for fd in fds))
    assert os.waitpid(pid, 0)[1] == 0
    caller.send(b"lo\n")
    assert caller.reply() == b"hello"
    late = call()
    late.send(b"here\n")
    assert late.reply() == b"here"


# The listeners


@pytest.mark.parametrize(
    ("bind", "sentence"),
    [
        ("127.0.0.1", "the address '127.0.0.1' (the setting metrics) cannot be used: write host:port"),
        ("192.0.2.1:0", "cannot listen on 192.0.2.1:0: this host has no such address"),
        ("unix:absent/s", "make it, or choose another path with `metrics`"),
    ],
)
def test_address_that_cannot_be_used_is_a_sentence_that_names_the_setting(
    bind: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((BindError, SettingError)) as caught:
        open_own(bind, "metrics")
    assert sentence in str(caught.value)
    assert "`bind`" not in str(caught.value)


def passed_on(family: int, address: str | tuple[str, int]) -> int:
    """A listening socket of the program before this one."""
    with socket.socket(family) as sock:
        sock.bind(address)
        sock.listen()
        return sock.detach()


def test_inherited_socket_is_used_instead_of_a_new_one(turner: Turner, echo: Echo) -> None:
    fd = passed_on(socket.AF_INET, ("127.0.0.1", 0))
    with socket.socket(fileno=os.dup(fd)) as copy:
        address = copy.getsockname()
    answering = Answering(open_own(f"localhost:{address[1]}", "metrics", [fd]), turner.watch, echo, turner.clock)
    assert answering.sockets() == [fd]
    assert str(answering) == f"127.0.0.1:{address[1]}"
    caller = Caller(turner, address)
    caller.send(b"hello\n")
    assert caller.reply() == b"hello"
    answering.close()


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix:{}/old", "fd://3", "systemd:metrics"])
def test_inherited_socket_fits_where_it_is(bind: str, tmp_path: Path) -> None:
    is_unix = bind.startswith("unix")
    fd = passed_on(*((socket.AF_UNIX, f"{tmp_path}/old") if is_unix else (socket.AF_INET, ("127.0.0.1", 0))))
    listeners = open_own(bind.format(tmp_path), "metrics", [fd])
    assert [listener.fileno() for listener in listeners] == [fd]
    listeners[0].close()


@pytest.mark.parametrize("bind", ["127.0.0.2:0", "unix:{}/new", "unix:@moorage-test-new"])
def test_inherited_socket_that_is_elsewhere_is_closed_and_a_new_one_opened(bind: str, tmp_path: Path) -> None:
    fd = passed_on(socket.AF_UNIX, f"{tmp_path}/old")
    inode = os.fstat(fd).st_ino
    (listener,) = open_own(bind.format(tmp_path), "metrics", [fd])
    assert os.fstat(listener.fileno()).st_ino != inode
    assert str(listener) == bind.format(tmp_path) or bind.startswith("127")
    listener.close()
