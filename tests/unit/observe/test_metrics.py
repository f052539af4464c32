"""Metrics: the text format of Prometheus, read by a strict parser."""

import re
from dataclasses import dataclass
from itertools import pairwise

import pytest

from moorage.observe.metrics import CONTENT_TYPE, exposition

BOUNDS = (0.001, 0.1, 1.0, 60.0)

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
HELP = re.compile(rf"# HELP ({NAME}) ((?:[^\\\n]|\\\\|\\n)*)")
TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge|histogram)")
PAIR = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^\\"\n]|\\\\|\\"|\\n)*)"')
SAMPLE = re.compile(rf"({NAME})(?:\{{({PAIR.pattern}(?:,{PAIR.pattern})*)\}})? (-?[0-9.e+-]+|NaN|[+-]Inf)")
ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]


def parse(text: bytes) -> tuple[dict[str, str], Samples]:
    """The type of each name and every sample; asserts whatever format 0.0.4 demands."""
    lines = text.decode("utf-8").split("\n")
    assert lines.pop() == "", "the last line has no end"
    types: dict[str, str] = {}
    samples: Samples = {}
    current, helped = "", ""
    for line in lines:
        if line.startswith("# HELP"):
            found = HELP.fullmatch(line)
            assert found, line
            assert found[1] not in types, line
            helped = found[1]
        elif line.startswith("#"):
            found = TYPE.fullmatch(line)
            assert found, line
            assert found[1] == helped, line
            assert found[1] not in types, line
            current, types[found[1]] = found[1], found[2]
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            endings = ("_bucket", "_sum", "_count") if types[current] == "histogram" else ("",)
            assert found[1] in {current + ending for ending in endings}, "lines of one name stand together"
            pairs = [(name, unescape(value)) for name, value in PAIR.findall(found[2] or "")]
            assert len({name for name, _ in pairs}) == len(pairs), line
            key = (found[1], frozenset(pairs))
            assert key not in samples, line
            samples[key] = float(found[found.lastindex or 0])
    for name in (name for name, kind in types.items() if kind == "histogram"):
        check_histogram(name, samples)
    return types, samples


def check_histogram(name: str, samples: Samples) -> None:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), value in samples.items():
        if sample == f"{name}_bucket":
            bound = float(dict(labels)["le"])
            groups.setdefault(frozenset(pair for pair in labels if pair[0] != "le"), []).append((bound, value))
    assert groups
    for labels, buckets in groups.items():
        assert buckets == sorted(buckets)
        assert all(below[1] <= above[1] for below, above in pairwise(buckets)), "buckets are cumulative"
        assert buckets[-1][0] == float("inf")
        assert samples[f"{name}_count", labels] == buckets[-1][1]
        assert samples[f"{name}_sum", labels] >= 0


def unescape(text: str) -> str:
    return re.sub(r'\\[\\"n]', lambda found: ESCAPES[found[0]], text)


def labels(**pairs: str) -> Labels:
    return frozenset(pairs.items())


@dataclass(frozen=True)
class Field:
    name: str
    kind: str
    help: str = "Help."
    label: str = ""
    value: str = ""
    is_summable: bool = True
    is_least: bool = False

    @property
    def key(self) -> str:
        return f"{self.name}:{self.value}" if self.label else self.name


@dataclass
class Histogram:
    counts: tuple[int, ...]
    seconds: float


class Row:
    def __init__(self, **numbers: int) -> None:
        self.numbers = numbers

    def get(self, name: str) -> int:
        return self.numbers.get(name, 0)


class Board:
    """Rows of living workers; `dead` is what the others have left."""

    def __init__(self, *rows: Row, **dead: int) -> None:
        self._rows = list(rows)
        self.dead = dead

    def rows(self) -> list[Row]:
        return self._rows

    def total(self, name: str) -> int:
        return self.dead.get(name, 0) + sum(row.get(name) for row in self._rows)

    def least(self, name: str) -> int:
        return min(filter(None, (row.get(name) for row in self._rows)), default=0)

    def histogram(self, name: str) -> Histogram:
        return Histogram((3, 0, 2, 0, 1), 71.25)


def test_content_type_names_the_format() -> None:
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_counter_has_its_ending_and_what_the_dead_have_counted() -> None:
    board = Board(Row(number=1, accepted=3), Row(number=2, accepted=4), accepted=10)
    types, samples = parse(exposition(board, [Field("accepted", "counter")], BOUNDS, {}))
    assert types["moorage_accepted_total"] == "counter"
    assert samples["moorage_accepted_total", labels()] == 17


def test_fields_of_one_name_share_its_head_wherever_they_stand_in_the_table() -> None:
    fields = [
        Field("ended", "counter", label="cause", value="idle"),
        Field("accepted", "counter"),
        Field("ended", "counter", label="cause", value="reset"),
    ]
    _, samples = parse(exposition(Board(Row(number=1, **{"ended:idle": 2, "ended:reset": 5})), fields, BOUNDS, {}))
    assert samples["moorage_ended_total", labels(cause="idle")] == 2
    assert samples["moorage_ended_total", labels(cause="reset")] == 5


