"""Writes the reference pages from the dataclasses, tables and commands they describe.

Owns      docs/reference/.
Promises  the same input gives the same pages, on every interpreter; `--check` writes nothing and says with
          status 1 which page is out of date.
Why       a page written by hand is right on the day it is written.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from moorage.cli import commands
from moorage.config import ListenerSettings, ProgramSettings, ServerSettings
from moorage.config.settings import SHARED_SETTINGS
from moorage.config.values import Settings, kind, names, show
from moorage.events import CAUSES, EVENT_TYPES, Cause, Event
from moorage.observe.metrics import exposition
from moorage.processes.scoreboard import BOUNDS, FIELDS, Scoreboard
from moorage.processes.signals import SIGNALS

PAGES = Path(__file__).parent / "reference"
NOTE = "<!-- written by docs/generate.py; do not edit -->"
LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}

STATUSES = (
    ("0", "a stop that was asked for; connections cut at `drain_timeout` are one warning with their count"),
    (
        "1",
        "the server failed after its start, or its workers cannot boot; `moorage doctor` has found errors or warnings",
    ),
    ("2", "the operator's mistake, found before serving: one sentence on standard error says what and where"),
    ("the program's", "under `moorage run`, once the program has begun"),
)

SETTINGS_INTRO = """\
The same name everywhere: `max_connections=` in Python and in TOML, `--max-connections` as a flag,
`MOORAGE_MAX_CONNECTIONS` in the environment. A later place wins: defaults, file, environment, flags.
`serve()` in a program reads the file and the environment too, and its arguments stand where the flags do;
`Server` takes its arguments alone. `moorage check` prints what is in force and where it comes from.

Times are seconds, sizes bytes; as text also `500ms`, `30s`, `5m`, `2h`, `1d` and `64KiB`, `8MiB`, `1GiB`.
Lists have blanks between their words, are lists in TOML and Python, or are given several times: as flags, and after
an address (`A,allow=X,allow=Y`). `off` and `none` say None, where a setting takes it; flags of on/off settings are `--nodelay` and
`--no-nodelay`, elsewhere they are `on` and `off`.

The file is the one of `--config` or `MOORAGE_CONFIG`, else `moorage.toml` in the working directory, else
`[tool.moorage]` of `pyproject.toml` there:

```toml
max_connections = 500
idle_timeout = "5m"

[[listener]]
bind = "127.0.0.1:20000"

[[listener]]
bind = "unix:/run/echo.sock"
unix_mode = 0o660
```

A listener's own settings win over those that hold for all: in a `[[listener]]` table, in
`--bind 'ADDRESS,nodelay=off'`, and in Python as `Listener("ADDRESS", nodelay=False)`. `MOORAGE_BIND` holds
addresses with blanks between them.
"""

SIGNALS_INTRO = """\
Sent to the supervisor of `moorage serve` and `serve()`; a `Server` in a program leaves signals alone. A worker
that is sent TERM or INT by hand drains and is replaced; it ignores those that are the supervisor's affair.
"""

EVENTS_INTRO = """\
`server.events.subscribe(function, *types)` calls the function with each event of these types, in the thread
that emits it, which must not block; `server.events.queue(n)` is for readers that may. A subscriber that
raises is removed and reported.

Those of a supervisor (`Supervisor...`, `Worker...`, `Reload...`, `Upgrade...`) are for the log alone: with
`log_format = "json"` the field `event` of a line is the name of its event. A handler or `worker_start` finds the events
of its own worker in `server.events`.
"""

CAUSES_INTRO = """\
Every connection ends with exactly one cause, the first that was recorded. A cause whose row names a setting
or a protocol that this version does not have is not recorded yet.
"""

METRICS_INTRO = """\
Told at the address of the setting `metrics`, under `/metrics`, in the Prometheus text format 0.0.4; how to use them is
said in [watch a running server](../howto/watch-a-running-server.md).

