"""Addresses: what is one, and the sentence for what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.config.address import Address, describe, parse_address
from moorage.errors import SettingError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:20000", Address("tcp", host="127.0.0.1", port=20000)),
        ("localhost:0", Address("tcp", host="localhost", port=0)),
        ("[::1]:65535", Address("tcp", host="::1", port=65535)),
        ("[fe80::1%eth0]:1", Address("tcp", host="fe80::1%eth0", port=1)),
        ("unix:/run/x.sock", Address("unix", path="/run/x.sock")),
        ("unix:run/x y", Address("unix", path="run/x y")),
        ("unix:@name", Address("unix", path="@name")),
        ("fd://3", Address("fd", fd=3)),
        ("systemd:web", Address("systemd", name="web")),
        ("systemd:my web.socket", Address("systemd", name="my web.socket")),
    ],
)
def test_address_is_parsed_and_said_again(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "host:port"),
        ("127.0.0.1", "host:port"),
        (":80", "0.0.0.0:80"),
        ("::1:80", r"\[::1\]:80"),
        ("[::1]", "port is missing"),
        ("[localhost]:1", "IPv6 address"),
        ("localhost:65536", "0 to 65535"),
        ("localhost:-1", "no known kind"),
        ("localhost:http", "number for the port"),
        ("systemd:", "FileDescriptorName="),
        ("systemd:a:b", "FileDescriptorName="),
        ("systemd:wäb", "FileDescriptorName="),
        ("systemd:" + "a" * 256, "FileDescriptorName="),
        ("tcp://127.0.0.1:80", "no known kind"),
        ("a b:80", "no known kind"),
        ("unix:", "no path"),
        ("unix:@", "no path"),
        ("unix:/a\0b", "NUL"),
        ("unix:/a\nb", "control characters"),
        ("unix:@\x1b[2J", "control characters"),
        ("x" * 5000, r"'x{120}\.\.\.' "),
        ("unix:/" + "a" * 107, "107 bytes"),
        ("fd://", "fd://3"),
        ("fd://-1", "fd://3"),
        ("fd://99999999999", "fd://3"),
        ("fd://4294967296", "fd://3"),
    ],
)
def test_address_that_is_none_is_refused_with_the_way_out(text: str, hint: str) -> None:
    with pytest.raises(SettingError, match=hint) as caught:
        parse_address(text, "the flag --bind")
    assert "the flag --bind" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_an_address_or_a_setting_error(text: str) -> None:
    try:
        address = parse_address(text)
    except SettingError:
        return
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("kind", ["", "unix:", "fd://", "systemd:", "[", "localhost:"])
@given(st.text(alphabet="0123456789abcf:.[]%/@\0-+ ²", max_size=30))
def test_nearly_an_address_is_an_address_or_a_setting_error(kind: str, text: str) -> None:
    try:
        assert parse_address(str(parse_address(kind + text))) == parse_address(kind + text)
    except SettingError:
        pass


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        ("", "unix"),
        (None, "unix"),
        (b"\0abstract", "unix:@abstract"),
        ("\0abstract", "unix:@abstract"),
        ("/run/a\nb\x1b[0m", r"unix:/run/a\x0ab\x1b[0m"),
        (object, "<class 'object'>"),
    ],
)
def test_describe_says_any_address_on_one_line(address: object, text: str) -> None:
    assert describe(address) == text
