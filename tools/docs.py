"""`python -m tools.docs`: writes `docs/reference/*.md` from the code. A test says when they are stale.

What a page says is what the program says of itself: descriptions of settings, options and columns, docstrings, and the
comments beside the stable words.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from inspect import cleandoc
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic.fields import FieldInfo

from adawise import __main__, errors
from adawise.cli import COMMANDS, PROGRAM, command_of
from adawise.cli.command import Command
from adawise.cli.parser import own_fields, parser_source, takes_several
from adawise.output.verify.findings import Finding
from adawise.publish.results import alert
from adawise.publish.results.message import FIELDS, EventField
from adawise.recording import format as recording_format
from adawise.settings.cameras import CameraDefaults, CameraTable
from adawise.settings.describe import GROUPS, SETTINGS, environment_name, expected, flag_name, is_secret, metavar, shown
from adawise.sink import layout, schemas
from adawise.watch.metrics import CAMERA_METRICS, METRICS, MetricSpec
from adawise.watch.status import facts, troubles
from tools.events import logged
from tools.log_events import EVENTS
from tools.results_schema import json_schema

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
WRITTEN = "This page is written by `python -m tools.docs` from the code; a test holds it to that."


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar within a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def page(title: str, *parts: str) -> str:
    """A whole page."""
    return "\n\n".join([f"# {title}", *parts, WRITTEN]) + "\n"


def block(text: str) -> str:
    """A block of plain text."""
    return f"```text\n{text.rstrip()}\n```"


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


# -- settings


def settings_page() -> str:
    """Every setting, by group."""
    example = "log.level"
    rule = (
        "Flags win over the environment, which wins over `adawise.toml` in the current folder (or `--config FILE`), "
        f"which wins over the defaults. `{example}` is `{flag_name(example)}`, `{environment_name(example)}`, or "
        "`level` under `[log]`. `none` unsets a value of the file. Passwords come from a separate file "
        "(`ADAWISE_HTTP__TOKEN_FILE`, or `token_file` under `[http]`), the environment or `adawise.toml`; as flags "
        "they are refused."
    )
    groups = [part for name in GROUPS if (part := _group(name))]
    return page("Settings", rule, "`adawise config show` prints them with their values and origins.", *groups)


def _group(name: str) -> str:
    rows = [
        [
            f"`{setting.removeprefix(f'{name}.')}`",
            str(field.description),
            "text" if expected(field) == "text that is not empty" else expected(field),
            "none" if is_secret(field) else f"`{shown(field, field.default)}`",
        ]
        for setting, field in SETTINGS.items()
        if setting.rpartition(".")[0] == name
    ]
    if not rows:
        return ""
    return f"## {name}\n\n{sentence(str(GROUPS[name].description))}.\n\n" + table(
        ["setting", "what it is", "allowed", "default"], rows
    )


# -- the file of cameras


def cameras_page() -> str:
    """Every key of a file of cameras."""
    every = CameraDefaults.model_fields
    own = {name: field for name, field in CameraTable.model_fields.items() if name not in every}
    first = (
        f"The file of [`{PROGRAM} cameras`](commands.md#adawise-cameras) is TOML, with a table `[camera.NAME]` for "
        "each camera. The name is the key of its messages: 1 to 249 bytes of printable text. See the "
        "[guide](../guide/cameras.md)."
    )
    return page(
        "Cameras",
        first,
        "## Source of a camera\n\nIn `[camera.NAME]`; set one of the first five.\n\n" + _keys(own),
        "## Frames of a camera\n\nIn `[defaults]`, or in `[camera.NAME]` for one camera.\n\n" + _keys(every),
    )


def _keys(fields: Mapping[str, FieldInfo]) -> str:
    return table(
        ["key", "what it is", "allowed", "default"],
        (
            [f"`{name}`", str(field.description), expected(field), f"`{shown(field, field.default)}`"]
            for name, field in fields.items()
        ),
    )


# -- commands


def commands_page() -> str:
    """Every command with its own options and examples."""
    first = (
        "The tables have a command's own options. Each command also takes the settings of the groups that it names, as "
        f"flags: `{PROGRAM} run --sink.root runs/yard`. `{PROGRAM} COMMAND --help` shows both."
    )
    rows = ([f"[`{name}`](#{_anchor(name)})", what] for name, (_, what) in COMMANDS.items())
    overview = table(["command", "what it does"], rows)
    return page("Commands", first, overview, *map(_command, COMMANDS))


def _anchor(name: str) -> str:
    return f"{PROGRAM} {name}".replace(" ", "-")


def _command(name: str) -> str:
    command = command_of(name)
    usage = parser_source(command).root_parser.usage
    shorthands = "".join(
        f" `--{short}` is `{flag_name(setting)}`." for short, setting in sorted(command.shorthands.items())
    )
    groups = ", ".join(_taken(command, name) for name in GROUPS if any(map(command.takes, _of(name)))) or "none"
    parts = [
        f"## {PROGRAM} {name}",
        _prose(cleandoc(command.__doc__ or "")),
        block(str(usage)),
        _options(own_fields(command)),
        f"Settings: {groups}.{shorthands}",
        _examples(command.examples),
    ]
    return "\n\n".join(part for part in parts if part)


def _of(group: str) -> list[str]:
    """The settings of a group, without those of groups in it."""
    return [name for name in SETTINGS if name.rpartition(".")[0] == group]


def _taken(command: type[Command], group: str) -> str:
    """A link to the group, with which of its settings the command reads if it is not all of them."""
    link = f"[`{group}`](settings.md#{group.replace('.', '')})"
    keys = {name.rpartition(".")[2]: command.takes(name) for name in _of(group)}
    without = [f"`{key}`" for key, is_taken in keys.items() if not is_taken]
    some = [f"`{key}`" for key, is_taken in keys.items() if is_taken]
    if not without:
        return link
    return f"{link} without {' '.join(without)}" if len(without) < len(some) else f"{link} (of it {' '.join(some)})"


def _prose(text: str) -> str:
    """A docstring as Markdown: what looks like an HTML tag is code."""
    return re.sub(r"(?<![`\w])<([a-z-]+)>", r"`<\1>`", text)


def _options(fields: Mapping[str, FieldInfo]) -> str:
    """Arguments before options; `--config`, which every command has, last."""
    rows = []
    for name, field in sorted(fields.items(), key=lambda item: (item[0] == "config", not _is_positional(item[1]))):
        value = shown(field, field.default) if not field.is_required() and field.default is not None else ""
        called = name.upper() + "..." * takes_several(field) if _is_positional(field) else flag_name(name)
        if not _is_positional(field) and not isinstance(field.default, bool):
            called += f" {metavar(field)}"
        rows.append([f"`{called}`", _prose(str(field.description)), f"`{value}`" if value not in {"", "false"} else ""])
    return table(["option", "what it does", "default"], rows)


def _is_positional(field: FieldInfo) -> bool:
    return any(getattr(mark, "__name__", "") == "_CliPositionalArg" for mark in field.metadata)


def _examples(examples: Sequence[tuple[str, str]]) -> str:
    if not examples:
        return ""
    return "```sh\n" + "\n".join(f"# {purpose}\n{PROGRAM} {line}" for purpose, line in examples) + "\n```"


# -- schemas


def schemas_page() -> str:
    """Columns of all files, and where the files lie."""
    return page(
        "Schemas",
        "The descriptions are in the files themselves, as `description` in each field's metadata.",
        "## Predictions\n\nOne row per image.\n\n" + _columns(schemas.PREDICTIONS),
        "## Traces\n\nOne row per batch.\n\n" + _columns(schemas.TRACES),
        "Each of `trials`:\n\n" + _columns(schemas.TRIAL),
        "## Recordings\n\nOne row per message, as the broker delivered it.\n\n" + _types(recording_format.SCHEMA),
        "## Results\n\nMessages on the topic of [results](../guide/results.md), a field each. As JSON Schema: "
        "[results.schema.json](results.schema.json).\n\n" + _fields(FIELDS),
        "## Alerts\n\nOn the same topic.\n\n" + _fields(alert.FIELDS),
        "## Files of a root\n\n" + block(_drawn(layout.__doc__)),
        "## Files of a recording\n\n" + block(_drawn(recording_format.__doc__)),
    )


def _columns(fields: pa.Schema | pa.StructType) -> str:
    rows = [
        [f"`{f.name}`", f"`{f.type}`".replace("element: ", ""), (f.metadata or {}).get(b"description", b"").decode()]
        for f in fields
    ]
    return table(["column", "type", "what it is"], rows)


def _types(fields: pa.Schema) -> str:
    return table(["column", "type"], ([f"`{f.name}`", f"`{f.type}`"] for f in fields))


def _fields(fields: Sequence[EventField[Any]]) -> str:
    return table(["field", "type", "what it is"], ([f"`{f.name}`", _type(f), f.description] for f in fields))


def _type(field: EventField[Any]) -> str:
    return f"`{field.kind}`".replace("element: ", "")


def results_schema() -> str:
    """Messages on the topic of results, as JSON Schema."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _drawn(docstring: str | None) -> str:
    """The drawing of a docstring: its first indented paragraph."""
    drawing = next(part for part in (docstring or "").split("\n\n") if part.startswith("    "))
    return inspect.cleandoc("\n" + drawing)


