"""Session: what it makes of bytes, whatever pieces they come in, and when there is nothing more to come."""

import ssl
from typing import Any

import pytest

from moorage.transport.tls import RECORD, Session
from support.certificates import certificates
from support.tls_pairs import NAME, client_context, server_context, shake
from support.waiting import Running

BIG = bytes(range(256)) * 400  # several records


def context(version: ssl.TLSVersion) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=certificates().ca)
    made.maximum_version = version
    return made


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def both(request: pytest.FixtureRequest) -> tuple[Session, Session]:
    return shake(client=context(request.param))


def read_all(session: Session) -> bytes:
    read = bytearray()
    while data := session.read(100_000):
        read += data
    return bytes(read)


def test_what_one_writes_the_other_reads(both: tuple[Session, Session]) -> None:
    ours, theirs = both
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        sender.write(b"hello")
        receiver.feed(sender.take())
        assert receiver.read(100) == b"hello"
        assert receiver.read(100) is None


def test_ciphertext_is_not_the_text(both: tuple[Session, Session]) -> None:
    assert b"hello" not in both[0].encrypt(b"hello")


def test_large_data_is_read_record_by_record(both: tuple[Session, Session]) -> None:
    ours, theirs = both
    theirs.write(BIG)
    first = ours.decrypt(theirs.take(), 100_000)
    assert first == BIG[:RECORD]
    assert ours.more
    assert first + read_all(ours) == BIG
    assert not ours.more


@pytest.mark.parametrize("data", [b"hello", bytearray(b"hello"), memoryview(b"hello"), BIG])
def test_every_buffer_can_be_encrypted(both: tuple[Session, Session], data: Any) -> None:
    ours, theirs = both
    theirs.feed(ours.encrypt(data))
    assert read_all(theirs) == bytes(data)


def test_nothing_is_encrypted_to_nothing(both: tuple[Session, Session]) -> None:
    assert both[0].encrypt(b"") == b""
    assert both[0].encrypt(bytearray()) == b""


def test_read_of_a_part_leaves_the_rest(both: tuple[Session, Session]) -> None:
    ours, theirs = both
    ours.feed(theirs.encrypt(b"hello"))
    assert [ours.read(2), ours.read(2), ours.read(2), ours.read(2)] == [b"he", b"ll", b"o", None]


@pytest.mark.parametrize("step", [1, 4, 7])
def test_record_in_pieces_is_read_when_it_is_whole(both: tuple[Session, Session], step: int) -> None:
    ours, theirs = both
    sent = theirs.encrypt(b"hello") + theirs.encrypt(b"you")
    got = [ours.decrypt(sent[at : at + step], 100) or b"" for at in range(0, len(sent), step)]
    assert b"".join(got) + (ours.read(100) or b"") == b"helloyou"
    assert not ours.has_input


def test_part_of_a_record_is_input_and_a_whole_one_that_was_read_is_not(both: tuple[Session, Session]) -> None:
    ours, theirs = both
    sent = theirs.encrypt(b"hello")
    seen = [ours.has_input]
    for at in range(len(sent) - 1):
        assert ours.decrypt(sent[at : at + 1], 100) is None
        seen.append(ours.has_input and ours.is_partial)
    assert ours.decrypt(sent[-1:], 100) == b"hello"
    assert [*seen, ours.has_input] == [False, *[True] * (len(sent) - 1), False]


def test_text_that_was_not_asked_for_yet_is_input(both: tuple[Session, Session]) -> None:
    ours, theirs = both
    assert ours.decrypt(theirs.encrypt(b"hello"), 2) == b"he"
    assert ours.has_input
    assert ours.read(100) == b"llo"
    assert not ours.has_input


def test_text_that_comes_with_the_last_flight_is_read_after_it() -> None:
    ours, theirs = Session(server_context()), Session(client_context(), server_hostname=NAME, server_side=False)
    assert not theirs.handshake()
    ours.feed(theirs.take())
    assert not ours.handshake()
    theirs.feed(ours.take())
    assert theirs.handshake()
    last = theirs.take() + theirs.encrypt(b"hello") + theirs.encrypt(b"more")
    ours.feed(last[:-3])
    assert ours.handshake()
    assert ours.has_input
    assert ours.read(100) == b"hello"
    assert ours.read(100) is None
    assert ours.is_partial
    assert ours.decrypt(last[-3:], 100) == b"more"


