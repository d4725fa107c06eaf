"""Any file of a root, damaged in any way, under any command on a root: one sentence, and nothing is lost for it.

A command ends with a code of its own and without a traceback. One that changes nothing changes nothing; one that
removes or replaces files does so with none beyond those that it would have removed or replaced of the undamaged root.
What a link points at, outside the root, stays as it is. `verify` does not call a root whole whose chains are damaged.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adawise.__main__ import main
from adawise.output.compaction import retain
from adawise.pairs.orders import give_order, read_orders
from adawise.ports import ServedBy
from adawise.records import TopicPartition
from adawise.sink import claims, layout, served_by
from adawise.sink.served_by import claim_pair, claim_precision
from adawise.sink.starts import StoredStarts
from adawise.sink.walk import chains
from adawise.store.store import LocalStore
from tests.damage.hostile_parquet import HOSTILE
from tests.damage.surroundings import LABELS, Stops, surroundings, write_recording
from tests.deadlines import scaled
from tests.models import PairFolder
from tests.pairs.test_orders import document
from tests.sink.building import CLASSES
from tests.watch.status.yard import IDENTITY, OWNER, Yard

DAYS, KEPT = 7, 3
DAY_S = 86_400.0
MARK = "outside"
PARTITIONS, YOUNG = (0, 1), 2  # the last one has never been cut or compacted

pytestmark = pytest.mark.usefixtures("logs_of_this_process")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def now() -> Iterator[datetime]:
    """The time by which `retain` chooses days, for all tests: midnight may come between the root and a command."""
    fixed = datetime.now(UTC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retain, "now_of", lambda store: fixed)
        yield fixed


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, now: datetime) -> Path:
    """A root with a file of every kind: two cut chains, half of one compacted, one of this minute, orders, claims, a
    report, settings.
    """
    folder = tmp_path_factory.mktemp("whole") / "root"
    store, now_s = LocalStore(folder), now.timestamp()
    yard = Yard(store, now_s=now_s)
    claims.topic(store, OWNER.topic, IDENTITY)
    for partition in PARTITIONS:
        for days in (day + part for day in range(DAYS, 0, -1) for part in (0.0, -0.001)):  # two segments a day
            known = (1, 2) if days == int(days) else None  # in one of them
            key = yard.write(
                partition, ago_s=days * DAY_S, batches=[("north", 4, 0.5), ("south", 3, 0.5)], condition=known
            )
            for path in (folder / key, folder / layout.traces_key(key)):
                os.utime(path, (now_s - days * DAY_S,) * 2)
    for seconds in (30.0, 20.0, 10.0):
        yard.write(YOUNG, ago_s=seconds, batches=[("east", 4, 0.5)])
    claim_pair(store, document("old").identity, "refuse")
    claim_precision(store, "fp32")
    orders = give_order(store, read_orders(store), "begin", pair=document("old"), by="worker:1")
    orders = give_order(store, orders, "stage", pair=document("new"), by="ann@host", shadow=5)
    give_order(store, orders, "switch", pair=1, by="ann@host", keeps=True)
    report = {"worker": "host:1", "again_s": 10.0, "pairs": {}, "partitions": {}, "loads": {}, "shadow": None}
    store.put(layout.worker_key("one"), json.dumps(report).encode())
    by = ServedBy(CLASSES, "model", "config", "", {"search.price": 0.03}, {"model.theta_0": "pair/theta_0"})
    served_by.note_settings(store, by, now=datetime.now(UTC))
    starts = StoredStarts(store, "one", lambda: 0.0)
    for partition, head in yard.heads.items():
        tp = TopicPartition(OWNER.topic, partition)
        starts.begin(tp, head.next_offset)
        starts.reads(tp, head.next_offset)
    with surroundings(folder):
        assert main(["labels", str(folder), "--topic", LABELS]) == 0
    assert main(["retain", str(folder), "--keep", f"{DAYS - 2}d", "--yes"]) == 0
    assert main(["compact", str(folder)]) == 0
    for path in (folder / layout.COMPACTED).rglob("*.parquet"):
        os.utime(path, (now_s - 2 * DAY_S,) * 2)
    assert main(["verify", str(folder)]) == 0
    return folder


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def null(path: Path) -> None:
    path.write_bytes(b"null")


def nested(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def huge(path: Path) -> None:
    path.write_bytes(b'{"sink": "' + b"a" * (1 << 24) + b'"}')


def other_types(path: Path) -> None:
    """A JSON document's values each of another type; another Parquet file where it is one."""
    if path.suffix == ".json":
        values = json.loads(path.read_text())
        path.write_text(
            json.dumps({name: [value] if isinstance(value, (str, dict)) else {} for name, value in values.items()})
        )
    else:
        pq.write_table(pa.table({"offset": ["a"], "partition": [[1]]}), path)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in Random(path.name).sample(range(len(data)), min(8, len(data))):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))


