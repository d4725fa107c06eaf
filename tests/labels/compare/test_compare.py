"""Two runs are equal, or it is told where and by how much they part: on outputs that were made by hand."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from adawise.__main__ import main
from adawise.errors import Reason, SettingsError
from adawise.labels.compare.compare import compare
from adawise.labels.compare.result import Accuracies, RunDifference
from adawise.ports import SegmentDraft, ServedBy, TopicIdentity
from adawise.records import Frame, ImageBatch, TrialRecord
from adawise.sink import schemas
from adawise.store.store import LocalStore
from adawise_drift.show_diff import sentences, show
from tests.labels.test_given import collect
from tests.sink.building import CLASSES, IDENTITY, TP, Served, frame, open_chain, served

STREAMS = ("north", "south")
IMAGES = 4
Change = Callable[[int, Served], Served]


def batches(until: int, images: int = IMAGES) -> list[Served]:
    """Batches of the two streams in turn, up to the offset `until`; images have labels."""
    made = []
    for number, first in enumerate(range(0, until, images)):
        stream = STREAMS[number % 2]
        frames = [labelled(frame(offset, stream=stream)) for offset in range(first, min(first + images, until))]
        made.append(served(frames, number=number // 2))
    return made


def labelled(one: Frame) -> Frame:
    return replace(one, true_label="bus")


def write(
    root: Path,
    accepted: Sequence[Served],
    change: Change = lambda _, batch: batch,
    *,
    origin: int = 0,
    pending: tuple[int, ...] = (),
    rejected: Sequence[Frame] = (),
    until: int | None = None,
    each: int = 3,
    model: str = "model",
    by: ServedBy | None = None,
    identity: TopicIdentity = IDENTITY,
) -> Path:
    """A run of these batches, `each` in a segment; a root that has some is gone on from."""
    chain = open_chain(LocalStore(root), model=model, by=by)
    chain.check()
    chain.recover(TP, identity, origin)
    changed = [change(number, batch) for number, batch in enumerate(accepted)]
    for at in range(0, len(changed), each):
        part = changed[at : at + each]
        is_last = at + each >= len(changed)
        end = part[-1][2].last_offset + 1
        chain.commit(
            SegmentDraft(
                TP,
                (until or end) if is_last else end,
                pending if is_last else (),
                {"north": b"state"},
                part,
                rejected if is_last else (),
            )
        )
    return root


def served_otherwise(number: int, **changes: object) -> Change:
    return lambda n, batch: (batch[0], batch[1], replace(batch[2], **changes)) if n == number else batch  # type: ignore[arg-type]


def relabelled(number: int, image: int) -> Change:
    def change(n: int, batch: Served) -> Served:
        index = batch[1].top_index.copy()
        if n == number:
            index[image] = (index[image] + 1) % 3
        return batch[0], replace(batch[1], top_index=index), batch[2]

    return change


def text_of(found: RunDifference) -> str:
    out = io.StringIO()
    show(found, Console(file=out, width=120))
    return out.getvalue()


def test_runs_that_cut_their_segments_elsewhere_are_equal(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(40), each=7))
    assert not found.differs
    assert found.overlaps_wholly
    assert (found.totals.images, found.totals.batches, found.totals.kappa) == (40, 10, 1.0)
    assert "are equal: 40 rows of 2 streams in 10 batches" in next(sentences(found))


def test_the_last_bit_of_one_probability_is_a_difference(tmp_path: Path) -> None:
    def change(n: int, batch: Served) -> Served:
        values = batch[1].top_probability.copy()
        if n == 5:
            values[2, 0] = np.nextafter(values[2, 0], np.float32(1))
        return batch[0], replace(batch[1], top_probability=values), batch[2]

    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(40), change))
    assert (found.differs, found.totals.differing, found.totals.relabelled) == (True, 1, 0)
    south, north = found.streams
    assert (south.stream_id, south.differs, north.differs) == ("south", True, False)
    assert south.first_row is not None
    assert south.first_row.row_id == f"frames/3/{5 * IMAGES + 2}/0"
    assert south.first_row.what == ("confidence", "top_probabilities")
    assert south.first_batch is None
    assert "confidence" in text_of(found)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"alpha": 0.4}, ("alpha",)),
        ({"trials": (), "objective": 1.5}, ("trials", "objective")),
        ({"reset": "silent"}, ("reset",)),
        ({"rejected": 7}, ("rejected",)),
        ({"posterior_sd": 0.2}, ("posterior_sd",)),
        ({"objective": float("nan")}, ("objective",)),
        (
            {"alpha": 0.4, "statistics": {column.name: -number / 7 for number, column in enumerate(schemas.PIXELS)}},
            (*[column.name for column in schemas.PIXELS][1:], "alpha"),
        ),
    ],
)
def test_the_first_batch_that_differs_is_named_with_what_differs_first(
    tmp_path: Path, changes: dict[str, object], what: tuple[str, ...]
) -> None:
    def change(n: int, batch: Served) -> Served:
        return served_otherwise(n, **changes)(n, batch) if n in (4, 6) else batch

    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(40), change))
    north = found.streams[0]
    assert (north.stream_id, north.batches_differing, found.totals.batches_differing) == ("north", 2, 2)
    assert north.first_batch is not None
    assert (north.first_batch.first_offset, north.first_batch.what) == (4 * IMAGES, what)
    assert f"frames/3/{4 * IMAGES}" in text_of(found)


def test_a_run_of_an_earlier_version_which_wrote_no_statistics_is_equal_to_its_replay(tmp_path: Path) -> None:
    def without(_: int, batch: Served) -> Served:
        return batch[0], batch[1], replace(batch[2], statistics={})

    found = compare(write(tmp_path / "a", batches(40), without), write(tmp_path / "b", batches(40)))
    assert not found.differs


def test_another_served_class_is_a_difference_of_the_batch_too(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(40), relabelled(4, 0)))
    assert (found.totals.batches_differing, found.totals.relabelled) == (1, 1)
    (first,) = [stream.first_batch for stream in found.streams if stream.first_batch is not None]
    assert first.what == ("class_counts",)


def test_another_class_that_a_shortlist_lacks_is_a_difference_of_the_batch(tmp_path: Path) -> None:
    def change(n: int, batch: Served) -> Served:
        return batch[0], batch[1], replace(batch[2], off_list={n % 2: 1})

    one, other = (write(tmp_path / name, batches(40), change) for name in "ab")
    assert not compare(one, other).differs
    found = compare(one, write(tmp_path / "c", batches(40), lambda n, batch: change(n + (n == 4), batch)))
    (first,) = [stream.first_batch for stream in found.streams if stream.first_batch is not None]
    assert (found.totals.batches_differing, first.what) == (1, ("off_list",))


def test_a_run_whose_traces_an_earlier_version_wrote_is_equal_to_its_replay(tmp_path: Path) -> None:
    one, other = (write(tmp_path / name, batches(40)) for name in "ab")
    for path in (tmp_path / "a" / "traces").rglob("*.parquet"):
        traces = pq.read_table(path, partitioning=None)
        pq.write_table(traces.drop_columns([name for name in traces.column_names if name in schemas.LATER]), path)
    assert not compare(one, other).differs


def test_every_model_that_served_is_named_not_the_last_alone(tmp_path: Path) -> None:
    made = batches(40)
    write(tmp_path / "a", made[:6], model="earlier")
    write(tmp_path / "a", made[6:], model="later")
    found = compare(tmp_path / "a", write(tmp_path / "b", made, model="later"))
    assert (found.a.models, found.b.models) == (("earlier", "later"), ("later",))


def test_alpha_paths_are_as_far_apart_as_their_images_say(tmp_path: Path) -> None:
    change = served_otherwise(2, alpha=0.85)
    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(40), change)).totals
    assert found.alpha_max == pytest.approx(0.5)
    assert found.alpha_mean == pytest.approx(0.5 * IMAGES / 40)
    assert (found.batches_apart, found.images_apart) == (1, IMAGES)


def test_what_only_durations_names_of_segments_or_numbers_of_batches_tell_apart_is_equal(tmp_path: Path) -> None:
    def change(n: int, batch: Served) -> Served:
        trace = replace(batch[2], milliseconds={"forward": 1.0 * n}, batch_number=batch[2].batch_number + 5)
        return batch[0], batch[1], trace

    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(40), change))
    assert not found.differs
    assert found.totals.renumbered == 40


def test_a_run_that_cut_its_batches_elsewhere_differs_even_if_its_rows_do_not(tmp_path: Path) -> None:
    whole = batches(8)
    halves = [
        served([labelled(frame(o)) for o in range(4)]),
        served([labelled(frame(o)) for o in range(4, 8)], number=1),
    ]
    gaps = [served([labelled(frame(o)) for o in range(8)])]
    found = compare(write(tmp_path / "a", halves), write(tmp_path / "b", gaps))
    assert found.differs
    first = found.streams[0].first_batch
    assert first is not None
    assert "images" in first.what
    assert whole


def test_a_batch_that_the_end_of_a_run_cut_short_is_told_apart(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(38)))
    assert [s.stream_id for s in found.streams if s.differs] == ["south"]
    first = found.streams[0].first_batch
    assert first is not None
    assert (first.what[:2], first.last_of_its_run) == (("last_offset", "images"), True)
    assert "only in the last batches, which the end of one run cut short" in "\n".join(sentences(found))


def test_a_run_that_read_less_is_equal_as_far_as_it_read(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(24)))
    assert not found.differs
    assert not found.overlaps_wholly
    assert (found.totals.images, found.totals.alone, found.totals.beyond) == (24, (0, 0), (16, 0))
    assert "16 more rows are only in A: B has not read these messages" in "\n".join(sentences(found))


def test_what_is_still_open_in_one_run_is_no_loss(tmp_path: Path) -> None:
    b = write(tmp_path / "b", batches(40)[:-2], pending=tuple(range(32, 40)), until=40)
    found = compare(write(tmp_path / "a", batches(40)), b)
    assert (found.differs, found.totals.beyond) == (False, (8, 0))


def test_rows_that_one_run_has_lost_are_a_difference(tmp_path: Path) -> None:
    lossy = write(tmp_path / "b", [batch for batch in batches(40) if batch[2].first_offset != 12])
    found = compare(write(tmp_path / "a", batches(40)), lossy)
    assert found.differs
    assert found.totals.alone == (IMAGES, 0)
    south = found.streams[0]
    assert south.first_row is not None
    assert (south.first_row.row_id, south.first_row.only_in) == ("frames/3/12/0", "a")
    assert south.first_batch is not None
    assert south.first_batch.b is None
    assert "4 rows are only in A, although B has read these messages" in text_of(found)


def test_rejected_rows_are_compared_too_also_of_nobody(tmp_path: Path) -> None:
    def run(name: str, reason: Reason) -> Path:
        bad = [frame(40, stream=None, reason=reason), frame(41, stream="north", reason=Reason.EMPTY)]
        return write(tmp_path / name, batches(40), rejected=bad, until=42)

    assert not compare(run("a", Reason.BAD_ARROW), run("b", Reason.BAD_ARROW)).differs
    found = compare(tmp_path / "a", run("c", Reason.TOO_LARGE))
    assert [(s.stream_id, s.differing) for s in found.streams if s.differs] == [(None, 1)]


def test_a_run_that_went_on_under_another_root_is_compared_as_one(tmp_path: Path) -> None:
    served = batches(48)
    whole = write(tmp_path / "whole", served)
    begun = write(tmp_path / "begun", served[:6])
    later = write(tmp_path / "later", served[8:], origin=served[8][2].first_offset)
    changed = write(tmp_path / "changed", served[6:], relabelled(0, 0), origin=served[6][2].first_offset)
    found = compare(whole, [str(begun), str(later)])
    assert not found.differs
    assert (found.totals.images, found.totals.beyond) == (40, (8, 0))  # what nobody read between the two is no loss
    assert found.b.root == f"{begun} and {later}"
    assert found.b.partitions == 1
    found = compare(whole, [str(begun), str(changed)])
    assert (found.totals.images, found.totals.relabelled, found.totals.beyond) == (48, 1, (0, 0))


def test_parts_of_a_run_that_have_the_same_rows_or_another_topic_are_none(tmp_path: Path) -> None:
    served = batches(48)
    whole, part = write(tmp_path / "whole", served), write(tmp_path / "part", served[:6])
    with pytest.raises(SettingsError, match="have the same rows: both have served offsets 0 to "):
        compare(whole, [str(whole), str(part)])
    moved = write(tmp_path / "moved", served[:6], identity=replace(IDENTITY, topic_id="another"))
    with pytest.raises(SettingsError, match="is not the same topic: expected outputs of one topic"):
        compare(whole, [str(part), str(moved)])


def test_runs_without_a_message_in_common_are_no_pair(tmp_path: Path) -> None:
    late = [served([frame(offset) for offset in range(100, 104)])]
    b = write(tmp_path / "b", late, origin=100)
    with pytest.raises(SettingsError, match="have no image in common"):
        compare(write(tmp_path / "a", batches(40)), b)
    with pytest.raises(SettingsError, match="expected the output of a worker"):
        compare(tmp_path / "a", tmp_path / "nowhere")


def test_agreement_kappa_and_accuracy_are_counted(tmp_path: Path) -> None:
    # labels of a batch: car bus empty car; true is always bus; image 0 of batch 0 becomes bus
    found = compare(write(tmp_path / "a", batches(8)), write(tmp_path / "b", batches(8), relabelled(0, 0)))
    totals = found.totals
    assert (totals.relabelled, totals.labelled) == (1, 8)
    assert totals.accuracy == (2 / 8, 3 / 8)
    by_chance = (4 * 3 + 2 * 3 + 2 * 2) / 64
    assert totals.kappa == pytest.approx((7 / 8 - by_chance) / (1 - by_chance))
    counts = {one.name: (one.a, one.b, one.both, one.agreement) for one in found.classes}
    assert counts == {"car": (4, 3, 3, 0.75), "bus": (2, 3, 2, 2 / 3), "empty street": (2, 2, 2, 1.0)}
    assert "labels by class" in text_of(found)
    assert found.as_json()["classes"][0]["agreement"] == pytest.approx(2 / 3)


def test_streams_that_are_not_asked_for_do_not_count(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(40), relabelled(1, 0))  # of the south
    assert compare(a, b).differs
    assert not compare(a, b, ["north"]).differs
    assert [s.stream_id for s in compare(a, b, ["north"]).streams] == ["north"]


# -- settings


def by(config: str, place: str = "here", **settings: object) -> ServedBy:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return ServedBy(CLASSES, "model", config, "", named, {"model.theta_1": f"{place}/theta_1"})


def test_the_settings_that_differ_are_named_first_with_both_values(tmp_path: Path) -> None:
    a = write(tmp_path / "a", batches(40), by=by("one", search__price=0.03, search__budget=5, decode__reduced=False))
    b = write(
        tmp_path / "b",
        batches(40),
        relabelled(0, 0),
        by=by("two", search__price=0.05, search__budget=5, decode__reduced=True),
    )
    found = compare(a, b)
    assert [(each.name, each.a, each.b) for each in found.settings] == [
        ("search.price", (0.03,), (0.05,)),
        ("decode.reduced", (False,), (True,)),
    ]
    assert (found.a.settings, found.a.unnoted) == (("one",), ())
    lines = [line.split() for line in text_of(found).splitlines()]
    models = next(number for number, line in enumerate(lines) if line[:1] == ["models"])
    assert lines.index(["search.price", "0.03", "0.05"]) < models
    assert ["decode.reduced", "false", "true"] in lines
    assert next(iter(found.as_json()["settings"])) == {"name": "search.price", "a": (0.03,), "b": (0.05,)}


def test_all_settings_that_served_a_run_are_told_in_their_order(tmp_path: Path) -> None:
    made = batches(40)
    for config, price, part in (("late", 0.09, made[:4]), ("early", 0.01, made[4:])):
        write(tmp_path / "a", part, by=by(config, search__price=price))
    b = write(tmp_path / "b", made, by=by("early", search__price=0.01))
    (differs,) = compare(tmp_path / "a", b).settings
    assert (differs.a, differs.b) == ((0.09, 0.01), (0.01,))
    assert "0.09, then 0.01" in text_of(compare(tmp_path / "a", b))


def test_checkpoints_differ_by_what_they_hold_and_not_by_where_they_lie(tmp_path: Path) -> None:
    a = write(tmp_path / "a", batches(40), by=by("one", model__theta_1="aaaa"))
    moved = write(tmp_path / "b", batches(40), by=by("one", "there", model__theta_1="aaaa"))
    other = write(tmp_path / "c", batches(40), by=by("one", model__theta_1="cccc"))
    assert compare(a, moved).settings == ()
    (theta_1,) = compare(a, other).settings
    assert (theta_1.a, theta_1.b) == (("aaaa (here/theta_1)",), ("cccc (here/theta_1)",))


def test_a_run_whose_results_had_the_label_of_the_scene_is_named(tmp_path: Path) -> None:
    beside = write(tmp_path / "a", batches(40), by=by("one", scene__prior="beside"))
    served = write(tmp_path / "b", batches(40), by=by("two", scene__prior="served"))
    found = compare(beside, served)
    assert (found.a.label_columns, found.b.label_columns) == (("label",), ("scene_label",))
    text = " ".join(text_of(found).split())
    assert "results of B had scene_label as label (scene.prior = served); labels and accuracies here are of" in text
    assert "scene.prior" in text.split("results of B")[0], "it is among the settings that differ"
    assert "had scene_label" not in text_of(compare(beside, beside))


def test_a_root_of_an_earlier_version_is_said_not_to_note_its_settings(tmp_path: Path) -> None:
    old = write(tmp_path / "a", batches(40), by=ServedBy(CLASSES, "model", "older"))
    new = write(tmp_path / "b", batches(40), relabelled(0, 0), by=by("newer", search__price=0.05))
    found = compare(old, new)
    assert (found.settings, found.a.unnoted, found.b.unnoted) == ((), ("older",), ())
    result = "which settings differ is not known: an earlier version wrote A (older), and recorded none"
    assert result in text_of(found)
    assert result not in text_of(
        compare(old, write(tmp_path / "c", batches(40), by=ServedBy(CLASSES, "model", "older")))
    )


# -- values of what differs


def trials(*pairs: tuple[float, float]) -> tuple[TrialRecord, ...]:
    return tuple(TrialRecord(alpha, 4, objective) for alpha, objective in pairs)


def test_trials_are_shown_as_alphas_with_their_values(tmp_path: Path) -> None:
    a = write(tmp_path / "a", batches(40), served_otherwise(4, trials=trials((0.5, 0.7512345), (0.25, 1.0))))
    b = write(tmp_path / "b", batches(40), served_otherwise(4, trials=trials((0.5, 0.7512355), (0.25, 1.0))))
    lines = text_of(compare(a, b)).splitlines()
    (first,) = [n for n, line in enumerate(lines) if " trials " in line]
    assert "0.5 0.7512345" in lines[first]  # as many digits as tell them apart
    assert "0.5 0.7512355" in lines[first]
    assert lines[first + 1].count("0.25 1") == 2


def test_of_many_trials_the_first_are_shown(tmp_path: Path) -> None:
    many = trials(*[(n / 20, n / 7) for n in range(21)])
    b = write(tmp_path / "b", batches(40), served_otherwise(4, trials=many))
    shown = text_of(compare(write(tmp_path / "a", batches(40)), b))
    assert "0.25 0.714" in shown
    assert "and 15 more" in shown
    assert "{" not in shown


def test_counts_of_classes_are_shown_by_name(tmp_path: Path) -> None:
    shown = text_of(compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(40), relabelled(4, 0))))
    assert "car 2" in shown
    assert "{" not in shown


Captured = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("logs_of_this_process")


def unlabelled(until: int) -> list[Served]:
    """The same batches without the producer's labels, each image a second after the one before."""

    def without(batch: ImageBatch) -> ImageBatch:
        def one(each: Frame) -> Frame:
            return replace(each, true_label=None, captured_at_us=each.row_id.offset * 1_000_000)

        return replace(batch, frames=tuple(map(one, batch.frames)))

    return [(without(batch), predictions, trace) for batch, predictions, trace in batches(until)]


