"""The work of `adawise produce`: publish images to the topic."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from adawise.app.kafka import reach
from adawise.app.signals import INTERRUPTED, stop_signals
from adawise.console import progress, say
from adawise.produce.produce import Gathering, open_shots
from adawise.produce.produce import produce as send_all
from adawise.produce.sender import ensure_topic, open_sender
from adawise.produce.video import VideoShots
from adawise.text import as_size

if TYPE_CHECKING:
    from adawise.cli.produce.options import ProduceCommand

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SEED = 0
_INFLIGHT_MESSAGES = 8  # messages of the largest size that may be on their way to the broker at once
_TIMEOUT_S = 30.0
_SKIPPED_SHOWN = 5


def produce(asked: ProduceCommand) -> int:
    """Publish images from a folder, a list or a video, and print a summary at the end.

    A video began at --start, or when it says that it did, or now.

    Returns:
        0, or 130 if Ctrl-C ended it in order. With --loop, which has no other end, that returns 0 as well.
    """
    kafka, largest = asked.settings.kafka, int(asked.settings.decode.max_message_bytes)
    seed = _SEED if asked.shuffle else None
    shots = open_shots(asked.source, max_message_bytes=largest, loop=asked.loop, shuffle_seed=seed)
    began = asked.start or (shots.created() if isinstance(shots, VideoShots) else None)
    clients = reach(kafka)
    ensure_topic(
        **clients,
        topic=kafka.topic,
        create=asked.create_topic,
        partitions=asked.partitions,
        max_message_bytes=largest,
    )
    names = tuple(f"camera-{number}" for number in range(asked.streams or 1))
    if asked.stream_ids is not None:
        names = tuple(name.strip() for name in asked.stream_ids.split(","))
    stop = threading.Event()
    with progress("produced", total=asked.limit) as bar, stop_signals(on_stop=stop.set):
        sent = 0

        def tell(images: int, _size_bytes: int) -> None:
            nonlocal sent
            bar.advance(images - sent)
            sent = images

        sender = open_sender(
            **clients,
            topic=kafka.topic,
            max_message_bytes=largest,
            max_inflight_bytes=_INFLIGHT_MESSAGES * largest,
            timeout_s=_TIMEOUT_S,
            on_progress=tell,
        )
        try:
            produced = send_all(
                shots,
                sender,
                streams=names,
                gathering=Gathering(
                    batch=asked.batch, max_message_bytes=largest, max_held_bytes=_INFLIGHT_MESSAGES * largest
                ),
                rate=asked.rate,
                speed=None if asked.fast else asked.speed or 1.0,
                begins_us=None if began is None else (began - _EPOCH) // timedelta(microseconds=1),
                limit=asked.limit,
                stop=stop,
            )
        finally:
            sender.close()
    say(
        f"{produced.images} images ({as_size(produced.image_bytes)}) in {produced.messages} messages to "
        f"{kafka.topic}, {len(produced.by_stream)} streams, {produced.seconds:.1f} s"
    )
    for name, why in list(shots.skipped.items())[:_SKIPPED_SHOWN]:
        say(f"skipped {name}: {why}", sys.stderr)
    if len(shots.skipped) > _SKIPPED_SHOWN:
        say(f"and {len(shots.skipped) - _SKIPPED_SHOWN} more files skipped", sys.stderr)
    return INTERRUPTED if stop.is_set() and not asked.loop else 0