def renamed(path: Path) -> None:
    path.rename(path.with_name(f"{path.stem} (copy){path.suffix}"))


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("x")


def a_pipe(path: Path) -> None:
    """Without a writer: to open it is to wait for ever."""
    path.unlink()
    os.mkfifo(path)


def a_device(path: Path) -> None:
    """That gives zeros without end."""
    path.unlink()
    if f"{layout.COMPACTED}/plans" not in str(path):  # an old plan is removed, and the device is old
        path.symlink_to("/dev/zero")


def a_link_outside(path: Path) -> None:
    path.unlink()
    path.symlink_to(_outside(path))


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def a_folder_that_is_a_link_outside(path: Path) -> None:
    """Not the root, one at its top, or that of a topic or a partition: they may lie on another disk, and are used."""
    if path.parent.name.startswith(("topic-", "partition-")) or _root(path) in {path.parent, path.parent.parent}:
        path.unlink()
        return
    shutil.rmtree(path.parent)
    path.parent.symlink_to(_outside(path).parent, target_is_directory=True)


def garbage_further_on(path: Path) -> None:
    """One more of its kind, by a name that is the last of all."""
    beside = path.with_name(re.sub(r"[0-9]+", lambda digits: "9" * len(digits[0]), path.name))
    (path.with_name(f"9{path.name}") if beside.exists() else beside).write_bytes(b"garbage")


def an_empty_claim_further_on(path: Path) -> None:
    """That the chain begins with a segment which is the newest but one."""
    if not str(path.relative_to(_root(path))).startswith(layout.RETAINED):
        return
    chain = _root(path) / layout.PREDICTIONS / path.parent.relative_to(_root(path) / layout.RETAINED)
    path.with_name(f"{sorted(chain.iterdir())[-2].stem}.json").write_bytes(b"")


def a_partition_gone(path: Path) -> None:
    """All files of its partition; the claims of where it begins stay."""
    of = [part for part in path.parts if part.startswith(("topic-", "partition-"))]
    if len(of) == 2 and layout.PREDICTIONS in path.parts:
        for dataset in (layout.PREDICTIONS, layout.TRACES, *(f"{layout.COMPACTED}/{x}" for x in _COMPACTED)):
            shutil.rmtree(_root(path).joinpath(dataset, *of), ignore_errors=True)


_COMPACTED = (layout.PREDICTIONS, layout.TRACES, "plans")


def copied(path: Path) -> None:
    """The folder of its topic, by names that no topic has; else itself."""
    topic = next((parent for parent in path.parents if parent.name.startswith("topic-")), None)
    for name in ("{} (copy)", "{}\n"):
        if topic is None:
            shutil.copy(path, path.with_name(name.format(path.name)))
        else:
            shutil.copytree(topic, topic.with_name(name.format(topic.name)))


def _root(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "root")


def _outside(path: Path) -> Path:
    return _root(path).parent / MARK / "kept.json"


