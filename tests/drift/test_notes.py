"""What a report says of messages without rows, by the footers of segments, also of damaged ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from adawise.errors import ChainError
from adawise.sink.served_by import ServedSettings
from adawise_drift.collect import Tables
from adawise_drift.notes import labels_of_results, never_served
from tests.drift.answers import World, write

FACTS = {"format": 2, "topic": "frames", "partition": 0, "gaps": [[10, 12, "compacted"]]}
NOTE = "2 messages of frames/0 (offsets 10 to 11) were never served, between "


def of_footer(root: Path, footer: Mapping[bytes, bytes]) -> list[str]:
    """The notes on a root of one file with this footer."""
    write(root, World(batches=2).table())
    (file,) = root.glob("predictions/**/*.parquet")
    rows = pq.read_table(file)
    with pq.ParquetWriter(file, rows.schema) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata(footer)
    return list(never_served(Tables([str(root)]), [str(root)], None, None))


def of_facts(root: Path, **changes: object) -> list[str]:
    return of_footer(root, {b"adawise.segment": json.dumps(FACTS | changes).encode()})


@pytest.mark.parametrize(
    ("priors", "expected"),
    [
        (["served"], "results and alerts had scene_label as label (scene.prior = served)"),
        (["beside", "served"], "results and alerts had scene_label as label for a part of it"),
        (["beside"], None),
        ([None], None),
    ],
)
def test_it_is_noted_that_results_had_the_label_of_the_scene(priors: list[str | None], expected: str | None) -> None:
    served = [
        ServedSettings("model", str(prior), "2026-05-01", {} if prior is None else {"scene.prior": prior}, {})
        for prior in priors
    ]
    assert [note[: len(expected or "")] for note in labels_of_results(served)] == (
        [] if expected is None else [expected]
    )


@pytest.mark.parametrize("key", ["segment", "compacted"])
def test_a_gap_is_named_with_its_offsets_and_its_reason(tmp_path: Path, key: str) -> None:
    others = {b"adawise.states": bytes(range(256)), b"\xff": b"\xff"}
    (note,) = of_footer(tmp_path, {f"adawise.{key}".encode(): json.dumps(FACTS).encode(), **others})
    assert note.startswith(NOTE)
    assert note.endswith(": compacted")


@pytest.mark.parametrize("changes", [{"gaps": []}, {"states_of": "another root"}])
def test_a_file_without_gaps_of_its_own_has_no_note(tmp_path: Path, changes: Mapping[str, object]) -> None:
    assert of_facts(tmp_path, **changes) == []


@pytest.mark.parametrize(
    "footer",
    [b"{", b"[1]", b'\xff\xfe{"gaps": [[1, 2]]}', json.dumps(FACTS).encode().replace(b"frames", b"fr\xc3mes")],
)
def test_a_damaged_footer_is_named_with_its_file(tmp_path: Path, footer: bytes) -> None:
    with pytest.raises(ChainError, match=r"0{20}\.parquet: its footer is damaged; `adawise verify` says"):
        of_footer(tmp_path, {b"adawise.segment": footer})


@pytest.mark.parametrize("gap", [[-3, 1], [1.0, 2], [1, 1 << 63], [1, 2, "unheard of"], [40, 31]])
def test_a_gap_that_no_version_wrote_is_damage(tmp_path: Path, gap: list[object]) -> None:
    with pytest.raises(ChainError, match="its footer is damaged"):
        of_facts(tmp_path, gaps=[gap])


@pytest.mark.parametrize("gap", [[1, 2, "unheard of"], [1, 2, "compacted", {}], {"first": 1, "until": 2}])
def test_a_footer_of_a_newer_format_asks_for_an_upgrade(tmp_path: Path, gap: object) -> None:
    with pytest.raises(ChainError, match=r"0{20}\.parquet: expected format 3 or older, but it is 4; upgrade this"):
        of_facts(tmp_path, format=4, gaps=[gap])
