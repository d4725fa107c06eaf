from __future__ import annotations

from collections.abc import Iterable

import torch

from adawise.errors import Lost
from adawise.records import DecodedMessage, Frame, ImageBatch, Message, RowId
from adawise.worker.batching import BatchPolicy, Gatherer
from tests.worker.cameras import IMAGES, Shot
from tools.chaos.feed import MAX_AGE_S, Film

CAMERAS, PARTITIONS = 5, 2


def shots(takes: int) -> list[Shot]:
    film = Film(1, cameras=CAMERAS, partitions=PARTITIONS)
    return [shot for _ in range(takes) for shot in film.take()] + list(film.last_take())


def gathered(film: Iterable[Shot]) -> tuple[list[ImageBatch], Gatherer]:
    """The batches of all single images, and what is left open."""
    gatherer, batches = Gatherer(BatchPolicy(IMAGES, MAX_AGE_S)), []
    for offset, shot in enumerate(film):
        if shot.reason is None and not shot.packed:
            assert shot.key is not None
            assert shot.timestamp_ms is not None
            row_id = RowId("film", shot.partition, offset, 0)
            frame = Frame(row_id, shot.timestamp_ms, shot.key.decode(), image=torch.zeros(3, 1, 1, dtype=torch.uint8))
            message = Message("film", shot.partition, offset, shot.key, shot.value)
            batches += gatherer.add(DecodedMessage(message, (frame,)), 0.0)
    return batches, gatherer


def test_a_film_ends_with_whole_batches_and_some_before_were_cut_by_its_time() -> None:
    batches, gatherer = gathered(shots(4))
    assert not list(gatherer.frames)
    assert {len(batch) < IMAGES for batch in batches} == {True, False}


def test_a_film_is_a_function_of_its_seed() -> None:
    one, other = ([(shot.partition, shot.key, shot.value) for shot in shots(2)] for _ in range(2))
    assert one == other


def test_every_camera_stays_in_its_partition_and_some_messages_hold_no_image() -> None:
    film = [shot for shot in shots(20) if not shot.packed]
    assert {(int(str(shot.key)[-2]), shot.partition) for shot in film} == {(c, c % PARTITIONS) for c in range(CAMERAS)}
    assert {shot.reason for shot in film} == {None, "undecodable_image", "unsupported_format", "tombstone"}


def test_strangers_are_among_them_with_new_names_at_any_time_harm_of_many_kinds_and_what_unpacks_too_far() -> None:
    strangers = [shot for shot in shots(40) if shot.packed]
    names = [shot.key for shot in strangers if shot.reason is None]
    assert len(names) == len(set(names)) > 20
    assert {0, 2**62} < {shot.timestamp_ms for shot in strangers}
    assert len({shot.reason for shot in strangers}) > 8
    assert {shot.rows for shot in strangers if shot.reason is Lost.BATCH_TOO_LARGE} == {0}
