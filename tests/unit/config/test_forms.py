"""Forms: what text means, and that nothing else does."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.config.forms import (
    READERS,
    check_network,
    check_word,
    read_flag,
    read_octal,
    read_payload,
    read_rate,
    read_size,
    read_time,
    read_triple,
    read_words,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("1.5", 1.5), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), (" 5 S ", 5)],
)
def test_time_is_read_in_every_unit(text: str, seconds: float) -> None:
    assert read_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("65536", 65536), ("64KiB", 65536), ("1.5 MiB", 1572864), ("1gib", 1 << 30), ("7B", 7)],
)
def test_size_is_read_in_every_unit(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["64k", "1MB", "1.5", "", "KiB", "-1", "1e3", "٣", "1_000", "nan", "inf"])
def test_size_that_is_doubtful_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_size(text)


@pytest.mark.parametrize("text", ["1m30s", "5 minutes", "", "s", "-1s", "nan", "inf", "1e9", "1..2"])
def test_time_that_is_doubtful_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_time(text)


def test_flag_is_read_from_words_for_on_and_off() -> None:
    assert [read_flag(word) for word in ("on", "Yes", "true", "1")] == [True] * 4
    assert [read_flag(word) for word in ("off", "NO", "false", "0")] == [False] * 4


def test_permissions_are_octal_with_and_without_prefix() -> None:
    assert read_octal("660") == read_octal("0o660") == read_octal("0660") == 0o660


def test_keepalive_is_read_between_slashes() -> None:
    assert read_triple("60/15/4") == (60, 15, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.0/8 ::1", ("10.0.0.0/8", "::1")),
        ("  one\ttwo\n", ("one", "two")),
        ("'/a b.pem' c.pem", ("/a b.pem", "c.pem")),
        ("", ()),
        ("none", ()),
        (" OFF ", ()),
    ],
)
def test_words_are_read_between_blanks(text: str, words: tuple[str, ...]) -> None:
    assert read_words(text) == words


def test_words_with_an_open_quote_are_refused() -> None:
    with pytest.raises(ValueError):
        read_words("'/a b.pem")


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100", 100), ("0.5", 0.5), ("100/s", 100), ("30/m", 0.5), ("36 / h", 0.01), ("1000000000", 1e9)],
)
def test_rate_is_read_for_each_second_minute_and_hour(text: str, rate: float) -> None:
    assert read_rate(text) == rate


@pytest.mark.parametrize("text", ["", "/s", "100/d", "100 per second", "-1", "1e3", "nan", "100//s", "100ms"])
def test_rate_that_is_doubtful_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_rate(text)


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.0.0.1", "10.0.0.0/255.0.0.0", "2001:db8::/32", "::1", "all"])
def test_network_is_one_address_or_all(text: str) -> None:
    check_network(text)


@pytest.mark.parametrize(
    "text", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "example.org", "", " 10.0.0.0/8", "ALL", "\u0661.0.0.0"]
)
def test_network_that_is_doubtful_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        check_network(text)


@pytest.mark.parametrize("text", ["", "a\0b", "none", "Off"])
def test_word_of_a_list_that_says_there_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        check_word(text)
    check_word("/none")


def test_payload_from_a_shell_may_escape_control_characters() -> None:
    assert read_payload(r"busy\r\n\x00\\n", shell=True) == b"busy\r\n\x00\\n"


def test_payload_from_a_file_is_taken_as_it_is() -> None:
    assert read_payload(r"busy\r\n") == rb"busy\r\n"


@pytest.mark.parametrize("text", ["\\", "\\q", "\\x1", "a\\"])
def test_payload_with_an_unknown_escape_is_refused(text: str) -> None:
    if text in ("\\", "a\\"):  # nothing to escape: the backslash itself
        assert read_payload(text, shell=True) == text.encode()
    else:
        with pytest.raises(ValueError):
            read_payload(text, shell=True)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@given(text=st.text())
def test_any_text_is_read_or_a_value_error(read: Callable[[str], object], text: str) -> None:
    try:
        read(text)
    except ValueError:
        pass


@given(st.text(alphabet="\\xrnt0aé\udc80"))
def test_any_payload_from_a_shell_is_read_or_a_value_error(text: str) -> None:
    try:
        assert isinstance(read_payload(text, shell=True), bytes)
    except ValueError:
        pass
