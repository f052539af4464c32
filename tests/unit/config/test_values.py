"""Values: one conversion for text, TOML and Python, and one sentence for what will not do."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.config.fields import LEAST_RATE
from moorage.config.settings import ListenerSettings, ProgramSettings, ServerSettings
from moorage.config.values import Given, Settings, convert, names, show
from moorage.errors import SettingError

ALL: list[tuple[Settings, str]] = [
    (settings, name) for settings in (ServerSettings, ListenerSettings, ProgramSettings) for name in names(settings)
]


def server(name: str, value: object) -> object:
    return convert(ServerSettings, name, Given(value, "an argument"))


def listener(name: str, value: object) -> object:
    return convert(ListenerSettings, name, Given(value, "an argument"))


@pytest.mark.parametrize(
    ("name", "value", "converted"),
    [
        ("max_connections", 5, 5),
        ("max_connections", "5", 5),
        ("idle_timeout", 5, 5.0),
        ("idle_timeout", "5m", 300.0),
        ("idle_timeout", None, None),
        ("idle_timeout", "off", None),
        ("idle_timeout", "None", None),
        ("idle_timeout", False, None),
        ("line_limit", "64KiB", 65536),
        ("wait_for_data", "on", True),
        ("overflow_message", "busy", b"busy"),
        ("overflow_message", b"busy", b"busy"),
        ("log_file", Path("/tmp/log"), "/tmp/log"),
        ("runner", "forks", "forks"),
        ("drain_timeout", 0, 0.0),
    ],
)
def test_value_is_converted_from_text_toml_and_python(name: str, value: object, converted: object) -> None:
    answer = server(name, value)
    assert answer == converted
    assert type(answer) is type(converted)


def test_keepalive_is_converted_from_text_list_and_tuple() -> None:
    for value in ("60/15/4", [60, 15, 4], (60, 15, 4)):
        assert convert(ListenerSettings, "keepalive", Given(value, "an argument")) == (60, 15, 4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_connections", 0),
        ("max_connections", -1),
        ("max_connections", 1.5),
        ("max_connections", True),
        ("max_connections", None),
        ("max_connections", "many"),
        ("max_connections", 10**30),
        ("max_connections", "9" * 5000),
        ("idle_timeout", 0),
        ("idle_timeout", -0.5),
        ("idle_timeout", True),
        ("idle_timeout", float("nan")),
        ("idle_timeout", float("inf")),
        ("idle_timeout", "25d"),
        ("drain_quiet", "off"),
        ("drain_timeout", -1),
        ("line_limit", 0),
        ("wait_for_data", 1),
        ("wait_for_data", "maybe"),
        ("runner", "fibre"),
        ("runner", 3),
        ("log_file", ""),
        ("log_file", "a\0b"),
        ("overflow_message", 3),
        ("overflow_message", "\udc80"),
        ("threads", {}),
    ],
)
def test_value_that_will_not_do_is_one_sentence(name: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        server(name, value)
    sentence = str(caught.value)
    assert sentence.startswith(f"{name} = ")
    assert "(an argument) will not do: give " in sentence
    assert "\n" not in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize("value", ["60/15", "60/15/0", "60/15/128", (1, 2, 3, 4), "a/b/c", 60])
def test_keepalive_out_of_the_kernels_range_is_refused(value: object) -> None:
    with pytest.raises(SettingError, match="60/15/4"):
        convert(ListenerSettings, "keepalive", Given(value, "an argument"))


LISTS = [("allow", "10.0.0.0/8"), ("tls_cert", "/a.pem"), ("tls_alpn", "h2")]


@pytest.mark.parametrize(("name", "word"), LISTS)
def test_list_is_converted_from_text_toml_and_python(name: str, word: str) -> None:
    for value in (word, f" {word} ", [word], (word,)):
        assert listener(name, value) == (word,)
    assert listener(name, f"{word} {word}") == listener(name, [word, word]) == (word, word)


@pytest.mark.parametrize(("name", "word"), LISTS)
@pytest.mark.parametrize("nothing", ["", "none", "off", " None ", [], (), None, False])
def test_list_of_nothing_is_empty(name: str, word: str, nothing: object) -> None:
    assert listener(name, nothing) == ()


def test_list_of_networks_takes_what_a_program_has_for_them() -> None:
    given = [ip_network("10.0.0.0/8"), ip_address("::1"), "all"]
    assert listener("allow", given) == ("10.0.0.0/8", "::1", "all")
    assert listener("allow", ip_network("10.0.0.0/8")) == ("10.0.0.0/8",)


def test_list_of_paths_takes_paths_with_blanks() -> None:
    assert listener("tls_cert", Path("/my certs/a")) == ("/my certs/a",)
    assert listener("tls_cert", [Path("/my certs/a"), "/b c"]) == ("/my certs/a", "/b c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allow", 3),
        ("allow", True),
        ("allow", [3]),
        ("allow", [["10.0.0.0/8"]]),
        ("allow", {"10.0.0.0/8": 1}),
        ("allow", b"10.0.0.0/8"),
        ("tls_cert", [""]),
        ("tls_cert", ["a\0b"]),
        ("tls_cert", "'/open"),
        ("tls_cert", [None]),
        ("tls_alpn", ["none"]),
    ],
)
def test_list_that_will_not_do_is_one_sentence(name: str, value: object) -> None:
    with pytest.raises(SettingError, match=rf"^{name} = .* \(an argument\) will not do: give ") as caught:
        listener(name, value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", ["10.0.0.1/8", "10.0.0.0/33", "lan", "2001:db8::1/32"])
def test_network_that_will_not_do_is_named_out_of_many(bad: str) -> None:
    many = [f"10.{number}.0.0/16" for number in range(100)]
    with pytest.raises(SettingError, match=rf"^allow = '{bad}' \(an argument\) will not do: give networks such as"):
        listener("allow", [*many, bad, "10.200.0.0/16"])


@pytest.mark.parametrize(
    "value", [0, -1, "0", "0/s", "1e12", 1e-11, "0.000001", float("nan"), float("inf"), True, "fast", 2e9]
)
def test_rate_that_will_not_do_is_one_sentence(value: object) -> None:
    with pytest.raises(SettingError, match=r"give a number from 0\.00001 to 1000000000 for each second, .*, or off"):
        server("accept_rate", value)


@pytest.mark.parametrize("value", ["0.00001", "1000000000", 1e-5])
def test_rate_at_the_bounds_that_the_sentence_names_is_accepted(value: object) -> None:
    server("accept_rate", value)


@pytest.mark.parametrize(("name", "least", "most"), [("client_prefix_v4", 8, 32), ("client_prefix_v6", 16, 128)])
def test_prefix_that_will_not_do_is_one_sentence(name: str, least: int, most: int) -> None:
    for good in (least, str(most)):
        server(name, good)
    for value in (least - 1, str(most + 1), "/24", 24.5, True, "off"):
        with pytest.raises(SettingError, match=rf"^{name} = .* give a whole number from {least} to {most}$"):
            server(name, value)


@pytest.mark.parametrize(
    ("settings", "name", "value", "shown"),
    [
        (ServerSettings, "accept_rate", 100.0, "100"),
        (ServerSettings, "accept_rate", 0.5, "0.5"),
        (ServerSettings, "accept_rate", 1 / 3600, "1/h"),
        (ServerSettings, "accept_rate", 5 / 60, "5/m"),
        (ServerSettings, "accept_rate", 1e9, "1000000000"),
        (ServerSettings, "accept_rate", None, "off"),
        (ServerSettings, "lifetime", 1728000.0, "1728000s"),
        (ServerSettings, "lifetime", 0.00001, "0.00001s"),
        (ServerSettings, "observe_only", (), "none"),
        (ServerSettings, "observe_only", ("rules", "min_rate"), "rules min_rate"),
        (ListenerSettings, "allow", ("10.0.0.0/8", "::1"), "10.0.0.0/8 ::1"),
        (ListenerSettings, "tls_cert", ("/a b", "/c"), "'/a b' /c"),
        (ListenerSettings, "keepalive", (60, 15, 4), "60/15/4"),
        (ListenerSettings, "receive_buffer", 65536, "64KiB"),
    ],
)
def test_value_is_shown_as_an_operator_writes_it(settings: Settings, name: str, value: object, shown: str) -> None:
    assert show(settings, name, value) == shown
    assert convert(settings, name, Given(shown, "a test")) == value


_words = st.lists(st.text(min_size=1, max_size=8), max_size=4)
_times = st.floats(min_value=1e-6, max_value=1e6)


@given(_words)
def test_any_words_are_read_back_as_they_are_shown(words: list[str]) -> None:
    try:
        value = listener("tls_cert", words)
    except SettingError:
        return
    assert listener("tls_cert", show(ListenerSettings, "tls_cert", value)) == value


@given(_times)
def test_any_time_and_rate_is_read_back_as_it_is_shown(value: float) -> None:
    assert server("lifetime", show(ServerSettings, "lifetime", value)) == pytest.approx(value, abs=1e-9)
    value = max(value, LEAST_RATE)
    shown = show(ServerSettings, "accept_rate", value)
    assert server("accept_rate", shown) == pytest.approx(value, rel=1e-12)
    assert "e" not in shown


def test_mode_written_in_decimal_by_mistake_is_refused() -> None:
    with pytest.raises(SettingError, match="0o660"):
        convert(ListenerSettings, "unix_mode", Given(660, "an argument"))


@pytest.mark.parametrize(("settings", "name"), ALL)
def test_default_is_shown_as_it_can_be_written(settings: Settings, name: str) -> None:
    default = getattr(settings(), name)
    if name != "overflow_message":  # shown as Python writes bytes
        assert convert(settings, name, Given(show(settings, name, default), "a test")) == default


_anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.integers(), max_size=4),
    st.lists(st.text(), max_size=4),
    st.dictionaries(st.text(), st.integers(), max_size=2),
    st.from_regex(r"[0-9]{1,4}(ms|s|m|h|d|KiB|MiB)?", fullmatch=True),
)


@pytest.mark.parametrize(("settings", "name"), ALL)
@given(value=_anything, shell=st.booleans())
def test_any_value_is_converted_or_a_setting_error(settings: Settings, name: str, value: object, shell: bool) -> None:
    try:
        converted = convert(settings, name, Given(value, "a test", shell))
    except SettingError:
        return
    assert convert(settings, name, Given(converted, "a test")) == converted
    assert isinstance(show(settings, name, converted), str)
