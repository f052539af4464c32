"""Values: one conversion for text, TOML and Python, and one sentence for what will not do."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.config.settings import ListenerSettings, ProgramSettings, ServerSettings
from moorage.config.values import Given, Settings, convert, names, show
from moorage.errors import SettingError

ALL: list[tuple[Settings, str]] = [
    (settings, name) for settings in (ServerSettings, ListenerSettings, ProgramSettings) for name in names(settings)
]


def server(name: str, value: object) -> object:
    return convert(ServerSettings, name, Given(value, "an argument"))


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