def served_as(*classes: int) -> Change:
    """The served classes of the images of each batch."""

    def change(_: int, batch: Served) -> Served:
        index = batch[1].top_index.copy()
        index[:, 0] = [classes[n % len(classes)] for n in range(len(index))]
        return batch[0], replace(batch[1], top_index=index), batch[2]

    return change


def of(found: RunDifference) -> Accuracies:
    assert found.by_labels.whole is not None
    return found.by_labels.whole


def test_the_difference_of_accuracies_has_an_interval_over_batches_and_a_verdict(tmp_path: Path) -> None:
    a = write(tmp_path / "a", batches(160), served_as(0, 1, 2, 0))  # the truth is bus, 1: a quarter is right
    b = write(tmp_path / "b", batches(160), served_as(1, 1, 2, 0))
    found = compare(a, b)
    whole = of(found)
    assert (whole.images, whole.batches, whole.right) == (160, 40, (40, 80))
    assert [side.value for side in whole.accuracy] == [0.25, 0.5]
    assert (whole.difference.value, whole.difference.low, whole.difference.high) == (0.25, 0.25, 0.25)
    assert {name: (each.images, each.right) for name, each in found.by_labels.streams.items()} == {
        "north": (80, (20, 40)),
        "south": (80, (20, 40)),
    }
    assert [(s.labelled, s.right) for s in found.streams] == [(80, (20, 40))] * 2
    shown = text_of(found)
    assert "B is better: of 160 labelled images in 40 batches A is right on .250, B on .500, B minus A +.250" in shown
    assert "labels from the producer" in shown
    assert "accuracy by camera" in shown
    assert "A is better" in text_of(compare(b, a))


