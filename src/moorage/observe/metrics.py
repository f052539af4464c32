"""Metrics: the numbers of a server in the text format of Prometheus.

Owns      how the fields of the scoreboard are named and written there: `moorage_open`, `moorage_ended_total{cause="idle"}`.
Promises  text format 0.0.4: one HELP and TYPE for each name, buckets that add up; counters never fall while the
          server runs, since the scoreboard keeps those of dead workers.
Refuses   to count: the scoreboard does; to label a number with a process, a peer or a moment, which would make new
          names for ever; the place of a worker is one of few.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

#: https://prometheus.io/docs/instrumenting/exposition_formats/
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: the field that tells workers apart
PLACE = "number"

Labels = Mapping[str, str]


class Field(Protocol):
    """One line of the table of what is counted; see scoreboard."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def help(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def is_summable(self) -> bool: ...
    @property
    def is_least(self) -> bool: ...
    @property
    def key(self) -> str: ...


class Histogram(Protocol):
    """How many fell between each two bounds, and their sum."""

    @property
    def counts(self) -> Sequence[int]: ...
    @property
    def seconds(self) -> float: ...


class Row(Protocol):
    """The numbers of one worker."""

    def get(self, name: str, /) -> int: ...


class Board(Protocol):
    """Where the numbers are; see scoreboard."""

    def rows(self) -> Sequence[Row]: ...
    def total(self, name: str, /) -> int: ...
    def least(self, name: str, /) -> int: ...
    def histogram(self, name: str, /) -> Histogram: ...


def exposition(board: Board, fields: Iterable[Field], bounds: Sequence[float], about: Labels) -> bytes:
    """Everything that is counted; `about` are labels that say what this server is."""
    lines = [*_head("info", "gauge", "What this server is."), _line("info", about, 1)]
    lines += [*_head("workers", "gauge", "Worker processes now."), _line("workers", {}, len(board.rows()))]
    names: dict[str, list[Field]] = {}
    for field in fields:
        if field.is_summable or field.is_least:
            names.setdefault(field.name, []).append(field)
    for siblings in names.values():
        lines += _HOW[siblings[0].kind](board, siblings, bounds)
    return ("\n".join(lines) + "\n").encode()


def _counter(board: Board, siblings: Sequence[Field], _bounds: Sequence[float]) -> Iterator[str]:
    name = f"{siblings[0].name}_total"
    yield from _head(name, "counter", siblings[0].help)
    for field in siblings:
        yield _line(name, _labels(field), board.total(field.key))


def _gauge(board: Board, siblings: Sequence[Field], _bounds: Sequence[float]) -> Iterator[str]:
    """The sum, and under a name of its own, lest a query add both, what each worker has of it."""
    name, text = siblings[0].name, siblings[0].help
    yield from _head(name, "gauge", text)
    if siblings[0].is_least:
        for field in siblings:
            if least := board.least(field.key):
                yield _line(name, _labels(field), least)
        return
    for field in siblings:
        yield _line(name, _labels(field), board.total(field.key))
    yield from _head(f"worker_{name}", "gauge", f"In each worker: {text}")
    for field in siblings:
        places: dict[int, int] = {}
        for row in board.rows():  # during a reload two of them may have one place; one just forked has none yet
            if place := row.get(PLACE):
                places[place] = places.get(place, 0) + row.get(field.key)
        for place, value in sorted(places.items()):
            yield _line(f"worker_{name}", {**_labels(field), "worker": str(place)}, value)


def _histogram(board: Board, siblings: Sequence[Field], bounds: Sequence[float]) -> Iterator[str]:
    name = siblings[0].name
    yield from _head(name, "histogram", siblings[0].help)
    for field in siblings:
        labels, found = _labels(field), board.histogram(field.key)
        added = list(accumulate(found.counts))
        for bound, count in zip((*map(repr, map(float, bounds)), "+Inf"), added, strict=True):
            yield _line(f"{name}_bucket", {**labels, "le": bound}, count)
        yield _line(f"{name}_sum", labels, found.seconds)
        yield _line(f"{name}_count", labels, added[-1])


_HOW = {"counter": _counter, "gauge": _gauge, "histogram": _histogram}


def _labels(field: Field) -> Labels:
    return {field.label: field.value} if field.label else {}


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP moorage_{name} {text}", f"# TYPE moorage_{name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    pairs = ",".join(f'{label}="{_escaped(str(text))}"' for label, text in labels.items())
    return f"moorage_{name}{{{pairs}}} {value}" if pairs else f"moorage_{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
