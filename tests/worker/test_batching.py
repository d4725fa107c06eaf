from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from adawise.records import DecodedMessage, ImageBatch
from adawise.worker.batching import BatchPolicy, Gatherer, batch_of, without_pixels
from tests.frames import a_frame, decoded, rows, single

POLICY = BatchPolicy(images=4, max_age_s=1.0)


def gathered(messages: list[DecodedMessage], policy: BatchPolicy = POLICY, now_s: float = 0.0) -> list[ImageBatch]:
    """All batches that these messages complete, and at the end what is open."""
    gatherer = Gatherer(policy)
    complete = [batch for message in messages for batch in gatherer.add(message, now_s)]
    return complete + gatherer.close_all()


def per_stream(batches: list[ImageBatch]) -> dict[str, list[list[tuple[int, int]]]]:
    streams: dict[str, list[ImageBatch]] = {}
    for batch in batches:
        streams.setdefault(batch.stream_id, []).append(batch)
    return {stream: rows(members) for stream, members in streams.items()}


def test_a_batch_ends_with_the_image_that_completes_its_count() -> None:
    gatherer = Gatherer(POLICY)
    complete = [gatherer.add(single(offset), 0.0) for offset in range(9)]
    assert [rows(batches) for batches in complete] == [
        *[[]] * 3,
        [[(0, 0), (1, 0), (2, 0), (3, 0)]],
        *[[]] * 3,
        [[(4, 0), (5, 0), (6, 0), (7, 0)]],
        [],
    ]
    assert [frame.row_id.offset for frame in gatherer.frames] == [8]


def test_a_batch_ends_before_an_image_that_was_produced_too_long_after_its_first() -> None:
    messages = [single(0, timestamp_ms=0), single(1, timestamp_ms=1000), single(2, timestamp_ms=1001)]
    assert rows(gathered(messages)) == [[(0, 0), (1, 0)], [(2, 0)]]


def test_an_image_of_another_stream_ends_nothing() -> None:
    messages = [single(0, "a"), single(1, "b", timestamp_ms=99_000), single(2, "a", timestamp_ms=10)]
    assert per_stream(gathered(messages)) == {"a": [[(0, 0), (2, 0)]], "b": [[(1, 0)]]}


def test_clocks_that_run_backwards_end_nothing() -> None:
    messages = [single(0, timestamp_ms=5000), single(1, timestamp_ms=0), single(2, timestamp_ms=10)]
    assert rows(gathered(messages)) == [[(0, 0), (1, 0), (2, 0)]]


def test_images_without_a_timestamp_share_no_batch_with_those_that_have_one() -> None:
    times = [5000, -1, -1, 5001, 5002, -1]
    messages = [single(offset, timestamp_ms=at) for offset, at in enumerate(times)]
    assert rows(gathered(messages)) == [[(0, 0)], [(1, 0), (2, 0)], [(3, 0), (4, 0)], [(5, 0)]]


def test_what_waited_longer_than_its_age_and_the_grace_is_closed_by_the_clock() -> None:
    gatherer = Gatherer(POLICY)
    gatherer.add(single(0, "a"), 10.0)
    gatherer.add(single(1, "b"), 11.0)
    assert gatherer.close_due(11.5) == []
    assert rows(gatherer.close_due(11.6)) == [[(0, 0)]]
    assert [frame.row_id.offset for frame in gatherer.frames] == [1]
    assert rows(gatherer.close_due(12.6)) == [[(1, 0)]]
    assert gatherer.close_due(1e9) == []


def test_batches_whose_messages_are_kept_can_be_opened_again_the_newest_first() -> None:
    gatherer = Gatherer(POLICY)
    for offset, stream in enumerate("abcab"):
        gatherer.add(single(offset, stream), 10.0 + offset, kept_bytes=0 if offset == 4 else 7)
    assert (gatherer.image_bytes, gatherer.kept_bytes) == (5 * 48, 4 * 7)  # an image here has 48 bytes
    kept = [(stream, since_s, [m.offset for m in messages]) for stream, since_s, messages in gatherer.returnable()]
    assert kept == [("c", 12.0, [2]), ("a", 10.0, [0, 3])]  # the last of b's is not kept
    assert gatherer.reopen("a") == 2 * 48
    assert (gatherer.image_bytes, gatherer.kept_bytes) == (3 * 48, 2 * 7)
    assert [frame.row_id.offset for frame in gatherer.frames] == [1, 4, 2]
    assert rows(gatherer.close("b")) == [[(1, 0), (4, 0)]]
    assert gatherer.close("b") == []