def test_a_difference_that_may_be_chance_is_called_so(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a", batches(160)), write(tmp_path / "b", batches(160), relabelled(3, 0)))
    by = of(found).difference
    assert by.low <= 0 < by.value == 1 / 160 < by.high
    assert math.copysign(1, by.low) == 1  # no -0
    assert "by the labels neither is better: " in text_of(found)
    assert found.by_labels.streams.keys() == {"north", "south"}


def test_few_labels_judge_no_camera_alone_and_one_batch_has_no_interval(tmp_path: Path) -> None:
    one = compare(write(tmp_path / "a", batches(4)), write(tmp_path / "b", batches(4), relabelled(0, 0)))
    assert not of(one).difference.is_known
    assert "interval" not in text_of(one)
    assert one.by_labels.streams == {}


def test_equal_runs_are_equally_right(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(40)))
    shown = text_of(found)
    assert "of 40 labelled images in 10 batches A is right on .250, and so is B; labels from the producer" in shown
    assert "accuracy by camera" not in shown


@pytest.mark.parametrize("by_time", [False, True])
def test_a_file_of_labels_alone_counts_and_is_matched_as_by_drift(
    tmp_path: Path, capsys: Captured, by_time: bool
) -> None:
    a, b = write(tmp_path / "a", unlabelled(40)), write(tmp_path / "b", unlabelled(40), served_as(2))
    rows = [(4 * n, CLASSES[2]) for n in range(10)] + [(4 * n + 1, CLASSES[1]) for n in range(5)]
    times = [f"{'north' if at // 4 % 2 == 0 else 'south'},1970-01-01T00:00:{at:02}.5Z" for at, _ in rows]
    named = [times[n] if by_time else f"frames/3/{at}/0" for n, (at, _) in enumerate(rows)]
    head = "stream_id,captured_at" if by_time else "row_id"
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join([f"{head},label", *(f"{n},{name}" for n, (_, name) in zip(named, rows, strict=True))]))
    arguments = ["--labels", str(labels), *(["--label-within", "0.5"] if by_time else [])]
    assert main(["diff", str(a), str(b), "--json", *arguments]) == 3
    found = json.loads(capsys.readouterr().out)
    whole = found["by_labels"]["whole"]
    # a serves car bus empty car: of image 0 car, of image 1 bus; b always empty
    assert (whole["images"], whole["right"], found["totals"]["labelled"]) == (15, [5, 10], 15)
    assert found["by_labels"]["source"] == str(labels)
    assert main(["drift", str(a), "--against", str(b), "--json", *arguments]) == 0
    helped = json.loads(capsys.readouterr().out)["helped"]
    (other,) = [arm for arm in helped["arms"] if arm["source"] == str(b)]
    assert other["accuracy"] == whole["accuracy"][1]
    assert other["gain"]["low"] == -whole["difference"]["high"]


