"""Sending of shots to a topic: assigned to streams, paced, as single images or as Arrow batches. For producers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import TIMEOUT_MAX, Event
from typing import Protocol

from adawise.decode.headers import check_stream_id
from adawise.errors import InvalidMessage, SettingsError
from adawise.produce.address import is_live, is_video, masked
from adawise.produce.camera_traps import TrapSite
from adawise.produce.files import FileShots, Shot, list_file, list_folder, shuffled
from adawise.produce.video import VideoShots

_OF_SITE = "Where they are not there, name the folder as SOURCE that each file_name of the document is relative to."
ROOM_BYTES = 64 * 1024  # for key, headers and Arrow's own bytes around the images of a message


@dataclass(frozen=True, slots=True)
class Parcel:
    """The content of one message: images of one stream, and when each was taken (microseconds since the epoch)."""

    stream_id: str
    shots: tuple[Shot, ...]
    captured_at_us: tuple[int, ...]
    is_batch: bool

    @property
    def image_bytes(self) -> int:
        """The bytes of the images alone."""
        return sum(len(shot.data) for shot in self.shots)


class Sender(Protocol):
    """The destination of parcels."""

    def send(self, parcel: Parcel) -> None:
        """Take a parcel, perhaps after a wait for room.

        Raises:
            BrokerUnavailable: the broker did not take it in time.
            SettingsError: it can never be sent.
        """

    def flush(self) -> None:
        """Return when all is acknowledged; raise what `send` raises."""


@dataclass(frozen=True, slots=True)
class Produced:
    """The totals of what was sent and acknowledged; `by_stream` counts images, `image_bytes` counts images alone."""

    images: int
    messages: int
    image_bytes: int
    seconds: float
    by_stream: Mapping[str, int]


class Gathering:
    """Images on their way into messages: a batch is due when it is full, or when all are too much to hold together.

    Args:
        batch: images of a message; 1 sends each as it is, more as an Arrow batch.
        max_message_bytes: a batch is due before it would be larger.
        max_held_bytes: of the images of all streams together.
    """

    def __init__(self, *, batch: int, max_message_bytes: int, max_held_bytes: int) -> None:
        self._batch = batch
        self._max_image_bytes = max_message_bytes - ROOM_BYTES
        self._max_held_bytes = max_held_bytes
        self._held: dict[str, list[tuple[Shot, int]]] = {}
        self._sizes: Counter[str] = Counter()

    def add(self, stream_id: str, shot: Shot, captured_at_us: int) -> list[Parcel]:
        """Add an image; return the parcels that are due now, in the order in which they have to be sent."""
        due = []
        if self._sizes[stream_id] + len(shot.data) > self._max_image_bytes and stream_id in self._held:
            due.append(self._take(stream_id))
        self._held.setdefault(stream_id, []).append((shot, captured_at_us))
        self._sizes[stream_id] += len(shot.data)
        if len(self._held[stream_id]) == self._batch:
            due.append(self._take(stream_id))
        elif self._sizes.total() > self._max_held_bytes:
            due.extend(self.rest())
        return due

    def rest(self) -> list[Parcel]:
        """Return all that is held, as parcels."""
        return [self._take(stream_id) for stream_id in list(self._held)]

    def _take(self, stream_id: str) -> Parcel:
        shots, times = zip(*self._held.pop(stream_id), strict=True)
        del self._sizes[stream_id]
        return Parcel(stream_id, shots, times, self._batch > 1)


def open_shots(
    source: str,
    *,
    max_message_bytes: int,
    loop: bool = False,
    shuffle_seed: int | None = None,
) -> FileShots | VideoShots:
    """Return the shots of `source`: a folder, a list of files, or a video.

    Args:
        source: a path.
        max_message_bytes: larger files are skipped.
        loop: begin again at the end.
        shuffle_seed: mix the files by this seed; None keeps them sorted, or in the list's order.

    Raises:
        SettingsError: there is no such folder or list, or it is a stream.
    """
    path = Path(source)
    if is_live(source):
        raise SettingsError(
            f"expected a folder, a list or a video, got the stream {masked(source)}. Read streams and devices with "
            "`adawise cameras FILE`, whose tables [camera.NAME] name them by `url` or `device`."
        )
    if is_video(source) and not path.is_dir():
        return VideoShots(source, loop=loop)
    if not path.exists():
        raise SettingsError(f"there is no {masked(source)}; name a folder of images, a list of them, or a video")
    files = list_folder(path) if path.is_dir() else list_file(path)
    if shuffle_seed is not None:
        files = shuffled(files, shuffle_seed)
    return FileShots(files, max_bytes=max_message_bytes - ROOM_BYTES, loop=loop)


def open_site(site: TrapSite, *, max_message_bytes: int, loop: bool = False) -> FileShots:
    """Return the shots of a site of camera traps; arguments as of `open_shots`."""
    largest, left_out = max_message_bytes - ROOM_BYTES, dict(site.left_out)
    return FileShots(site, max_bytes=largest, loop=loop, skipped=left_out, within=site.folder, remedy=_OF_SITE)


def produce(
    shots: Iterable[Shot],
    sender: Sender,
    *,
    streams: Sequence[str],
    gathering: Gathering,
    rate: float | None = None,
    speed: float | None = None,
    begins_us: int | None = None,
    limit: int | None = None,
    stop: Event | None = None,
    clock: Callable[[], float] = time.time,
) -> Produced:
    """Send shots until they end, `limit` are sent or `stop` is set; then wait for the acknowledgements.

    Args:
        shots: in the order of sending.
        sender: where to; the caller closes it.
        streams: the ids that are assigned, in turn, to shots without a stream of their own.
        gathering: how many images share a message.
        rate: images a second, of all streams together; as fast as the broker takes them if None.
        speed: seconds of the source's own pace that are sent in a second, where its images have one and there is no
            `rate`; as fast as the broker takes them if None.
        begins_us: when such a video began, in microseconds since the epoch; None: now.
        limit: images to send at most.
        stop: ends the run early, from a signal handler or another thread.
        clock: seconds since the epoch, for pacing and for the time of images that have none.

    Raises:
        BrokerUnavailable: a message was not acknowledged in time.
        SettingsError: a stream's name cannot be one, or a message is larger than the topic allows.
    """
    stop = stop or Event()
    dealt = [_checked(stream_id) for stream_id in streams]
    by_stream: Counter[str] = Counter()
    messages = image_bytes = 0
    start = clock()
    begins_us = int(start * 1_000_000) if begins_us is None else begins_us

    def due_s(number: int, shot: Shot) -> float:
        if rate is not None:
            return start + number / rate
        return start if speed is None or shot.at_s is None else start + shot.at_s / speed

    def taken_us(shot: Shot) -> int:
        if shot.captured_at_us is not None:
            return shot.captured_at_us
        return int(clock() * 1_000_000) if shot.at_s is None else begins_us + round(shot.at_s * 1_000_000)

    def send(parcels: Iterable[Parcel]) -> None:
        nonlocal messages, image_bytes
        for parcel in parcels:
            sender.send(parcel)
            messages += 1
            image_bytes += parcel.image_bytes
            by_stream[parcel.stream_id] += len(parcel.shots)

    with _closing(iter(shots)) as iterator:
        for number, shot in enumerate(islice(iterator, limit)):
            delay_s = min(due_s(number, shot) - clock(), TIMEOUT_MAX)
            if stop.is_set() or (delay_s > 0 and stop.wait(delay_s)):
                break
            stream_id = _checked(shot.stream_id) if shot.stream_id else dealt[number % len(dealt)]
            send(gathering.add(stream_id, shot, taken_us(shot)))
    send(gathering.rest())
    sender.flush()
    return Produced(by_stream.total(), messages, image_bytes, clock() - start, dict(by_stream))


@contextmanager
def _closing(iterator: Iterator[Shot]) -> Iterator[Iterator[Shot]]:
    """Close a generator even if it was not run to its end: it may hold a process."""
    try:
        yield iterator
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


def _checked(stream_id: str) -> str:
    try:
        return check_stream_id(stream_id.encode("utf-8", "surrogateescape"))
    except InvalidMessage as invalid:
        raise SettingsError(
            f"the stream {stream_id[:60]!r} cannot have that name: {invalid.detail}. Choose another one."
        ) from invalid
