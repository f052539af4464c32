"""Damaged settings files: each is read, or refused with one sentence that says which file it is."""

import copy
import datetime as dt
import json
import random
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.config import ListenerSettings, ProgramSettings, ServerSettings
from moorage.config.resolve import read
from moorage.config.sources import Layer
from moorage.config.values import names
from moorage.errors import SettingError
from support.mutation import mutants

Table = dict[str, Any]
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

GOOD: tuple[Table, ...] = (
    {"max_connections": 500, "idle_timeout": "90s", "write_timeout": 12.5, "lifetime": "off", "message_limit": "4MiB"},
    {
        "bind": ["127.0.0.1:20000", "[::1]:20001", "unix:/run/moorage.sock"], "runner": "fibers", "unix_mode": "0o660",
        "overflow": "refuse", "overflow_message": "full\r\n", "max_per_client": 10, "accept_rate": "100/s",
    },
    {
        "bind": "0.0.0.0:443", "proxy_protocol": "required", "proxy_trusted": ["10.0.0.0/8", "fd00::/8"],
        "tls_cert": ["a.pem", "b.pem"], "tls_key": ["a.key", "b.key"], "tls_verify": "optional", "tls_client_ca": "ca.pem",
        "tls_alpn": ["echo", "h2"], "tls_min_version": "1.3", "allow": "10.0.0.0/8", "deny": ["10.1.0.0/16", "::1"],
    },
    {
        "workers": "auto", "keepalive": [60, 15, 4], "drain_timeout": 30, "nodelay": True, "backlog": 128,
        "listener": [
            {"bind": "127.0.0.1:1", "nodelay": False, "keepalive": "60/15/4", "rules_file": "rules"},
            {"bind": "unix:@abstract", "proxy_protocol": "optional", "receive_buffer": "64KiB", "unix_group": "www"},
            {"bind": "fd://3", "user_timeout": "2m"}, {"bind": "systemd:web", "v6only": False},
        ],
    },
)  # fmt: skip
NAMES = sorted({"bind", "listener", *names(ServerSettings), *names(ListenerSettings), *names(ProgramSettings)})
#: what stands where something else belongs
STRANGE: tuple[Any, ...] = (
    True, False, 0, 1, -1, 65536, 2**31, 2**63 - 1, -(2**63), 10**30, 0.0, -0.5, 1e308, float("nan"), float("inf"),
    "", " ", "off", "none", "auto", "all", "0", "-1", "1e3", "١٢", "1_000", "30 s", "30s30s", "99999999999999999999d",
    "64k", "0o999", "60/15", "60/15/4/1", "1/0", "/s", "x" * 5000, "\0", "a\0b", "line\nbreak", "\x1b[2J", "\ufeff", "é",
    "127.0.0.1", ":1", "host:99999", "[::1", "[::1]:", "unix:", "unix:@", "unix:/a\nb", "unix:" + "x" * 200, "fd://", "fd://-1",
    "fd://99999999999", "systemd:", "systemd:a:b", "10.0.0.1/8", "10.0.0.0/33", "::/129", "1.2.3", "fe80::1%lo/64",
    [], [[]], [""], ["a", 1], [None], [True], {}, {"a": 1}, {"bind": "127.0.0.1:0"}, [{}], [{"bind": 1}], [{"bind": []}],
    dt.datetime(2026, 1, 1), dt.date(2026, 1, 1), dt.time(1, 2, 3),
)  # fmt: skip


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if value is None:
        return "null"  # which TOML does not know
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf").replace("\x7f", "\\u007f")


def text(table: Table) -> bytes:
    return "".join(f"{name} = {toml(value)}\n" for name, value in table.items()).encode()


def rearranged(count: int, seed: int) -> Iterator[bytes]:
    """Files that are TOML, mostly: with strange values, values under other names, other names, other places."""
    chance = random.Random(seed)
    for _ in range(count):
        table = copy.deepcopy(chance.choice(GOOD))
        for _ in range(chance.randint(1, 3)):
            chance.choice(_CHANGES)(chance.choice(tables_of(table)), chance)
        yield text(table)