def test_labels_under_either_root_are_found_and_those_under_both_count_once(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", unlabelled(40)), write(tmp_path / "b", unlabelled(40), served_as(2))
    rows = [{"row_id": f"frames/3/{offset}/0", "label": CLASSES[2]} for offset in range(0, 40, IMAGES)]
    for roots in ([b], [a, b]):
        collect(roots[0], *rows)
        found = compare(a, b)
        assert (of(found).images, of(found).right, found.by_labels.notes) == (10, (0, 10), ())
        assert found.by_labels.source == " and ".join(f"{root}/labels" for root in roots)


def test_images_that_one_run_did_not_serve_are_not_counted(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a", batches(40)), write(tmp_path / "b", batches(24), relabelled(0, 0)))
    assert of(found).images == 24


def test_without_labels_it_is_said_how_to_give_them(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", unlabelled(40)), write(tmp_path / "b", unlabelled(40), served_as(2))
    found = compare(a, b)
    assert (found.by_labels.whole, found.totals.labelled, found.totals.accuracy) == (None, 0, (None, None))
    assert "there are no labels of these images: give --labels FILE" in text_of(found)
    assert "no labels" not in text_of(compare(a, write(tmp_path / "c", unlabelled(40))))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none.csv", None, "expected a file of labels, but there is none; correct --labels"),
        ("labels.txt", "label\n", "expected a file whose name ends in one of .csv,"),
        (
            "labels.csv",
            "truth,row\nbus,1\n",
            "expected the columns label and row_id, or label, stream_id and captured_at",
        ),
        (
            "labels.csv",
            "label,row_id\nbus,frames-3\n",
            "row 1: row_id: expected topic/partition/offset/index, got 'frames-3'",
        ),
        ("labels.parquet", "not a table", "expected a parquet file of labels, but:"),
    ],
)
def test_a_file_of_labels_that_is_none_is_named_with_the_remedy(
    tmp_path: Path, capsys: Captured, name: str, text: str | None, expected: str
) -> None:
    a, b = write(tmp_path / "a", unlabelled(8)), write(tmp_path / "b", unlabelled(8))
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["diff", str(a), str(b), "--labels", str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert "Traceback" not in err
