"""ClientHello: whom a TLS client asks for, read before OpenSSL sees a byte."""

import socket
import ssl
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as some

from moorage.transport.hello import LARGEST, ClientHello
from support.sockets import PATIENCE


def hello(name: str | None, *alpn: str) -> bytes:
    """What a real client says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    return sent.read()


def records(data: bytes, size: int) -> bytes:
    """The same message in records of so many bytes."""
    body = data[5:]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(data[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def name_of(data: bytes) -> str | None:
    told = ClientHello()
    assert told.feed(data) == data
    return told.server_name


def named(name: bytes) -> bytes:
    """A hello for a name that no client of ours would ask for."""
    return hello("x" * len(name)).replace(b"x" * len(name), name)


@pytest.mark.parametrize("name", ["localhost", "WWW.Example.org", "xn--bcher-kva.example", "a" * 63, None])
def test_name_is_told_as_the_client_has_said_it(name: str | None) -> None:
    assert name_of(hello(name)) == name
    assert name_of(hello(name, "h2", "http/1.1")) == name


def test_address_is_no_name() -> None:
    assert name_of(hello("127.0.0.1")) is None


def test_hello_of_the_openssl_tool_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        command = ["openssl", "s_client", "-connect", where, "-servername", "tool.example", "-alpn", "echo"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as tool:
            with listener.accept()[0] as sock:
                told = ClientHello()
                while told.feed(sock.recv(100)) is None:
                    pass
            tool.kill()
    assert told.server_name == "tool.example"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pieces_of_any_size_give_the_same(size: int) -> None:
    data = hello("localhost", "echo")
    told = ClientHello()
    for at in range(0, len(data) - size, size):
        assert told.feed(data[at : at + size]) is None
        done = at + size
    assert told.feed(data[done:]) == data
    assert told.server_name == "localhost"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 40, 200])
def test_message_in_several_records_is_put_together(size: int) -> None:
    data = records(hello("localhost"), size)
    assert name_of(data) == "localhost"
    told = ClientHello()
    assert told.feed(data[:-1]) is None
    assert told.feed(data[-1:]) == data


def test_empty_record_before_the_hello_is_read_over() -> None:
    assert name_of(b"\x16\x03\x01\x00\x00" + hello("localhost")) == "localhost"


def test_bytes_behind_the_hello_come_out_with_it() -> None:
    assert name_of(hello("localhost") + b"more") == "localhost"


@pytest.mark.parametrize("name", [b"ab\xffcd", b"b\xc3\xbccher"])
def test_name_that_is_not_ascii_is_refused(name: bytes) -> None:
    with pytest.raises(ssl.SSLError, match="the server name in the ClientHello is not ASCII"):
        name_of(b"\x16\x03\x01\x00\x00" + named(name))


@pytest.mark.parametrize("name", [b"two\nlines", b"a b", b"nul\0", b"\x7f"])
def test_name_that_is_not_printable_is_none(name: bytes) -> None:
    assert name_of(named(name)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80\x2e\x01\x03\x01",
        b"\x15\x03\x01\x00\x02\x01\x5a",
        b"\x16\x03\x01\x00\x01\x02",
        b"\0",
    ],
)
def test_what_is_no_hello_is_passed_on_at_once(data: bytes) -> None:
    assert name_of(data) is None


def test_first_byte_alone_decides_nothing() -> None:
    assert ClientHello().feed(b"\x16") is None


def test_no_bytes_decide_nothing() -> None:
    assert ClientHello().feed(b"") is None


def test_hello_without_end_is_passed_on_when_it_is_too_large() -> None:
    told, held, piece = ClientHello(), 0, b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(0x4000 - 4)
    while held + len(piece) <= LARGEST:
        held += len(piece)
        assert told.feed(piece) is None
        piece = b"\x16\x03\x01\x40\x00" + bytes(0x4000)
    passed = told.feed(piece)
    assert passed is not None
    assert len(passed) == held + len(piece)
    assert told.server_name is None


def test_every_cut_of_a_hello_tells_no_name_and_breaks_nothing() -> None:
    """The message says that it is whole where it is not."""
    message = hello("localhost")[5:]
    parts = {"localhost"[:end] for end in range(1, 10)}
    for end in range(4, len(message)):
        cut = message[:1] + (end - 4).to_bytes(3, "big") + message[4:end]
        assert name_of(b"\x16\x03\x01" + len(cut).to_bytes(2, "big") + cut) in {None, *parts}


@given(data=some.binary(max_size=300))
def test_any_bytes_come_out_as_they_went_in(data: bytes) -> None:
    told = ClientHello()
    assert told.feed(data) in {None, data}
    message = b"\x01" + len(data).to_bytes(3, "big") + data
    try:
        name_of(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
    except ssl.SSLError:
        assert not data.isascii()


@given(at=some.integers(0, 250), byte=some.integers(0, 255))
def test_hello_with_one_byte_changed_comes_out_as_it_went_in(at: int, byte: int) -> None:
    data = bytearray(SAMPLE)
    data[at % len(data)] = byte
    told = ClientHello()
    try:
        passed = told.feed(bytes(data))
    except ssl.SSLError:
        assert byte > 127
    else:
        assert passed in {None, bytes(data)}
    assert told.server_name is None or told.server_name.isprintable()


SAMPLE = hello("localhost", "echo")
