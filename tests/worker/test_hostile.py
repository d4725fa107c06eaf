"""Hostile messages by the thousand among good ones: every good one is classified, every bad one has its reason."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adawise.errors import Reason
from tests.brokers import Broker, MakeTopic, fresh_name
from tests.hostile import Limits, hostile
from tests.models import PairFolder
from tests.worker.cameras import Output, Shot, Topic, everything, settings_for, single
from tests.worker.process import Plan, WorkerProcess, wait_until
from tools.fuzz.extremes import FAMILIES, png

FOR_EACH_GOOD = 20
LIMITS = Limits()


def among_each_other(count: int) -> Iterator[Shot]:
    rng = random.Random(4)
    for number, bad in enumerate(hostile(5, count, LIMITS)):
        yield Shot(number % 2, bad.key, bad.value, None, bad.headers, 1, str(bad.reason), dead=bad.dead)
        if number % FOR_EACH_GOOD == 0:
            yield single(rng, rng.randrange(5), 2)


def dead_letters(broker: Broker, name: str) -> list[tuple[tuple[int, int], dict[str, str], Any]]:
    """Everything in a dead-letter topic: where it came from, our headers, the record."""
    found = []
    for record in everything(broker, name):
        fields = {n: v.decode() for n, v in record.headers if n.startswith(("__connect.errors.", "dlq."))}
        place = int(fields["__connect.errors.partition"]), int(fields["__connect.errors.offset"])
        found.append((place, fields, record))
    return found


@pytest.mark.parametrize(
    "count",
    [600, pytest.param(2_000, marks=pytest.mark.check("kills")), pytest.param(10_000, marks=pytest.mark.soak)],
)
def test_hostile_messages_by_the_thousand_cost_no_good_one(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path, count: int
) -> None:
    good = count // FOR_EACH_GOOD
    mixed = Topic(broker, topic(2, dead_letters=True))
    mixed.produce(among_each_other(count))
    assert len(mixed.sent) == count + good
    settings = settings_for(
        mixed,
        pair,
        root,
        fresh_name("hostile"),
        kafka={"max_poll_records": 500},
        sink={"flush_rows": 1_000},
        decode={
            "max_message_bytes": LIMITS.max_message_bytes,
            "max_rows": LIMITS.max_rows,
            "max_pixels": LIMITS.max_pixels,
        },
    )
    output = Output(root)
    with WorkerProcess(Plan(settings, root.with_suffix(".log"))) as worker:
        before = worker.rss_bytes
        wait_until(lambda: output.rows >= mixed.rows, worker)
        peak = worker.stop().peak_bytes
    assert output.faults(mixed) == []

    shown = output.predictions["reason"].to_pylist()
    reasons = {(row["partition"], row["offset"]): row["reason"] for row in output.predictions.to_pylist()}
    assert reasons == {place: shot.reason for place, shot in mixed.sent.items()}
    assert set(reasons.values()) == {*map(str, set(Reason) - {Reason.KILLS_DECODER, Reason.BAD_TIMESTAMP}), None}
    status = Counter(output.predictions["status"].to_pylist())
    assert status["accepted"] == good
    assert peak < 1.5 * 2**30, f"{before} bytes at first, {peak} at most"
    document = [json.loads(line) for line in root.with_suffix(".log").read_text().splitlines() if "_rejected" in line]
    in_full = sum(line["event"] == "frame_rejected" for line in document)
    assert in_full + sum(line.get("more", 0) for line in document) == sum(reason is not None for reason in shown)
    assert len(document) < count / 10, f"{len(document)} lines of log"
    print(f"resident: {before / 2**20:.0f} MiB at first, {peak / 2**20:.0f} MiB at most")

    dead = {place: shot for place, shot in mixed.sent.items() if shot.dead}
    sent = dead_letters(broker, f"{mixed.name}.dlq")
    assert sorted(place for place, _, _ in sent) == sorted(dead)
    for place, expected, record in sent:
        shot = dead[place]
        assert expected["__connect.errors.topic"] == mixed.name
        assert expected["dlq.reason"] == shot.reason
        assert expected["__connect.errors.exception.message"].startswith(f"{shot.reason}: ")
        assert (record.key, record.value) == (shot.key, shot.value)


def test_images_that_ended_or_starved_a_worker_are_dead_letters_between_the_good_frames_of_another_camera(
    broker: Broker, topic: MakeTopic, pair: PairFolder, root: Path
) -> None:
    """By default: a row too long for Pillow, a column that took gigabytes, half a second of decoding in 34 bytes."""
    harm = (
        (png(33_600_000, 1, depth=16, colours=6, data=bytes(5_000)), Reason.TOO_MANY_PIXELS),
        (png(1, 33_600_000, depth=8, colours=0), Reason.TOO_MANY_PIXELS),
        (FAMILIES["WebP lossless"](5_800, 5_800), Reason.TOO_FEW_BYTES),
    )
    rng = random.Random(6)

    def shots() -> Iterator[Shot]:
        for number in range(48):
            yield single(rng, 1, 1)
            value, reason = harm[number % 3]
            yield Shot(0, b"camera-0", value, None, (), 1, str(reason), dead=True)

    mixed = Topic(broker, topic(1, dead_letters=True))
    mixed.produce(shots())
    output = Output(root)
    with WorkerProcess(Plan(settings_for(mixed, pair, root, fresh_name("poison")), root.with_suffix(".log"))) as worker:
        wait_until(lambda: output.rows >= mixed.rows, worker)
        peak = worker.stop().peak_bytes
    assert output.faults(mixed) == []
    rows = {(row["partition"], row["offset"]): row for row in output.predictions.to_pylist()}
    assert {place: row["reason"] for place, row in rows.items()} == {p: shot.reason for p, shot in mixed.sent.items()}
    assert Counter((row["stream_id"], row["status"]) for row in rows.values()) == {
        ("camera-1", "accepted"): 48,
        ("camera-0", "rejected"): 48,
    }
    sent = dead_letters(broker, f"{mixed.name}.dlq")
    assert sorted(place for place, _, _ in sent) == sorted(place for place, shot in mixed.sent.items() if shot.dead)
    assert {fields["dlq.reason"] for _, fields, _ in sent} == {"too_many_pixels", "too_few_bytes"}
    assert peak < 1.5 * 2**30, peak