A gauge is the sum over the workers that are there, a counter or a histogram that over all there were. A name with
`worker_` has one line for each place among the workers, with the label `worker`; during a reload the old and the new
one of a place are added up. Counters go on over reloads and the ends of workers. They begin at zero with a restart, and
with the new program of an upgrade. A `cause` is one of the [causes](causes.md).
"""


def pages() -> dict[str, str]:
    """Every page by its file name."""
    return {
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        "signals.md": signals_page(),
        "events.md": events_page(),
        "causes.md": causes_page(),
        "metrics.md": metrics_page(),
    }


def settings_page() -> str:
    """One section for each dataclass, one line for each setting."""
    groups: tuple[tuple[str, str, Settings], ...] = (
        ("The server", "", ServerSettings),
        ("Each listener", "", ListenerSettings),
        ("For `moorage run`", _shared_sentence(), ProgramSettings),
    )
    parts = [_title("Settings"), SETTINGS_INTRO]
    for title, intro, settings in groups:
        rows = [_setting_row(settings, name) for name in names(settings)]
        header = ("setting", "default", "what it is", "when to change it", "accepted")
        parts += [f"## {title}\n", intro, _table(header, rows)]
    return _page(parts)


def _shared_sentence() -> str:
    shared = ", ".join(f"`{name}`" for name in SHARED_SETTINGS)
    return f"Limits of the classes of `moorage.socketserver`; of the settings above it takes {shared}.\n"


def _setting_row(settings: Settings, name: str) -> tuple[str, ...]:
    field: Field[Any] = next(field for field in fields(settings) if field.name == name)
    texts = field.metadata
    return (
        f"`{name}`",
        f"`{show(settings, name, field.default)}`",
        texts["help"],
        texts["change"],
        kind(settings, name).accepted,
    )


def commands_page() -> str:
    """One section for each command, with its help as a terminal shows it."""
    group = commands()
    root = click.Context(group, info_name="moorage")
    parts = [_title("Commands")]
    for name in ["", *group.list_commands(root)]:
        command = group if not name else group.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root) if name else root
        context.terminal_width = context.max_content_width = 100
        title = f"moorage {name}".strip()
        parts += [f"## {title}\n", f"```text\n{command.get_help(context)}\n```\n"]
    return _page(parts)


def signals_page() -> str:
    """What each signal does, and what each exit status means."""
    rows = [(f"`{number.name}`", row.meaning) for number, row in SIGNALS.items()]
    return _page(
        [
            _title("Signals and exit status"),
            SIGNALS_INTRO,
            _table(("signal", "what it does"), rows),
            "## Exit status\n",
            _table(("status", "meaning"), STATUSES),
        ]
    )


def events_page() -> str:
    """One line for each event."""
    rows = [
        (
            f"`{event.__name__}`",
            _first_sentence(event),
            ", ".join(f"`{field.name}`" for field in fields(event)) or "none",
        )
        for event in EVENT_TYPES
    ]
    return _page([_title("Events"), EVENTS_INTRO, _table(("event", "what happened", "fields"), rows)])


def causes_page() -> str:
    """One line for each cause."""
    rows = [_cause_row(cause) for cause in Cause]
    header = ("cause", "meaning", "phases", "recorded by", "level")
    return _page([_title("Causes"), CAUSES_INTRO, _table(header, rows)])


def _cause_row(cause: Cause) -> tuple[str, ...]:
    row = CAUSES[cause]
    phases = ", ".join(sorted(row.phases)) if len(row.phases) < 5 else "any"
    return (f"`{cause}`", row.meaning, phases, row.set_by, LEVELS[row.level])


def metrics_page() -> str:
    """One line for each metric, as a scraper is told of it."""
    header = ("metric", "kind", "labels", "what it is")
    bounds = ", ".join(f"{bound:g}" for bound in BOUNDS)
    histograms = (
        "A histogram is told as lines that end in `_bucket` (how many took at most `le` seconds), `_sum` (seconds) and\n"
        f"`_count`. Its bounds are {bounds} seconds, and `+Inf`.\n"
    )
    return _page([_title("Metrics"), METRICS_INTRO, _table(header, _metric_rows()), "## Histograms\n", histograms])


def _metric_rows() -> Iterator[tuple[str, ...]]:
    """Read from what a server with one worker tells: then the names are those."""
    board = Scoreboard(rows=1)
    row = board.allot()
    row.set("number", 1)
    row.set("certificate_expiry", 1)  # which is not told without a certificate
    told = exposition(board, FIELDS, BOUNDS, {"name": "", "version": "", "runner": ""}).decode()
    board.close()
    for part in told.removeprefix("# HELP ").split("\n# HELP "):
        (name, text), (*_, kind), sample = (line.split(" ", 1) for line in part.splitlines()[:3])
        labels = re.findall(r'(\w+)="', sample[0])
        yield f"`{name}`", kind.split()[-1], ", ".join(f"`{label}`" for label in labels) or "none", text


def _first_sentence(event: type[Event]) -> str:
    return " ".join((event.__doc__ or "").split("\n\n")[0].split())


def _title(text: str) -> str:
    return f"# {text}\n\n{NOTE}\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _page(parts: Iterable[str]) -> str:
    return "\n".join(part for part in parts if part)


def stale() -> list[str]:
    """The pages that are not what they should be, those too that should not be there."""
    wanted = pages()
    found = {path.name: path.read_text() for path in PAGES.glob("*.md")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with `--check` only compare them."""
    if list(arguments) == ["--check"]:
        if outdated := stale():
            click.echo(f"out of date: {', '.join(outdated)}; run `make format`", err=True)
        return 1 if outdated else 0
    PAGES.mkdir(exist_ok=True)
    for name in stale():
        (PAGES / name).unlink(missing_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
