"""What the program writes and prints as data: files of a root and of a recording, and JSON of commands."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

import adawise
from adawise.__main__ import main
from adawise.errors import Reason
from adawise.kafka.log import read_whole
from adawise.output.read.rows import read_predictions, read_traces
from adawise.pairs.orders import give_order, read_orders
from adawise.recording.source import RecordingSource
from adawise.store.store import open_store
from tests.drift import yard
from tests.fakes import FakeSource
from tests.fixtures import making, versions
from tests.golden.shapes import columns, key_values, masked, shape
from tests.labels.test_given import collect
from tests.pairs.test_orders import document
from tests.watch.status.yard import Yard

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
TODAY = Path("fixtures/version_0_2_1")  # by the link that `make` makes: what is written names it
OLDER = (
    *("root_0_1_0/root", "before_0_2/root", "before_0_2/compacted"),
    *("version_0_2_0/root", "version_0_2_1/root"),
)

_EVALUATED = "--strategies fixed --streams short --seeds 1 --processes 1"
JSON = (  # arguments, and whether values are deterministic
    ("verify root", True),
    ("files root", True),
    ("compact root --before 2100-01-01 --dry-run", True),
    ("retain root --keep 1000d", True),
    ("diff root replay", False),
    ("pair list root", True),
    ("status --root fleet --no-broker", False),
    ("drift yard", False),
    ("shortlists root", False),
    ("card show fixtures/version_0_2_1/pair.card.json", False),
    (f"evaluate --logits fixtures/before_0_2/tables {_EVALUATED}", False),
    ("config show", False),
    ("doctor --search.alpha 7 --kafka.topic 'a b'", False),
)


def make() -> None:
    """Write into the current folder, by the code of today, what the pages are made of."""
    Path("pipeline").symlink_to(ROOT / "pipeline")
    Path("fixtures").symlink_to(FIXTURES)
    with patch("socket.gethostname", lambda: "fixture"):
        _serve()
    collect(Path("root"), {"row_id": "frames/0/70/0", "label": "pedestrian"}, b"no label")
    store = open_store("root")
    give_order(store, read_orders(store), "begin", pair=document("old"), by="worker:1")
    give_order(store, read_orders(store), "stage", pair=document("new"), by="ann@host", keeps=True, shadow=20)
    run("compact", "root", "--before", "2100-01-01")
    yard.write(Path("yard"))
    run("drift", "yard", "--since", "2026-06-01T20:00:00Z", "--baseline", "baseline.parquet")
    fleet = Yard(open_store("fleet"), now_s=time.time())
    fleet.write(ago_s=20, batches=[("north", 4, 0.25)], rejected={"south": [Reason.EMPTY] * 3})


def _serve() -> None:
    """Serve the recording of today's fixture, stopped once in the middle: two segments, whatever the machine's pace."""
    recorded = RecordingSource(str(TODAY / "following"), order="timestamp", seed=0, max_poll_records=512)
    messages = [*read_whole(recorded)]
    for until in (len(messages) // 2, len(messages)):
        source = FakeSource(messages[:until], identity=versions.IDENTITY, finite=True)
        making.serve(versions.settings(Path("root")), source, ends_streams=until == len(messages))
    versions.replay(TODAY, Path("replay"))


def run(*words: str, codes: tuple[int, ...] = (0, 3)) -> str:
    """Return what a command printed."""
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()):
        code = main(words)
    assert code in codes, (words, code)
    return output.getvalue()


def schemas() -> str:
    """Return the columns and the footers of each kind of Parquet file."""
    files = {
        "predictions": Path("root/predictions"),
        "traces": Path("root/traces"),
        "compacted predictions": Path("root/compacted/predictions"),
        "compacted traces": Path("root/compacted/traces"),
        "labels": Path("root/labels"),
        "segment that a replay begins with": Path("replay/predictions"),
    }
    parts = [_parquet(title, min(folder.rglob("*.parquet"))) for title, folder in files.items()]
    parts.append(_parquet("baseline", Path("baseline.parquet")))
    parts.append(f"[views.sql]\n{masked(Path('root/views.sql').read_text())}".replace(str(Path.cwd()), "FOLDER"))
    return "\n".join(parts)


def _parquet(title: str, file: Path) -> str:
    schema, footer = pq.read_schema(file), pq.read_metadata(file).metadata or {}
    lines = [*columns(schema), *(f"  {line}" for line in key_values(footer))]
    return f"[{title}]\n" + "".join(f"{line}\n" for line in lines)


def documents() -> str:
    """Return the names of all files of a root and of a replay, and the shapes of JSON documents."""
    found: dict[str, list[str]] = {}
    for root in (Path("root"), Path("replay")):
        for file in sorted(file for file in root.rglob("*") if file.is_file()):
            name = f"{root.name}/{masked(str(file.relative_to(root)))}"
            found[name] = [*shape(json.loads(file.read_bytes()))] if file.suffix == ".json" else []
    return "".join(f"{name}\n{''.join(f'    {line}{chr(10)}' for line in lines)}" for name, lines in found.items())


def outputs() -> str:
    """Return the shapes of what commands print with `--json`."""
    lines: list[str] = []
    for words, values in JSON:
        lines.append(f"$ adawise {words} --json")
        output = run(*shlex.split(words), "--json", codes=(0, 2, 3)).replace(str(Path.cwd()), "FOLDER")
        lines += [f"    {line}" for line in shape(json.loads(output), values=values)]
    analysis = adawise.analyse("yard")
    for name in sorted(name for name in dir(analysis) if isinstance(getattr(analysis, name), adawise.AnalysisTable)):
        lines.append(f"adawise.analyse(...).{name}")
        lines += [f"    {line}" for line in columns(getattr(analysis, name).arrow.schema)]
    return "".join(f"{line}\n" for line in lines)


def readings() -> str:
    """Return what is read of each root of an earlier version: counted rows, and what was chosen for each batch."""
    return "".join(f"{line}\n" for root in OLDER for line in (root, *_reading(FIXTURES / root)))


def _reading(root: Path) -> Iterator[str]:
    rows = read_predictions(root).table()
    yield f"    {rows.num_rows} rows: {_counted(rows, 'stream_id', 'status')}"
    yield f"    labels: {_counted(rows, 'label')}"
    traces = read_traces(root).table().sort_by([("stream_id", "ascending"), ("first_offset", "ascending")])
    by_stream: dict[str, list[str]] = {}
    for trace in traces.to_pylist():
        tried = "" if len(trace["trials"]) == 1 else f"/{len(trace['trials'])}"
        why = "" if trace["trigger"] == "none" else f" {trace['trigger']}"
        reset = "" if trace["reset"] is None else f" ({trace['reset']})"
        fields = f"{trace['batch_number']}: {trace['alpha']:.2f}{tried}{why}{reset} of {trace['images']}"
        by_stream.setdefault(trace["stream_id"], []).append(fields)
    for stream, batches in by_stream.items():
        yield f"    {stream} (batch: alpha/trials trigger (reset) of images)"
        yield from (f"        {', '.join(batches[first : first + 5])}" for first in range(0, len(batches), 5))


def _counted(rows: pa.Table, *names: str) -> str:
    counts = rows.group_by(list(names)).aggregate([([], "count_all")]).sort_by([(name, "ascending") for name in names])
    return ", ".join(f"{row['count_all']} {' '.join(str(row[name]) for name in names)}" for row in counts.to_pylist())