# -- exit codes, reasons


def exit_codes_page() -> str:
    """What a process ends with, and the errors behind it."""
    line = next(line for line in (__main__.__doc__ or "").splitlines() if line.startswith("0 "))
    codes = [part.split(" ", 1) for part in line.rstrip(".").split(", ")]
    finders = ", ".join(f"[`{name}`](commands.md#{_anchor(name)})" for name in COMMANDS if command_of(name).finds)
    return page(
        "Exit codes",
        table(["code", "meaning"], codes),
        f"Code 3 is a finding, not a failure. These commands end with it: {finders}.",
        "`run`, `cameras`, `record --follow` and `labels --follow` run until they are stopped, and so does "
        "`record --from latest` without an option that ends it. An orderly end by SIGTERM or Ctrl-C is 0, also while "
        "they start.",
        "## Errors\n\nEvery message says what was expected, what came, and where, and ends in the remedy.\n\n"
        + block(_drawn(errors.__doc__)),
        "`SettingsError` ends with code 2, every other error that reaches the command line with code 1.",
        "## The last line\n\nThe message is printed as `adawise: MESSAGE`. Where programs read the error output, it is "
        "the event [`program_failed`](events.md) instead, with `exit_code`, `kind` (a class of the tree above), "
        "`error` and `remedy`: for every command with `log.format = json`, and for those that run until they are "
        "stopped (`run`, `cameras`, `record --follow` and others, as above) also with `auto` where the error output "
        "is not a terminal. An error outside the tree is a bug, and `exception` has its "
        "traceback.",
    )


