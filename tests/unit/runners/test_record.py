"""Unit tests of `moorage.runners.record`."""

import socket
import traceback

import pytest

from moorage.events import Cause, Phase
from moorage.runners.record import RECORD_BYTES, ClosingRecord, Failure


def make_record(failure: Failure | None = None) -> ClosingRecord:
    return ClosingRecord(Cause.HANDLER_ERROR, Phase.HANDLER, 12, 34, 0.5, failure)


@pytest.mark.parametrize("failure", [None, Failure("ValueError: bad", "Traceback …")])
def test_record_packed_and_unpacked_is_the_same(failure: Failure | None) -> None:
    record = make_record(failure)
    assert ClosingRecord.unpack(record.pack()) == record


def test_record_of_a_deep_traceback_fits_one_message_and_keeps_its_ends() -> None:
    packed = make_record(Failure("\0\ud800" * 10**6, "first" + "\U0001f4a5" * 10**6 + "last")).pack()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        here.send(packed, socket.MSG_DONTWAIT)
        assert there.recv(RECORD_BYTES) == packed
    record = ClosingRecord.unpack(packed)
    assert record is not None
    assert record.failure is not None
    assert record.failure.traceback.startswith("first")
    assert record.failure.traceback.endswith("last")


@pytest.mark.parametrize(
    "message",
    [b"", b"\xff", b"[]", b"null", b"7", b"{}", b'{"cause": "no such cause"}', make_record().pack()[:-1],
     make_record().pack().replace(b"12", b'"x"'), make_record().pack().replace(b"handler_error", b"[]"),
     make_record().pack().replace(b"null", b"[1]"), b"[" * 100_000],
)  # fmt: skip
def test_unpack_of_anything_else_is_none(message: bytes) -> None:
    assert ClosingRecord.unpack(message) is None


def test_failure_as_exception_shows_the_childs_traceback() -> None:
    error = Failure("ValueError: bad", "Traceback (most recent call last):\n  in the child\n").as_exception()
    text = "".join(traceback.format_exception(error))
    assert "in the child" in text
    assert text.rstrip().endswith("ChildError: ValueError: bad")