def test_a_batch_ages_from_its_first_image() -> None:
    gatherer = Gatherer(POLICY)
    gatherer.add(single(0), 0.0)
    gatherer.add(single(1, timestamp_ms=900), 1.4)
    assert rows(gatherer.close_due(1.6)) == [[(0, 0), (1, 0)]]


def test_a_batch_that_the_producer_made_stays_as_it_is_and_closes_what_its_stream_had_open() -> None:
    whole = decoded(*[a_frame(3, "a", index=i) for i in range(6)], is_batch=True)
    batches = gathered([single(0, "a"), single(1, "b"), single(2, "a"), whole, single(4, "a")])
    assert per_stream(batches) == {
        "a": [[(0, 0), (2, 0)], [(3, i) for i in range(6)], [(4, 0)]],
        "b": [[(1, 0)]],
    }


def test_a_producers_batch_of_several_streams_becomes_one_batch_for_each() -> None:
    frames = [a_frame(0, stream, index=i) for i, stream in enumerate(["a", "b", "a"])]
    assert per_stream(gathered([decoded(*frames, is_batch=True)])) == {"a": [[(0, 0), (0, 2)]], "b": [[(0, 1)]]}


def test_rejected_frames_are_in_no_batch() -> None:
    frames = [a_frame(0, index=0), a_frame(0, index=1, rejected=True), a_frame(0, index=2)]
    assert rows(gathered([decoded(*frames, is_batch=True)])) == [[(0, 0), (0, 2)]]
    assert gathered([single(0, rejected=True), decoded(a_frame(1, rejected=True), is_batch=True)]) == []


@st.composite
def two_interleavings(draw: st.DrawFn) -> tuple[list[DecodedMessage], list[DecodedMessage], dict[str, list[int]]]:
    """Messages of three streams, each in its own order, merged in two ways."""
    streams: dict[str, list[DecodedMessage]] = {}
    offset = 0
    for stream in "abc":
        messages, timestamp = [], 0
        for gap, images in draw(st.lists(st.tuples(st.integers(0, 700), st.integers(1, 5)), max_size=12)):
            timestamp += gap
            frames = [a_frame(offset, stream, index=i, timestamp_ms=timestamp) for i in range(images)]
            messages.append(decoded(*frames, is_batch=images > 1))
            offset += 1
        streams[stream] = messages

    def merged() -> list[DecodedMessage]:
        order = draw(st.permutations([s for s, messages in streams.items() for _ in messages]))
        left = {s: iter(messages) for s, messages in streams.items()}
        return [next(left[s]) for s in order]

    return merged(), merged(), {s: [m.message.offset for m in messages] for s, messages in streams.items()}


@given(two_interleavings(), st.integers(1, 6))
def test_the_batches_of_a_stream_do_not_depend_on_the_streams_around_it(
    interleavings: tuple[list[DecodedMessage], list[DecodedMessage], dict[str, list[int]]], images: int
) -> None:
    first, second, offsets = interleavings
    policy = BatchPolicy(images, 1.0)
    batches = per_stream(gathered(first, policy))
    assert batches == per_stream(gathered(second, policy))
    for stream, sent in offsets.items():
        in_order = [offset for batch in batches.get(stream, []) for offset, _ in batch]
        assert sorted(set(in_order)) == sorted(sent)
        assert in_order == sorted(in_order)


@given(two_interleavings())
def test_when_messages_arrive_does_not_matter_while_the_clock_closes_nothing(
    interleavings: tuple[list[DecodedMessage], list[DecodedMessage], dict[str, list[int]]],
) -> None:
    messages, _, _ = interleavings
    gatherer = Gatherer(POLICY)
    late = [batch for n, message in enumerate(messages) for batch in gatherer.add(message, 1000.0 * n)]
    assert per_stream(late + gatherer.close_all()) == per_stream(gathered(messages))


