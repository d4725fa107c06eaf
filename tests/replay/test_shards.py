"""A replay in shards gives what a replay of the whole gives, bit by bit; what does not fit together is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from adawise.__main__ import main
from adawise.adapt.state import StreamState
from adawise.app.model import ModelPair, load_model
from adawise.app.signals import StopRequest
from adawise.cli.replay import ReplayCommand, differences
from adawise.decode.child import IsolatedDecoder
from adawise.decode.preprocess import Preprocess
from adawise.errors import AdawiseError, SettingsError, SourceError
from adawise.output.verify.root import verify
from adawise.ports import TopicIdentity
from adawise.records import Message
from adawise.replay.library import replay_recording
from adawise.replay.plan import PlanRequest, plan_replay
from adawise.replay.replay import ReplayRequest, ReplayResult, replay
from adawise.settings import Settings
from adawise.sink import layout
from adawise.sink.starts import StoredStarts
from adawise.sink.walk import newest
from adawise.store.store import open_store
from tests.deadlines import DEADLINE_S
from tests.models import PairFolder
from tests.replay import crowd, runs
from tests.sink.footers import read_segment_footers

pytestmark = pytest.mark.usefixtures("logs_of_this_process")

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def chosen(pair_folder: PairFolder) -> Settings:
    return crowd.settings(pair_folder)


@pytest.fixture(scope="module")
def model(chosen: Settings) -> ModelPair:
    return load_model(chosen.model, chosen.decode)


@pytest.fixture(autouse=True)
def _loaded_once(model: ModelPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise.app.model.load_model", lambda *_: model)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowd.record(tmp_path_factory.mktemp("crowd") / "recording")


@pytest.fixture(scope="module")
def whole(recording: Path, chosen: Settings, model: ModelPair) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adawise.app.model.load_model", lambda *_: model)
        crowd.replayed(chosen, recording, root := recording.parent / "whole")
    return root


@pytest.fixture(scope="module")
def halves(recording: Path, chosen: Settings, model: ModelPair) -> Path:
    """A plan of two shards, both done."""
    crowd.planned(recording, output := recording.parent / "halves", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adawise.app.model.load_model", lambda *_: model)
        for number in range(2):
            crowd.replayed(chosen, recording, output, number)
    return output


class StopAfter(StopRequest):
    """A request that comes after so many steps of the worker."""

    def __init__(self, steps: int) -> None:
        super().__init__(lambda: None)
        self._left = steps

    def __call__(self) -> bool:
        self._left -= 1
        return self._left < 0


def roots_of(output: Path, shards: int) -> list[Path]:
    return [Path(layout.shard_root(str(output), number)) for number in range(shards)]


def test_the_recording_has_everything_that_shards_divide(whole: Path) -> None:
    rows = runs.predictions(whole).to_pylist()
    assert {row["status"] for row in rows} == {"accepted", "rejected", "skipped"}
    assert {None, crowd.HIDDEN, *crowd.CAMERAS[0], *crowd.CAMERAS[1]} <= {row["stream_id"] for row in rows}
    by_message: dict[tuple[int, int], set[str | None]] = {}
    for row in rows:
        by_message.setdefault((row["partition"], row["offset"]), set()).add(row["stream_id"])
    assert sum(len(names) > 2 and None in names for names in by_message.values()) > 3
    assert len({row["alpha"] for row in rows} - {None}) > 2, "the search never moved: equality would say little"
    traces = runs.traces(whole)
    assert {"crowded"} <= {trace["reset"] for trace in traces}
    assert len({trace["rejected"] for trace in traces}) > 1
    footers = [footer for _, footer in read_segment_footers(open_store(str(whole)))]
    assert sum(len(footer.gaps) for footer in footers) > 0


@pytest.mark.parametrize("shards", [7, *(pytest.param(n, marks=pytest.mark.check("replay")) for n in (1, 2, 3))])
def test_shards_together_have_the_rows_of_the_whole_bit_by_bit(
    shards: int, recording: Path, whole: Path, chosen: Settings, tmp_path: Path, capsys: Captured
) -> None:
    output = tmp_path / "shards"
    crowd.planned(recording, output, shards)
    done = [crowd.replayed(chosen, recording, output, number) for number in reversed(range(shards))]
    roots = roots_of(output, shards)
    assert crowd.rows_of(roots) == crowd.rows_of([whole])
    assert crowd.traces_of(roots) == crowd.traces_of([whole])
    assert {result.output for result in done} == {*map(str, roots)}
    assert (sum(result.passed_by for result in done) > 0) == (shards > 2), "two shards have a partition each"
    assert main(["diff", str(whole), str(output), "--whole"]) == 0
    assert all(verify(open_store(str(root)), read_state=StreamState.from_bytes) == [] for root in roots)
    again = crowd.replayed(chosen, recording, output, shards - 1)
    assert (again.images, again.rejected, again.passed_by) == (0, 0, 0)
    capsys.readouterr()


@pytest.mark.parametrize("what", ["batches_of", pytest.param("pairs_of", marks=pytest.mark.check("replay"))])
def test_shards_of_other_partitions_share_the_pairs_and_the_batches_of_a_root(
    what: str, recording: Path, whole: Path, chosen: Settings, tmp_path: Path
) -> None:
    stored = crowd.planned(recording, tmp_path, 2)
    assert [owners.readers for owners in stored.plan.owners.values()] in ([(0,), (1,)], [(1,), (0,)])
    options: dict[str, Any] = {what: str(whole)}
    for number in range(2):
        replay(ReplayRequest(chosen, str(tmp_path), str(recording), shard=number, **options))
    assert crowd.rows_of(roots_of(tmp_path, 2)) == crowd.rows_of([whole])


@pytest.mark.check("replay")
def test_names_that_take_places_by_messages_without_a_value_are_the_same_in_shards(
    pair_folder: PairFolder, tmp_path: Path
) -> None:
    recording = crowd.record(tmp_path / "recording", count=120, of=crowd.deletions)
    used = crowd.settings(pair_folder, batch={"images": 1})
    crowd.replayed(used, recording, root := tmp_path / "whole")
    crowd.planned(recording, output := tmp_path / "out", 5)
    for number in range(5):
        crowd.replayed(used, recording, output, number)
    assert crowd.rows_of(roots_of(output, 5)) == crowd.rows_of([root])
    assert crowd.traces_of(roots_of(output, 5)) == crowd.traces_of([root])


@pytest.mark.check("replay")
def test_a_batch_that_kills_the_decoder_after_it_was_pending_does_not_stop_a_shard(
    recording: Path, pair_folder: PairFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = crowd.settings(pair_folder, batch={"images": 256, "max_age_s": 1000.0}, limits={"streams": 1000})
    plan = crowd.planned(recording, tmp_path, 5).plan
    tp, shard = next((tp, s) for tp, each in plan.owners.items() for s in each.readers if s != each.rest)
    store = open_store(layout.shard_root(str(tmp_path), shard))
    batches = {sent.offset for sent in crowd.messages(tp.partition) if sent.key is None and sent.value is not None}
    request = ReplayRequest(used, str(tmp_path), str(recording), shard=shard)
    for steps in range(1, 40):
        replay(request, stop=StopAfter(steps))
        if (head := newest(store, tp)) is not None and (pending := batches.intersection(head.pending)):
            break
    killing, ask, begin = min(pending), IsolatedDecoder._request, StoredStarts.begin

    def dies(self: IsolatedDecoder, what: Any, message: Message, free: Any) -> tuple[Any, str]:
        return (None, "by SIGKILL") if message.offset == killing else ask(self, what, message, free)

    monkeypatch.setattr(IsolatedDecoder, "_request", dies)
    monkeypatch.setattr(StoredStarts, "begin", lambda *each: max(killing + 1, begin(*each)))
    assert not replay(request).stopped
    head = newest(store, tp)
    assert head is not None
    assert (head.pending, head.next) == ((), crowd.COUNT)
    assert verify(store, read_state=StreamState.from_bytes) == []


@pytest.mark.check("replay")
def test_a_shard_of_partitions_without_batches_takes_the_batches_of_the_others_as_its_method(
    recording: Path, whole: Path, chosen: Settings, tmp_path: Path
) -> None:
    live = Path(shutil.copytree(whole, tmp_path / "live"))
    folders = [live / dataset / f"topic-{crowd.TOPIC}" / "partition-00001" for dataset in ("predictions", "traces")]
    for folder in folders:
        shutil.rmtree(folder)
    options: dict[str, Any] = {"batches_of": str(live)}
    crowd.planned(recording, output := tmp_path / "out", 2)
    for number in range(2):
        replay(ReplayRequest(chosen, str(output), str(recording), shard=number, **options))
    replay(ReplayRequest(chosen, str(tmp_path / "again"), str(recording), **options))
    assert crowd.rows_of(roots_of(output, 2)) == crowd.rows_of([tmp_path / "again"])


@pytest.mark.check("replay")
@pytest.mark.parametrize(
    "part",
    [{"until": crowd.at(45)}, {"from_time": crowd.at(10), "until": crowd.at(45)}, {"streams": "north,s*,hidden"}],
    ids=["until", "between", "streams"],
)
def test_shards_of_a_part_have_the_rows_of_a_replay_of_that_part(
    part: dict[str, Any], recording: Path, chosen: Settings, tmp_path: Path
) -> None:
    root, output = tmp_path / "whole", tmp_path / "shards"
    replay(ReplayRequest(chosen, str(root), str(recording), **part))
    plan_replay(PlanRequest(str(recording), str(output), 3, **part))
    done = [crowd.replayed(chosen, recording, output, number) for number in range(3)]
    assert {result.ends_streams for result in done} == {"until" not in part}
    assert crowd.rows_of(roots_of(output, 3)) == crowd.rows_of([root])
    assert crowd.traces_of(roots_of(output, 3)) == crowd.traces_of([root])
    before = contents(output)
    assert sum(crowd.replayed(chosen, recording, output, number).images for number in range(3)) == 0
    assert {name for name in contents(output) if name.endswith(".parquet")} <= before.keys()


@pytest.mark.check("replay")
def test_a_shard_decodes_no_image_of_another_one(
    recording: Path, chosen: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    prepare = Preprocess.__call__

    def counting(self: Preprocess, image: Image.Image) -> Tensor:
        prepared.append(1)
        return prepare(self, image)

    monkeypatch.setattr(Preprocess, "__call__", counting)
    crowd.planned(recording, tmp_path / "shards", 2)
    for number in range(2):
        crowd.replayed(chosen, recording, tmp_path / "shards", number)
    in_shards = len(prepared)
    crowd.replayed(chosen, recording, tmp_path / "whole")
    assert len(prepared) == 2 * in_shards


def test_a_plan_reads_no_image(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adawise.recording.format.messages_from", None)
    monkeypatch.setattr("adawise.decode.codec.open_image", None)
    stored = crowd.planned(recording, tmp_path, 3)
    shards = stored.plan.shards
    assert sum(shard.messages for shard in shards) + _missing(recording) == 2 * crowd.COUNT
    assert max(shard.cost for shard in shards) <= 1.2 * sum(shard.cost for shard in shards) / 3


def _missing(recording: Path) -> int:
    return sum(message.missing is not None for partition in (0, 1) for message in crowd.messages(partition))


def test_a_plan_is_created_once(recording: Path, tmp_path: Path) -> None:
    first = crowd.planned(recording, tmp_path, 2)
    written = (tmp_path / layout.PLAN).read_bytes()
    again = crowd.planned(recording, tmp_path, 2)
    assert (first.is_new, again.is_new, first.digest) == (True, False, again.digest)
    with pytest.raises(SettingsError, match=r"holds the plan of 2 shards, with other options; use a new folder"):
        crowd.planned(recording, tmp_path, 3)
    assert (tmp_path / layout.PLAN).read_bytes() == written


@pytest.mark.parametrize(
    ("edited", "words"),
    [
        ({"dearest": {"partition": 0, "camera": None, "cost": 0.0}}, "it is damaged; restore it"),
        ({"shards": [{"messages": 0, "cost": 0.0}] * 2}, "it is damaged; restore it"),
        ({"topic": "../../x"}, "it is damaged; restore it"),
        ({"partitions": {}}, "it is damaged; restore it"),
        ({"topic": "another"}, "but the plan in .* was made for topic 'another'"),
        ({"topic_id": "another"}, "but the plan in .* was made for topic 'crowd' with the id another"),
        ({"until": "2026-01-01T00:00:00+00:00"}, r"with other options \(a time such as 6h is another moment"),
    ],
)
def test_a_plan_that_was_edited_is_refused_in_one_sentence(
    edited: dict[str, object], words: str, recording: Path, tmp_path: Path
) -> None:
    crowd.planned(recording, output := tmp_path / "out", 2)
    document = json.loads((output / layout.PLAN).read_text()) | edited
    (output / layout.PLAN).write_text(json.dumps(document))
    with pytest.raises(AdawiseError, match=words):
        crowd.planned(recording, output, 2)


@pytest.mark.check("replay")
def test_a_shard_that_goes_on_after_the_recording_has_grown_keeps_to_its_plan(chosen: Settings, tmp_path: Path) -> None:
    recording = crowd.record(tmp_path / "recording", count=50)
    crowd.planned(recording, tmp_path / "out", 2)
    crowd.replayed(chosen, recording, tmp_path / "out", 0)
    longer = crowd.record(tmp_path / "longer", count=70)
    for file in longer.rglob("*00050.parquet"):
        shutil.copy(file, recording / file.relative_to(longer))
    crowd.replayed(chosen, recording, tmp_path / "out", 1)
    last = [row["offset"] for root in roots_of(tmp_path / "out", 2) for row in runs.predictions(root).to_pylist()]
    assert max(last) < 50
    assert not crowd.planned(recording, tmp_path / "out", 2).is_new


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("number", r"--shard 2: the plan in .* has 2 shards, with the numbers 0 to 1$"),
        ("no plan", r"--shard 0: there is no plan in .*; make it once with `adawise replay RECORDING --plan N"),
        ("no shard", r"-o .* holds the plan of 2 shards; name one with --shard, or use a new folder$"),
        ("wrong plan", r"-o .* its shards are of another plan; restore the plan"),
        ("plan of root", r"-o .*shard-00000 holds a replay by another plan, or by none; use a new folder$"),
        ("other number", r"-o .*shard-00001 holds a replay of another shard; use a new folder$"),
        ("settings", r"-o .*: its shards are replayed with other settings; give the same ones, or make a plan"),
        (
            "hardware",
            r"replayed on other hardware \(threads 64 there and \d+ here\), and only equal hardware gives equal",
        ),
        ("changed", r"offsets 0 to 69 of crowd/\d are not in the files that the plan was made for"),
        ("another topic", r"is of topic 'crowd' with the id other, but the plan in .* with the id crowd-id; name"),
        ("whole", r"-o .* belongs to a replay on topic 'crowd' of cluster crowd-cluster, so that it cannot hold"),
        ("recording", r"-o .*recording is a recording, so that it cannot hold a plan; use a new folder$"),
        ("live root", r"-o .* is sink.root, where the live worker writes; use a new folder$"),
        ("too many", r"--plan 1000: .* has \d+ cameras to divide; give at most \d+$"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence_and_nothing_is_overwritten(
    what: str, words: str, recording: Path, whole: Path, halves: Path, chosen: Settings, tmp_path: Path
) -> None:
    output, shard = Path(shutil.copytree(halves, tmp_path / "out")), 1
    other = Path(shutil.copytree(recording, tmp_path / "recording"))
    used = chosen
    match what:
        case "number":
            shard = 2
        case "no plan":
            (output / layout.PLAN).unlink()
            shard = 0
        case "wrong plan":
            (output / layout.PLAN).write_bytes((output / layout.PLAN).read_bytes() + b"\n")
        case "plan of root":
            (output / layout.PLAN).write_bytes((output / layout.PLAN).read_bytes() + b"\n")
            (output / layout.SHARDS).unlink()
            shard = 0
        case "other number":
            shutil.rmtree(output / "shard-00001")
            (output / "shard-00000").rename(output / "shard-00001")
        case "settings":
            used = chosen.model_copy(update={"batch": chosen.batch.model_copy(update={"images": 5})})
        case "hardware":
            document = json.loads((output / layout.SHARDS).read_text())
            document["hardware"]["threads"] = "64"
            (output / layout.SHARDS).write_text(json.dumps(document))
        case "changed":
            shutil.rmtree(other)
            crowd.record(other)
        case "another topic":
            shutil.rmtree(other)
            crowd.record(other, identity=TopicIdentity("crowd-cluster", "other", 2))
        case "whole":
            shutil.rmtree(output)
            shutil.copytree(whole, output)
    before = contents(output)
    requests: dict[str, Callable[[], object]] = {
        "whole": lambda: crowd.planned(other, output, 2),
        "too many": lambda: crowd.planned(other, tmp_path / "new", 1000),
        "recording": lambda: crowd.planned(other, other, 2),
        "live root": lambda: plan_replay(PlanRequest(str(other), f"{tmp_path}/new", 2, live_root=f"{tmp_path}/new/")),
        "no shard": lambda: crowd.replayed(used, other, output),
    }
    request = requests.get(what, lambda: crowd.replayed(used, other, output, shard))
    with pytest.raises(AdawiseError, match=words) as refused:
        request()
    assert isinstance(refused.value, SettingsError | SourceError)
    assert "\n" not in str(refused.value)
    after = contents(output)
    assert {name: after.get(name) for name in before} == before


def test_a_missing_and_a_double_shard_are_named_by_diff(
    whole: Path, halves: Path, tmp_path: Path, capsys: Captured
) -> None:
    output = Path(shutil.copytree(halves, tmp_path / "out"))
    first, second = map(str, roots_of(output, 2))
    assert main(["diff", str(whole), f"{first},{second}", "--whole"]) == 0
    assert main(["diff", str(whole), first, "--whole"]) == 2
    assert f"{first}: expected all 2 shards of a plan, but these are missing: 1; name" in capsys.readouterr().err
    twice = shutil.copytree(first, tmp_path / "twice")
    (tmp_path / "twice" / layout.SINK).write_text('{"layout": 1, "sink": "another run of it"}')
    assert main(["diff", str(whole), f"{first},{second},{twice}"]) == 2
    assert f"{first} and {twice} have the same rows: both are shard 0 of one plan." in capsys.readouterr().err
    shutil.rmtree(second)
    assert main(["diff", str(whole), str(output)]) == 2
    assert f"{output} holds the plan of 2 shards, and these have not begun: 1;" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["files", "verify", pytest.param("drift", marks=pytest.mark.check("replay"))])
def test_the_folder_of_a_plan_is_all_of_its_shards(command: str, halves: Path, capsys: Captured) -> None:
    printed = []
    for roots in ([halves], roots_of(halves, 2)):
        assert main([command, *map(str, roots), "--json"]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    for each in printed:
        if command == "drift":
            del each["command"], each["made_at"]
    assert printed[0] == printed[1]


@pytest.mark.parametrize("command", ["files", "verify"])
@pytest.mark.parametrize(("shards", "status"), [("[]", 1), ("[1]", 2)])
def test_a_plan_hides_no_output_of_the_folder_that_it_is_in(
    shards: str, status: int, command: str, halves: Path, tmp_path: Path, capsys: Captured
) -> None:
    root = Path(shutil.copytree(halves / "shard-00000", tmp_path / "root"))
    (root / layout.PLAN).write_text(f'{{"shards": {shards}}}')
    assert main([command, str(root)]) == status
    expected = {1: "_plan.json: expected a claim written by this program", 2: "holds an output of its own beside the"}
    assert expected[status] in capsys.readouterr().err


def test_a_shard_that_has_lost_its_id_is_verified(halves: Path, tmp_path: Path, capsys: Captured) -> None:
    output = Path(shutil.copytree(halves, tmp_path / "out"))
    (output / "shard-00001" / layout.SINK).unlink()
    assert main(["verify", str(output)]) == 3
    assert f"{layout.SINK}: expected this claim, but there is none" in capsys.readouterr().out


@pytest.mark.check("replay")
def test_a_row_that_a_shard_lacks_is_found(whole: Path, halves: Path, tmp_path: Path, capsys: Captured) -> None:
    output = Path(shutil.copytree(halves, tmp_path / "out"))
    max((output / "shard-00001" / "predictions").rglob("*.parquet")).unlink()
    assert main(["diff", str(whole), str(output)]) == 0, "what one shard has not read is no difference"
    assert main(["diff", str(whole), str(output), "--whole"]) == 3
    capsys.readouterr()


def test_a_shard_that_has_begun_and_has_no_chain_has_read_nothing(
    recording: Path, whole: Path, chosen: Settings, tmp_path: Path, capsys: Captured
) -> None:
    owners = crowd.planned(recording, output := tmp_path / "out", 5).plan.owners.values()
    for number in range(5):
        crowd.replayed(chosen, recording, output, number)
    shard = next(number for each in owners for number in each.readers if len(each.readers) > 1)
    for folder in (layout.PREDICTIONS, layout.TRACES, layout.ORIGINS):
        shutil.rmtree(Path(layout.shard_root(str(output), shard)) / folder)
    assert main(["diff", str(whole), str(output)]) == 0, "B has read none of the messages of both shards"
    assert main(["diff", str(whole), str(output), "--whole"]) == 3
    capsys.readouterr()


def test_the_command_prints_the_plan_and_takes_the_number_from_an_indexed_job(
    recording: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    assert main(["replay", str(recording), "--plan", "2", "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    for words in ("plan of 2 shards in ", "balance: the dearest shard costs 1.", "read amplification ", "bound: "):
        assert words in printed
    assert f"next: adawise replay {recording} -o {output} --shard I, for each I from 0 to 1" in printed
    assert "name no camera in key or headers" in printed
    job = ["replay", str(recording), "--shard", "job", "-o", str(output)]
    assert main(job) == 2
    assert "JOB_COMPLETION_INDEX has no whole number" in capsys.readouterr().err
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert ReplayCommand(output=str(output), recording=str(recording), shard="job").shard == 1  # type: ignore[arg-type]


def test_a_shard_reports_what_need_not_be_equal_to_the_whole() -> None:
    done = ReplayResult("rec", 8, 0, 1.0, stopped=False, ends_streams=True, output="out/shard-00000")
    assert list(differences(done)) == []
    passed, early, late = differences(replace(done, passed_by=1_200, closed_early=2, late=1))
    assert passed == "1,200 messages of other shards were read and not decoded"
    assert early.startswith("2 batches closed early for lack of memory")
    assert late.startswith("in this run, 1 camera sent a backlog more than search.forget_after_s late")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--plan", "2", "--shard", "0"), "make the plan first"),
        (("--shard", "0", "--streams", "north"), "the plan has it"),
        (("--plan", "2", "--speed", "1"), "run at full speed"),
        (("--plan", "2", "--batches-of", "live"), "it is for the shards"),
        (("--plan", "0"), "expected a whole number from 1 to 100000"),
        (("--shard", "-1"), "--shard"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: tuple[str, ...], words: str, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["replay", "recording", "-o", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_shards_of_one_process_may_keep_the_pair_and_report_how_much_is_done(
    recording: Path, pair_folder: PairFolder, model: ModelPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []
    parts: dict[int, list[float]] = {0: [], 1: [], 2: []}

    def load(*of: object) -> ModelPair:
        loads.append(of)
        return model

    monkeypatch.setattr("adawise.app.model.load_model", load)
    monkeypatch.chdir(tmp_path)
    runs.write_settings(tmp_path, "none:9092", crowd.TOPIC, pair_folder)
    crowd.planned(recording, output := tmp_path / "out", 3)
    for shard, reported in parts.items():
        replay_recording(recording, output, shard=shard, keep_pair=shard < 2, progress=reported.append)
    assert len(loads) == 2, "the second shard has the pair of the first, and the third loads its own"
    for reported in parts.values():
        assert len(reported) > 2
        assert reported == sorted(reported)
        assert reported[-1] == 1.0


@pytest.mark.check("kills")
def test_a_shard_that_is_killed_in_the_middle_goes_on_by_the_same_command(
    recording: Path, whole: Path, pair_folder: PairFolder, tmp_path: Path
) -> None:
    runs.write_settings(tmp_path, "none:9092", crowd.TOPIC, pair_folder)
    options = ("--search.price", "0.0001", "--batch.images", "4", "--batch.max-age-s", "1", "--limits.streams", "8")
    output = tmp_path / "out"
    crowd.planned(recording, output, 2)
    for shard in ("0", "1"):
        command = ("replay", str(recording), "-o", str(output), "--shard", shard, *options, "--sink.flush-rows", "8")
        for _ in range(2):  # killed twice
            with runs.process(tmp_path, *command, "--log.level", "debug", pipe_bytes=4096) as running:
                assert any(event["event"] == "segment_committed" for event in runs.events(running.stderr))
                os.kill(running.pid, signal.SIGKILL)
                assert running.wait(DEADLINE_S) == -signal.SIGKILL
        assert runs.adawise(tmp_path, *command) == 0
    assert runs.adawise(tmp_path, "replay", str(recording), "-o", "again", *options) == 0
    assert crowd.rows_of(roots_of(output, 2)) == crowd.rows_of([tmp_path / "again"])
    assert runs.adawise(tmp_path, "diff", "again", str(output), "--whole") == 0


@pytest.mark.check("kills")
def test_two_processes_of_one_shard_at_a_time_write_each_row_once(
    recording: Path, whole: Path, pair_folder: PairFolder, tmp_path: Path
) -> None:
    runs.write_settings(tmp_path, "none:9092", crowd.TOPIC, pair_folder)
    crowd.planned(recording, output := tmp_path / "out", 1)
    command = ("replay", str(recording), "-o", str(output), "--shard", "0", "--sink.flush-rows", "8")
    with runs.process(tmp_path, *command) as one, runs.process(tmp_path, *command) as other:
        for each in (one, other):
            each.communicate(timeout=DEADLINE_S)
            assert each.returncode == 0
    assert runs.adawise(tmp_path, "replay", str(recording), "-o", "again") == 0
    assert crowd.rows_of(roots_of(output, 1)) == crowd.rows_of([tmp_path / "again"])