def test_gauge_is_a_sum_and_a_number_for_each_place() -> None:
    board = Board(Row(number=2, open=4), Row(number=1, open=1), Row(number=2, open=3), Row(open=0))
    types, samples = parse(exposition(board, [Field("open", "gauge")], BOUNDS, {}))
    assert types["moorage_open"] == types["moorage_worker_open"] == "gauge"
    assert samples["moorage_open", labels()] == 8
    assert samples["moorage_worker_open", labels(worker="1")] == 1
    assert samples["moorage_worker_open", labels(worker="2")] == 7  # both generations of a reload
    assert ("moorage_worker_open", labels(worker="0")) not in samples  # just forked
    assert samples["moorage_workers", labels()] == 4


def test_field_that_cannot_be_summed_is_left_out() -> None:
    assert b"pid" not in exposition(Board(Row(pid=7)), [Field("pid", "gauge", is_summable=False)], BOUNDS, {})


def test_gauge_of_which_the_least_counts_is_told_once_where_there_is_one() -> None:
    field = Field("expiry", "gauge", is_summable=False, is_least=True)
    types, samples = parse(
        exposition(Board(Row(number=1, expiry=9), Row(number=2, expiry=7), Row()), [field], BOUNDS, {})
    )
    assert types["moorage_expiry"] == "gauge"
    assert samples["moorage_expiry", labels()] == 7
    assert not any(name.startswith("moorage_worker_expiry") for name, _ in samples)
    _, samples = parse(exposition(Board(Row(number=1)), [field], BOUNDS, {}))
    assert ("moorage_expiry", labels()) not in samples, "0 would be 1970, and raise an alarm"


def test_histogram_adds_up_its_buckets() -> None:
    _, samples = parse(exposition(Board(), [Field("handler_seconds", "histogram")], BOUNDS, {}))
    buckets = [samples["moorage_handler_seconds_bucket", labels(le=le)] for le in ("0.001", "0.1", "1.0", "60.0")]
    assert buckets == [3, 3, 5, 5]
    assert samples["moorage_handler_seconds_bucket", labels(le="+Inf")] == 6
    assert samples["moorage_handler_seconds_count", labels()] == 6
    assert samples["moorage_handler_seconds_sum", labels()] == 71.25


@pytest.mark.parametrize("text", ["plain", 'a "quoted" name', "back\\slash", "two\nlines", "\\n", "ünï", '\\"', ""])
def test_label_and_help_survive_whatever_they_hold(text: str) -> None:
    written = exposition(Board(), [Field("open", "gauge", help=text)], BOUNDS, {"name": text, "version": "1"})
    _, samples = parse(written)
    assert samples["moorage_info", labels(name=text, version="1")] == 1


def test_real_table_is_written_whole_and_well() -> None:
    from moorage.processes.scoreboard import BOUNDS, FIELDS, Scoreboard

    board = Scoreboard(rows=4)
    living, dead = board.allot(), board.allot()
    for number, row in ((1, living), (2, dead)):
        row.set("number", number)
        row.add("accepted", 10)
        row.add("ended:idle", 2)
        row.observe("handler_seconds", 0.02)
        row.observe("handler_seconds", 9999.0)
    living.set("open", 5)
    board.fold(dead)
    types, samples = parse(exposition(board, FIELDS, BOUNDS, {"version": "1"}))
    assert samples["moorage_accepted_total", labels()] == 20
    assert samples["moorage_ended_total", labels(cause="idle")] == 4
    assert samples["moorage_open", labels()] == samples["moorage_worker_open", labels(worker="1")] == 5
    assert samples["moorage_handler_seconds_count", labels()] == 4
    assert samples["moorage_handler_seconds_bucket", labels(le="3600.0")] == 2
    summable = {field.name for field in FIELDS if field.is_summable}
    told = {name.removeprefix("moorage_").removesuffix("_total") for name in types}
    assert summable <= told
    board.close()


@pytest.mark.parametrize(
    "text",
    [
        b"moorage_x 1",
        b"# HELP x a\n# TYPE x counter\nx{a=\"b} 1\n",
        b"# HELP x a\n# TYPE x counter\nx 1\nx 2\n",
        b"# TYPE x counter\nx 1\n",
        b"# HELP x a\n# TYPE x histogram\nx_bucket{le=\"1.0\"} 2\nx_bucket{le=\"+Inf\"} 1\nx_sum 1\nx_count 1\n",
        b"# HELP x a\n# TYPE x histogram\nx_bucket{le=\"1.0\"} 2\nx_sum 1\nx_count 2\n",
    ],
)  # fmt: skip
def test_parser_of_this_file_is_strict(text: bytes) -> None:
    with pytest.raises((AssertionError, KeyError)):
        parse(text)