def test_info_says_what_was_agreed_on() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = certificates().server
    server.load_cert_chain(files.cert, files.key)
    server.set_alpn_protocols(["b", "c"])
    client = context(ssl.TLSVersion.TLSv1_3)
    client.set_alpn_protocols(["a", "b"])
    ours, theirs = shake(server, client)
    assert (ours.info.version, ours.info.server_name, ours.info.alpn) == ("TLSv1.3", NAME, "b")
    assert ours.info.cipher.startswith("TLS_")
    assert ours.info.peer_certificate is None
    certificate = theirs.info.peer_certificate
    assert certificate is not None
    assert ("DNS", NAME) in certificate["subjectAltName"]
    assert ours.info is ours.info


def test_client_that_names_nobody_has_no_server_name() -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    ours, _ = shake(client=client, name=None)
    assert ours.server_name is None


# The end


def test_close_notify_is_the_end_of_the_stream_again_and_again(both: tuple[Session, Session]) -> None:
    ours, theirs = both
    theirs.write(b"last")
    theirs.close_notify()
    ours.feed(theirs.take())
    assert [ours.read(100), ours.read(100), ours.read(100)] == [b"last", b"", b""]


def test_stream_that_ends_without_close_notify_ends(both: tuple[Session, Session]) -> None:
    ours, theirs = both
    ours.feed(theirs.encrypt(b"last"))
    assert ours.read(100) == b"last"
    ours.feed(b"")
    assert ours.read(100) == b""
    assert ours.decrypt(b"", 100) == b""


@pytest.mark.parametrize("kept", [1, 4, 5, 12])
def test_stream_that_ends_in_the_middle_of_a_record_is_reset(both: tuple[Session, Session], kept: int) -> None:
    ours, theirs = both
    whole, part = theirs.encrypt(b"whole"), theirs.encrypt(b"never whole")[:kept]
    assert ours.decrypt(whole + part, 100) == b"whole"
    ours.feed(b"")
    for _ in range(2):
        with pytest.raises(ConnectionResetError, match="in the middle of a TLS record"):
            ours.read(100)


@pytest.mark.parametrize("is_said", [True, False])
def test_reply_can_be_written_after_the_end_of_the_stream(both: tuple[Session, Session], is_said: bool) -> None:
    ours, theirs = both
    if is_said:
        theirs.close_notify()
    ours.feed(theirs.take())
    ours.feed(b"")
    assert ours.read(100) == b""
    theirs.feed(ours.encrypt(b"reply"))
    ours.close_notify()
    theirs.feed(ours.take())
    assert theirs.read(100) == b"reply"
    assert theirs.read(100) == b""


def test_what_was_there_before_our_close_notify_is_read_after_it(both: tuple[Session, Session]) -> None:
    ours, theirs = both
    sent = theirs.encrypt(BIG[:20000]) + theirs.encrypt(b"and this")
    assert ours.decrypt(sent[:-2], 10) == BIG[:10]
    ours.close_notify()
    assert ours.has_input
    theirs.feed(ours.take())
    assert theirs.read(10) == b""
    ours.feed(sent[-2:])
    assert BIG[:10] + read_all(ours) == BIG[:20000] + b"and this"
    ours.feed(theirs.encrypt(b"later"))
    assert ours.read(100) == b"later"
    theirs.close_notify()
    ours.feed(theirs.take())
    assert [ours.read(100), ours.read(100)] == [b"", b""]


def test_close_notify_is_said_once(both: tuple[Session, Session]) -> None:
    ours, _ = both
    ours.close_notify()
    assert ours.is_closed
    assert ours.take()
    ours.close_notify()
    assert not ours.take()
    with pytest.raises(ssl.SSLError):
        ours.write(b"more")


# Failures


def test_handshake_with_garbage_fails_with_an_alert() -> None:
    ours = Session(server_context())
    ours.feed(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ssl.SSLError, match="HTTP_REQUEST"):
        ours.handshake()
    ours = Session(server_context())
    ours.feed(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
    with pytest.raises(ssl.SSLError):
        ours.handshake()
    assert ours.take()


def test_handshake_that_ends_early_fails() -> None:
    ours, theirs = Session(server_context()), Session(client_context(), server_hostname=NAME, server_side=False)
    theirs.handshake()
    ours.feed(theirs.take()[:-1])
    assert not ours.handshake()
    ours.feed(b"")
    with pytest.raises(ssl.SSLEOFError):
        ours.handshake()


def test_record_that_was_changed_fails_with_an_alert(both: tuple[Session, Session]) -> None:
    ours, theirs = both
    sent = theirs.encrypt(b"hello")
    with pytest.raises(ssl.SSLError):
        ours.decrypt(sent[:-1] + bytes([sent[-1] ^ 1]), 100)
    assert ours.has_output
    assert ours.take()
    assert not ours.take()
    ours.close_notify()  # there is nothing to say any more


def test_session_at_work_in_another_thread_has_input(both: tuple[Session, Session]) -> None:
    ours, _ = both
    with ours._lock:
        assert Running(lambda: ours.has_input).result()