DAMAGE: Mapping[str, Callable[[Path], None]] = {
    damage.__name__: damage
    for damage in (
        *(empty, cut_short, null, nested, huge, other_types, flipped, renamed, gone, a_folder, a_pipe, a_device),
        a_link_outside,
        *(a_link_to_itself, a_folder_that_is_a_link_outside, garbage_further_on, an_empty_claim_further_on),
        *(a_partition_gone, copied, *HOSTILE.values()),
    )
}
PAIR = [
    word
    for name in ("architecture", "theta_0", "theta_1", "classes")
    for word in (f"--model.{name.replace('_', '-')}", name.upper())
]
HERE = ["--http.port", "0", "--kafka.topic", OWNER.topic, "--kafka.group", OWNER.group, "--model.device", "cpu"]
READS = {
    "verify": ["verify", "ROOT"],
    "files": ["files", "ROOT"],
    "status": ["status", "--root", "ROOT", "--no-broker"],
    "pair list": ["pair", "list", "ROOT"],
    "drift": ["drift", "ROOT", "--json"],
    "diff": ["diff", "ROOT", "WHOLE"],
    "shortlists": ["shortlists", "ROOT"],
    "retain": ["retain", "ROOT", "--keep", f"{KEPT}d"],
    "repair": ["repair", "ROOT"],
    "replay": ["replay", "RECORDING", "-o", "NEW", "--batches-of", "ROOT", "--pairs-of", "ROOT", *PAIR],
    "replay --state-of": ["replay", "RECORDING", "-o", "NEW", "--state-of", "ROOT@2100-01-01T00:00:00Z", *PAIR],
}
WRITES = {
    "retain --yes": ["retain", "ROOT", "--keep", f"{KEPT}d", "--yes"],
    "compact": ["compact", "ROOT", "--delete-after", "1d"],
    "repair --yes": ["repair", "ROOT", "--yes"],
    "pair switch": ["pair", "switch", "ROOT", "--pair", "0", "--anyway"],
    "pair rollback": ["pair", "rollback", "ROOT"],
    "pair stage": ["pair", "stage", "ROOT", *PAIR],
    "labels": ["labels", "ROOT", "--topic", LABELS],
    "run": ["run", "--sink.root", "ROOT", "--model.on-change", "keep", "--no-kafka.dead-letters", *HERE, *PAIR],
}


A_PIPE = "a pipe"
PATIENCE_S = scaled(20.0)