def reasons_page() -> str:
    """The stable words of rejects and gaps."""
    return page(
        "Reasons",
        "The words are stable: they are in outputs, in recordings, and in headers of dead letters.",
        "## Rejected images\n\nThe column `reason` of [predictions](schemas.md#predictions).\n\n"
        + _words(errors.Reason),
        "## Gaps\n\nWhy offsets have no rows. Segments, recordings and `adawise verify` name them.\n\n"
        + _words(errors.Lost),
    )


def _words(words: type[StrEnum]) -> str:
    """The members with the comments beside them."""
    source = inspect.getsource(words)
    rows = []
    for word in words:
        line = re.search(rf"^ +{word.name} = .*?#\ (.+)$", source, re.MULTILINE)
        if line is None:
            raise ValueError(
                f"expected a comment beside {words.__name__}.{word.name} that says what it means, for the reference"
            )
        rows.append([f"`{word}`", line[1]])
    return table(["word", "meaning"], rows)


# -- metrics


def metrics_page() -> str:
    """Every metric of a worker's /metrics."""
    return page(
        "Metrics",
        "What a worker serves at `/metrics`, in Prometheus' text format or as OpenMetrics. Units are seconds, bytes "
        "and messages. Counters start at 0 with the worker. Series with a partition or a stream cover what the worker "
        "owns now: they end with the partition, and the next worker's begin at 0. "
        "The process's own (`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds`) "
        "are there too. See the [guide](../guide/watch.md).",
        _metrics(METRICS),
        f"## Cameras\n\nWhat `{PROGRAM} cameras` serves. Series of a camera end with it.\n\n"
        + _metrics(CAMERA_METRICS),
    )