def test_a_batch_holds_its_images_in_the_order_of_its_frames() -> None:
    frames = [a_frame(offset) for offset in (5, 9, 6)]
    batch = batch_of(frames)
    assert batch.images.shape == (3, 3, 4, 4)
    assert batch.images.dtype == torch.uint8
    assert batch.images[:, 0, 0, 0].tolist() == [35, 63, 42]
    assert len(batch) == 3


def test_without_pixels_a_batch_keeps_its_rows_and_holds_no_image_memory() -> None:
    batch = batch_of([a_frame(0), a_frame(1)])
    bare = without_pixels(batch)
    assert [frame.row_id for frame in bare.frames] == [frame.row_id for frame in batch.frames]
    assert bare.stream_id == batch.stream_id
    assert bare.images.nbytes == 0
    assert all(frame.image is not None and frame.image.nbytes == 0 for frame in bare.frames)
    assert batch.images.nbytes == 2 * 48


def test_batches_end_where_an_earlier_run_ended_them_and_then_by_the_policy() -> None:
    gatherer = Gatherer(POLICY, {"a": ([0, 2, 8], [1, 7, 8])})
    times = {5: 90_000, 6: 10}  # a clock that jumps and steps back ends nothing here
    complete = [gatherer.add(single(at, "a", timestamp_ms=times.get(at, 0)), 0.0) for at in range(14)]
    ended = [rows(batches) for batches in complete]
    assert ended[1] == [[(0, 0), (1, 0)]]
    assert ended[7] == [[(offset, 0) for offset in range(2, 8)]]
    assert ended[8] == [[(8, 0)]]
    assert ended[12] == [[(offset, 0) for offset in range(9, 13)]]
    assert [at for at, batches in enumerate(ended) if batches] == [1, 7, 8, 12]


def test_a_batch_whose_last_image_is_missing_now_ends_before_the_next_one() -> None:
    gatherer = Gatherer(POLICY, {"a": ([0, 3], [2, 5])})
    assert [rows(gatherer.add(single(at, "a"), 0.0)) for at in (0, 1, 3, 5)] == [
        [],
        [],
        [[(0, 0), (1, 0)]],
        [[(3, 0), (5, 0)]],
    ]


def test_what_no_batch_of_an_earlier_run_holds_is_cut_by_the_policy() -> None:
    """Before its first, as after retention; between two of its batches; and behind the last."""
    gatherer = Gatherer(POLICY, {"a": ([6, 20], [7, 21])})
    complete = [gatherer.add(single(at, "a"), 0.0) for at in range(24)]
    sizes = [(at, [len(batch.frames) for batch in batches]) for at, batches in enumerate(complete) if batches]
    assert sizes == [(3, [4]), (6, [2]), (7, [2]), (11, [4]), (15, [4]), (19, [4]), (21, [2])]


def test_the_clock_ends_no_batch_that_an_earlier_run_had_go_on() -> None:
    gatherer = Gatherer(POLICY, {"a": ([0], [5])})
    gatherer.add(single(0, "a"), 0.0)
    gatherer.add(single(1, "b"), 0.0)
    assert [batch.stream_id for batch in gatherer.close_due(1e6)] == ["b"]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(-1, 9_000), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 5),
)
def test_whatever_ended_a_batch_its_end_is_enough_to_end_it_again(
    steps: list[tuple[str, int, bool]], images: int
) -> None:
    """Timestamps as they come, and a wall clock that closes what is open now and then."""
    messages = [single(offset, stream, timestamp_ms=at) for offset, (stream, at, _) in enumerate(steps)]
    live, batches = Gatherer(BatchPolicy(images, 1.0)), list[ImageBatch]()
    for number, message in enumerate(messages):
        batches += live.add(message, float(number))
        if steps[number][2]:
            batches += live.close_due(1e6)
    batches += live.close_all()
    ends = {
        stream: ([each[0][0] for each in found], [each[-1][0] for each in found])
        for stream, found in per_stream(batches).items()
    }
    again = Gatherer(BatchPolicy(images=3, max_age_s=0.5), ends)
    replayed = [batch for message in messages for batch in again.add(message, 0.0)]
    assert per_stream(replayed) == per_stream(batches)