def tables_of(table: Table) -> list[Table]:
    """This one, and those of its listeners."""
    listeners = table.get("listener")
    return (
        [table, *(inner for inner in listeners if isinstance(inner, dict))] if isinstance(listeners, list) else [table]
    )


def _change_value(table: Table, chance: random.Random) -> None:
    if table:
        table[chance.choice(list(table))] = copy.deepcopy(chance.choice(STRANGE))


def _add(table: Table, chance: random.Random) -> None:
    table[chance.choice(NAMES)] = copy.deepcopy(chance.choice(STRANGE))


def _swap_values(table: Table, chance: random.Random) -> None:
    if table:
        one, two = chance.choice(list(table)), chance.choice(list(table))
        table[one], table[two] = table[two], table[one]


def _rename(table: Table, chance: random.Random) -> None:
    if table:
        old = chance.choice(list(table))
        new = chance.choice((chance.choice(NAMES), old.upper(), old[:-1], old + "s", "", "\n", "x" * 100, "tool"))
        table[new] = table.pop(old)


def _change_type(table: Table, chance: random.Random) -> None:
    if table:
        name = chance.choice(list(table))
        value = table[name]
        table[name] = chance.choice((str(value), [value], {"value": value}, [value, value], not value))


def _listen_more(table: Table, chance: random.Random) -> None:
    inner = copy.deepcopy(chance.choice(GOOD[3]["listener"]))
    _change_value(inner, chance)
    table["listener"] = [*(table["listener"] if isinstance(table.get("listener"), list) else []), inner]


_CHANGES = (_change_value, _add, _swap_values, _rename, _change_type, _listen_more)


def survey(path: Path, files: Iterator[bytes]) -> Counter[str]:
    """How many files were read, refused as no TOML or text, and refused for what they say."""
    kinds: Counter[str] = Counter()
    for data in files:
        path.write_bytes(data)
        try:
            read(Layer("flags"), path, environ={})
        except SettingError as error:
            sentence = str(error)
            assert not CONTROL.search(sentence), (data, sentence)
            assert len(sentence) < 500, (data, sentence)
            assert str(path) in sentence or is_of_several_settings(sentence), (data, sentence)
            kinds["no TOML" if " is not " in sentence and "settings file" in sentence else "refused"] += 1
        else:
            kinds["read"] += 1
    return kinds


def is_of_several_settings(sentence: str) -> bool:
    """A contradiction is of all places together: file, environment and flags."""
    return any(words in sentence for words in (" and ", "without tls_cert", "given twice", "observe_only names"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "moorage.toml"


@pytest.mark.parametrize("table", GOOD)
def test_files_that_are_damaged_here_are_good(table: Table, path: Path) -> None:
    path.write_bytes(text(table))
    assert tomllib.loads(path.read_text()) == table
    read(Layer("flags"), path, environ={})


def test_files_with_damaged_bytes_are_read_or_refused_with_a_sentence(path: Path) -> None:
    kinds = survey(path, mutants([text(table) for table in GOOD], 2000, seed=1))
    assert min(kinds[kind] for kind in ("read", "no TOML", "refused")) > 50, kinds


def test_files_with_other_names_and_values_are_read_or_refused_with_a_sentence(path: Path) -> None:
    kinds = survey(path, rearranged(2000, seed=1))
    assert min(kinds[kind] for kind in ("read", "refused")) > 50, kinds


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_hundred_thousand_damaged_files_are_read_or_refused_with_a_sentence(path: Path, seed: int) -> None:
    kinds = survey(path, mutants([text(table) for table in GOOD], 50_000, seed))
    kinds += survey(path, rearranged(50_000, seed))
    assert min(kinds.values()) > 2000, kinds