@contextmanager
def written_to_late(pipes: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the pipes that the block waits for; after `PATIENCE_S` they get a writer that writes nothing."""
    done, late = threading.Event(), list[Path]()

    def write() -> None:
        wait_s = PATIENCE_S
        while pipes and not done.wait(wait_s):
            wait_s = 0.1
            for pipe in pipes:
                with suppress(OSError):  # no reader waits for it
                    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
                    late.append(pipe)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield late
    finally:
        done.set()
        writer.join()


def is_mark(content: bytes | str) -> bool:
    try:
        found = json.loads(content)
        return found["layout"] == claims.LAYOUT and isinstance(found["until"], int)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def entries(folder: Path) -> dict[str, bytes | str]:
    """What is in a folder: files with what they hold, links with where they point."""
    found: dict[str, bytes | str] = {}
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(at, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = str(path.readlink())
            elif path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
            elif path.is_fifo():
                found[str(path.relative_to(folder))] = A_PIPE
    return found


KINDS = {
    *(layout.SINK, layout.OWNER, layout.VIEWS, layout.TOPICS, layout.ORIGINS, layout.RETAINED, layout.MODELS),
    *(layout.NUMERICS, "labels"),
    *(layout.PAIRS, layout.WORKERS, layout.SETTINGS, "_starts", layout.PREDICTIONS, layout.TRACES),
    *(f"{layout.COMPACTED}/{dataset}" for dataset in _COMPACTED),
}
"""All that a root has, by `layout`, but for what makes it a replay's."""


def kind_of(name: str) -> str:
    """What a file of a root is."""
    parts = name.split("/")[:-1]
    return "/".join(part for part in parts if not part.startswith(("topic-", "partition-"))) or name


def kinds(root: Path) -> dict[str, list[str]]:
    """The files of a root by what they are, those of a kind in order."""
    found: dict[str, list[str]] = {}
    for name in sorted(entries(root)):
        found.setdefault(kind_of(name), []).append(name)
    return found


def cases(root: Path, each: int) -> Iterator[tuple[str, str, str]]:
    """A file, a damage and a command; of each kind of file and damage `each` commands, or all."""
    draw = Random(each)
    commands = [*READS, *WRITES]
    for names in kinds(root).values():
        for damage in DAMAGE:
            if found := [name for name in names if damage not in HOSTILE or name.endswith(".parquet")]:
                for command in draw.sample(commands, min(each, len(commands))):
                    yield draw.choice([found[0], found[-1], draw.choice(found)]), damage, command


@dataclass(frozen=True)
class World:
    """What a command finds: the undamaged root, other places by their names in `READS` and `WRITES`, an end."""

    whole: Path
    places: Mapping[str, str]
    stops: Stops

    def arguments(self, command: str, root: Path) -> list[str]:
        """Of a command on this root; new files are beside it. The command may be asked to stop."""
        self.stops.is_sent = False
        places = {**self.places, "NEW": str(root.with_name("new"))}
        return [
            places.get(each, each.replace("ROOT", str(root)) if each.startswith("ROOT") else each)
            for each in {**READS, **WRITES}[command]
        ]


@pytest.fixture(scope="module")
def world(whole: Path, pair_folder: PairFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """With a recording of what the root is of."""
    recording = tmp_path_factory.mktemp("recording") / "frames"
    write_recording(whole, recording)
    pair = {"ARCHITECTURE": pair_folder.theta_0, "THETA_0": pair_folder.theta_0, "THETA_1": pair_folder.theta_1}
    places = {**pair, "CLASSES": str(pair_folder.classes), "RECORDING": str(recording), "WHOLE": str(whole)}
    with surroundings(whole) as stops:
        yield World(whole, places, stops)


def fault_of(
    world: World,
    folder: Path,
    case: tuple[str, str, str],
    undamaged: Mapping[str, Effect],
    capsys: Captured,
) -> str:
    """What is wrong with how a command takes the damage; "" if nothing is."""
    name, damage, command = case
    whole, root, outside = world.whole, folder / "root", folder / MARK
    shutil.copytree(whole, root, symlinks=True)
    outside.mkdir()
    (outside / "kept.json").write_text("{}")
    (outside / "00000000000000000000.parquet").write_bytes(b"PAR1")
    DAMAGE[damage](root / name)
    before, beside = entries(root), entries(outside)
    if before == entries(whole):
        return ""  # it is not damaged in this way
    capsys.readouterr()
    arguments = world.arguments(command, root)
    try:
        with written_to_late([root / each for each, found in before.items() if found == A_PIPE]) as late:
            code = main(arguments)
    except BaseException as error:  # noqa: BLE001
        return f"raised {error!r}"
    if late:
        return f"waited for {late[0]}"
    output = capsys.readouterr()
    after = entries(root)
    lost = {each for each in before if each not in after and after.get(f"_set_aside/{each}") != before[each]}
    if command == "run":  # a mark that can be read, under whatever name, is of a start that is over
        lost = {each for each in lost if not (kind_of(each) == "_starts" and is_mark(before[each]))}
    if code not in {0, 1, 2, 3} or "Traceback" in output.out + output.err:
        return f"code {code}: {output.err[-300:]}"
    if code in {1, 2} and not output.err.strip():
        return f"code {code} without a word"
    if entries(outside) != beside:
        return "what is outside was changed"
    serves = command == "run" and kind_of(name) in HINTS and damage != a_folder_that_is_a_link_outside.__name__
    if serves and not any(kind_of(each) == ROWS for each in after.keys() - before):
        return f"served nothing: {output.err[-300:]}"
    if command in READS and after != before:
        changed = (each for each in before.keys() | after.keys() if before.get(each) != after.get(each))
        return f"changed {sorted(changed)[:5]}"
    may = undamaged.get(command, Effect())
    if too_many := lost - may.removes:
        return f"removed {sorted(too_many)[:5]}"
    derived = {name} if command == "run" and kind_of(name) == layout.TRACES else set()  # of the newest segment
    replaced = {each for each in before.keys() & after.keys() if before[each] != after[each]}
    if too_many := replaced - may.replaces - derived:
        return f"replaced {sorted(too_many)[:5]}"
    is_proved = kind_of(name) in PROVED and not (damage in MAY_REMOVE and name in spare_traces(whole))
    is_proved &= not (kind_of(name) == layout.TRACES and "key_values" in damage)  # traces are derived from segments
    is_proved |= kind_of(name) in CLAIMS and damage not in LEAVE_NO_CLAIM
    if command == "verify" and not code and is_proved and "there is no segment" not in output.out:
        return "called whole: " + output.out.strip()
    return ""


PROVED = {
    *(layout.PREDICTIONS, layout.TRACES, layout.ORIGINS, layout.RETAINED),
    f"{layout.COMPACTED}/{layout.PREDICTIONS}",
}
"""What `verify` proves; without plans and traces, a compaction that died leaves a whole root."""


MAY_REMOVE = {each.__name__ for each in (gone, a_folder_that_is_a_link_outside)}
ROWS = layout.PREDICTIONS
HINTS = {"_starts", layout.WORKERS, layout.SETTINGS}
"""Kinds of files that a worker serves without."""

CLAIMS = {layout.OWNER, layout.NUMERICS}
LEAVE_NO_CLAIM = {
    each.__name__ for each in (gone, renamed, garbage_further_on, copied, a_folder_that_is_a_link_outside)
}
"""Damages after which a claim of the whole root is missing or as it was. A missing one is made by the next worker."""


def spare_traces(root: Path) -> set[str]:
    """The traces that may be missing from a whole root.

    Those of a chain's newest segment: a worker that was killed wrote the segment alone, and the next one writes them.
    Those of segments that compacted files cover: `compact --delete-after` deletes them before their segments, and the
    compacted files, which are checked, hold the same rows.
    """
    store, ends = LocalStore(root), dict[TopicPartition, str]()
    for key in store.list(f"{layout.COMPACTED}/{layout.TRACES}"):
        if named := layout.parse_compacted_key(key):
            tp, compacted = named
            ends[tp] = max(ends.get(tp, ""), layout.segment_key(tp, compacted.until))
    found = chains(store)
    spare = {keys[-1] for keys in found.values()}
    spare |= {key for tp, keys in found.items() for key in keys if key < ends.get(tp, "")}
    return {layout.traces_key(key) for key in spare}


@dataclass(frozen=True)
class Effect:
    """What a command removes and replaces of the undamaged root."""

    removes: Set[str] = frozenset()
    replaces: Set[str] = frozenset()


@pytest.fixture(scope="module")
def undamaged(world: World, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Effect]:
    """By command, what it does to the undamaged root."""
    found, whole = {}, world.whole
    for command in WRITES:
        root = Path(shutil.copytree(whole, tmp_path_factory.mktemp("undamaged") / "root"))
        before = entries(root)
        assert main(world.arguments(command, root)) in {0, 3}, command
        after = entries(root)
        both = before.keys() & after.keys()
        found[command] = Effect(before.keys() - after.keys(), {each for each in both if before[each] != after[each]})
    assert found["retain --yes"].removes
    assert found["compact"].removes
    return found


@pytest.mark.timeout(2_400)  # hundreds of commands
@pytest.mark.parametrize(
    ("each", "step"),
    [
        (1, 16),
        pytest.param(2, 1, marks=pytest.mark.check("damage")),
        pytest.param(len(READS) + len(WRITES), 1, marks=pytest.mark.soak),
    ],
)
def test_a_damaged_file_costs_no_other_and_no_command_ends_in_a_traceback(
    world: World, undamaged: Mapping[str, Effect], tmp_path: Path, capsys: Captured, each: int, step: int
) -> None:
    whole = world.whole
    assert kinds(whole).keys() == KINDS
    faults = []
    for number, case in enumerate(islice(cases(whole, each), 0, None, step)):
        folder = tmp_path / str(number)
        folder.mkdir()
        if fault := fault_of(world, folder, case, undamaged, capsys):
            faults.append(f"{case}: {fault}")
        shutil.rmtree(folder)
    assert not faults, "\n".join(faults)