def _metrics(specs: Sequence[MetricSpec[Any]]) -> str:
    rows = (
        [
            f"`{spec.name}`",
            spec.kind,
            ", ".join(f"`{label}`" for label in spec.series.labels),
            spec.meaning,
            spec.remedy,
        ]
        for spec in specs
    )
    return table(["metric", "type", "labels", "what it is", "what to do when it moves"], rows)


# -- status


def status_page() -> str:
    """The JSON of `adawise status`."""
    shapes: Mapping[str, type] = {
        "Whole status": facts.FleetStatus,
        "Troubles": Finding,
        "Members": facts.MemberStatus,
        "Workers": facts.WorkerStatus,
        "Partitions": facts.PartitionStatus,
        "Cameras": facts.CameraStatus,
        "Rejects": facts.RejectStatus,
    }
    first = (
        f"What `{PROGRAM} status --json` prints; with `--watch`, one such object a line. `well` is true if there are "
        "no troubles. Times are ISO 8601 in UTC; ages and spans are seconds; null means unknown. Fields may "
        "be added; if one is removed or changes its meaning, `version` rises."
    )
    states = _meanings("state", {str(state): meaning for state, meaning in facts.STATES.items()})
    kinds = _meanings("kind", troubles.KINDS)
    return page(
        "Status",
        first,
        *(f"## {title}\n\n{_commented(shape)}" for title, shape in shapes.items()),
        f"## States of a camera\n\nThe most urgent first.\n\n{states}",
        f"## Kinds of trouble\n\nThe most urgent first. The words are stable.\n\n{kinds}",
    )


def _meanings(what: str, words: Mapping[str, str]) -> str:
    return table([what, "what it means"], ([f"`{word}`", meaning] for word, meaning in words.items()))


def _commented(shape: type) -> str:
    """The fields of a dataclass with the comments beside them."""
    rows = re.findall(r"^    (\w+): ([^#=\n]+?)(?: = [^#\n]+)?(?:  # (.*))?$", inspect.getsource(shape), re.MULTILINE)
    return table(["field", "type", "what it is"], ([f"`{name}`", f"`{kind}`", fields] for name, kind, fields in rows))


# -- events


def events_page() -> str:
    """What is logged."""
    calls = logged()
    first = (
        "The program logs on the error output: one JSON object a line, or lines for people on a "
        "terminal (`log.format`). `event` is a name of this table, with `level`, `timestamp` (UTC) and the keys below; "
        "`note` adds a sentence. Lines whose `event` is a sentence come from libraries, or from "
        "what talks to the broker; those of kafka-python are shown with `log.level = debug` only, and have that level."
    )
    rows = [
        [
            f"`{name}`",
            ", ".join(sorted(calls[name].levels)),
            ", ".join([*(f"`{key}`" for key in calls[name].keys), *(["..."] if calls[name].more else [])]),
            event.meaning,
            event.remedy,
        ]
        for name, event in EVENTS.items()
    ]
    return page("Events", first, table(["event", "level", "keys", "what it means", "what to do"], rows))


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "commands.md": commands_page,
    "schemas.md": schemas_page,
    "exit-codes.md": exit_codes_page,
    "reasons.md": reasons_page,
    "cameras.md": cameras_page,
    "metrics.md": metrics_page,
    "status.md": status_page,
    "events.md": events_page,
    "results.schema.json": results_schema,
}


def main() -> int:
    """Write all pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, written in PAGES.items():
        (FOLDER / name).write_text(written(), encoding="utf-8")
        print(f"docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
