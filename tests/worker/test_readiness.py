from __future__ import annotations

from adawise.worker.batching import BatchPolicy, OpenPart
from adawise.worker.readiness import Readiness

POLICY = BatchPolicy(images=3, max_age_s=1.0)
SIZE = 10  # bytes of a message here; an image has 100


class ReadyRecorder(Readiness):
    """Keeps what it tells."""

    def __init__(self) -> None:
        self.published: list[tuple[str, int]] = []
        super().__init__(POLICY, lambda stream, until: self.published.append((stream, until)), image_bytes=100)

    def put(self, offset: int, stream: str = "a", *, at_ms: int = 0, now_s: float = 0.0, size: int = SIZE) -> None:
        self.read(stream, offset, at_ms, size, now_s)


def test_a_stream_is_ripe_with_the_image_that_completes_its_count() -> None:
    subject = ReadyRecorder()
    for offset in range(7):
        subject.put(offset, "ab"[offset % 2])
    assert subject.published == [("a", 5), ("b", 6)]
    assert subject.unready_bytes == SIZE


def test_a_stream_is_ripe_with_an_image_that_was_produced_too_late_for_the_others() -> None:
    subject = ReadyRecorder()
    for offset, at_ms in enumerate([0, 1_000, 1_001, 2_002]):
        subject.put(offset, at_ms=at_ms)
    assert subject.published == [("a", 3), ("a", 4)]


def test_an_image_that_turns_out_bad_makes_the_stream_wait_for_one_more() -> None:
    subject = ReadyRecorder()
    subject.put(0)
    subject.put(1)
    assert subject.decoded("a", 0) == 0.0
    subject.count_again("a", None)
    subject.put(2)
    assert subject.published == []
    subject.put(3)
    assert subject.published == [("a", 4)]


def test_what_is_open_counts_and_what_was_put_back_waits_again_with_its_age() -> None:
    subject = ReadyRecorder()
    for offset in range(2):
        subject.put(offset, now_s=5.0)
        assert subject.decoded("a", offset) == 5.0
    subject.count_again("a", OpenPart(2, 0, 5.0))
    subject.put_back("a", [(0, 0, SIZE), (1, 0, SIZE)], 5.0)
    assert (subject.published, subject.first("a"), subject.unready_bytes) == ([], 0, 2 * SIZE)
    assert list(subject.due(6.5)) == []
    assert list(subject.due(6.6)) == ["a"]
    subject.put(2, now_s=6.0)
    assert subject.published == [("a", 3)]
    assert list(subject.due(99.0)) == []


def test_what_takes_less_room_decoded_and_what_a_whole_batch_waits_for_is_ripe_at_once() -> None:
    subject = ReadyRecorder()
    subject.put(0, size=100)
    subject.put(1, "b")
    for stream in ("b", "c"):
        subject.make_ready(stream, 2)
    assert subject.published == [("a", 1), ("b", 2)]
    assert subject.unready_bytes == 0


def test_what_is_read_again_below_what_is_ripe_is_ripe_at_once() -> None:
    """A recovery reads what is pending while later offsets are known; its stream may be ripe up to these by then."""
    subject = ReadyRecorder()
    subject.put(0)
    subject.make_ready("a", 9)
    subject.put(1)
    assert subject.published == [("a", 9), ("a", 9)]
    assert subject.unready_bytes == 0
    assert [subject.decoded("a", offset) for offset in (0, 1)] == [0.0, 0.0]
    assert subject.unready_bytes == 0
