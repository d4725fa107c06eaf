"""The errors of the package, in three families, because the worker reacts to an error in one of three ways.

    AdawiseError
    ├── InvalidMessage      this message (or this row of it) can never be classified -> reject it and go on
    ├── RetryableError      a service fails, the data is intact                      -> retry within bounds
    │   ├── BrokerUnavailable
    │   │   ├── TopicUnavailable    the broker answers, but a topic does not accept messages
    │   │   └── PermissionRefused   the broker answers, but this user lacks a right
    │   ├── AlertsNotSent
    │   └── StoreUnavailable
    │       └── StoreFull       no space, or a quota is used up: the worker waits for space
    └── FatalError          going on is impossible, or would lose or corrupt data    -> stop without committing
        ├── SettingsError       a setting, a flag or a file named by one
        │   ├── OrderTaken          another process gave the order of this number first
        │   ├── PrecisionTaken      another worker claimed the root for another number format first
        │   ├── PairTooLarge        there is no memory for another pair beside the serving one
        │   └── ImagesUnusable      none of the images that a table is to be made of can be decoded
        ├── CheckpointError     the two checkpoints do not make a pair
        ├── CardError           the card does not belong to the pair
        ├── PairMissing         the pair of a partition's chain is not available: the partition is blocked
        ├── DeviceError         the GPU failed
        │   └── DeviceMemoryError   the device has too little memory for the model
        ├── TrainingError       fine-tuning cannot be resumed or written
        │   └── DivergedError       the loss is not finite
        ├── SourceError         the topic or recording is another one, or cannot be read
        │   ├── LogEndsEarly        the broker's log ends before offsets that were already read
        │   ├── LogRewritten        the broker has other messages at the offsets of the chain's rows
        │   └── Vanished            a file of a recording was removed while it was read
        └── ChainError          a segment is damaged, foreign or unreadable

Every message says what was expected, what came, and where, and ends in the remedy.
"""

from __future__ import annotations

import re
import traceback
from enum import StrEnum
from pathlib import Path


def place_of(error: BaseException) -> str:
    """Return the file and line where an error was raised, such as "live.py:210"; "" if it has no traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


_PART_END = re.compile(r"(?<!\.)[.?;] (?=\S)(?![Oo]r\b)")
"""The end of a part of a message, before the next part. "Or ..." belongs to the part before it; "..." ends none."""

_ASIDE = re.compile(r"\([^()]*\)")
"""A parenthesis, in which no part of a message ends."""


class Reason(StrEnum):
    """The reason why a message or a row of it was rejected. The values are stable: outputs and headers have them."""

    TOMBSTONE = "tombstone"  # the message has no value
    EMPTY = "empty"  # the value has no bytes
    TOO_LARGE = "too_large"  # more bytes than `decode.max_message_bytes`
    TOO_MANY_PIXELS = "too_many_pixels"  # an image above `decode.max_pixels`, or a message above twelve times that
    TOO_MANY_ROWS = "too_many_rows"  # a batch of more rows than `decode.max_rows`
    TOO_FEW_BYTES = "too_few_bytes"  # fewer bytes than an image of these pixels can have
    UNSUPPORTED_FORMAT = "unsupported_format"  # not JPEG, PNG, WebP, BMP or Arrow, or a variant that is not supported
    UNDECODABLE_IMAGE = "undecodable_image"  # damaged, or not of the declared format
    BAD_ARROW = "bad_arrow"  # not an Arrow stream of images
    SCHEMA_FRAMED = "schema_framed"  # a schema registry's serializer put its schema id before the bytes
    MISSING_STREAM_ID = "missing_stream_id"  # neither key, header nor column names the camera
    STREAM_ID_MISMATCH = "stream_id_mismatch"  # key, header and column name different cameras
    BAD_STREAM_ID = "bad_stream_id"  # a camera id that is too long, not UTF-8 or not printable
    BAD_TIMESTAMP = "bad_timestamp"  # only from earlier versions: now an invalid time is ignored and the image accepted
    KILLS_DECODER = "kills_decoder"  # it killed the isolated processes that decoded it


class Lost(StrEnum):
    """The reason why offsets have no rows. The values are stable: outputs, recordings and headers have them."""

    DELETED = "deleted"  # the broker's retention deleted them before they were read
    COMPACTED = "compacted"  # the broker's compaction removed them before they were read
    BATCH_TOO_LARGE = "batch_too_large"  # a compressed batch above `kafka.max_batch_bytes`
    BATCH_TOO_MANY_RECORDS = "batch_too_many_records"  # a batch above `kafka.max_batch_records`
    BATCH_DAMAGED = "batch_damaged"  # the CRC of the batch does not match
    SEGMENT_LOST = "segment_lost"  # their rows were lost with their segments (`adawise repair`)
    BATCH_UNREADABLE = "batch_unreadable"  # an unknown codec, or bytes that do not match the declared one


class AdawiseError(Exception):
    """The root of every error that this package raises on purpose.

    Example:
        >>> try:
        ...     adawise.read_traces("runs/yrad")
        ... except adawise.AdawiseError as error:
        ...     cause, remedy = error.cause_and_remedy
        >>> remedy
        'name the folder or URL of sink.root or -o: did you mean runs/yard?'
    """

    @property
    def cause_and_remedy(self) -> tuple[str, str]:
        """The message in two parts: the cause (what was expected, what came, and where), and the remedy.

        The remedy is the last sentence or clause. In a list of mistakes each line has its own remedy.

        Example:
            >>> adawise.AdawiseError("segment 7 is damaged; restore it from a copy").cause_and_remedy
            ('segment 7 is damaged', 'restore it from a copy')
        """
        message = str(self)
        if "\n" in message:
            return message, "correct what is listed"
        whole = _ASIDE.sub(lambda aside: "_" * len(aside[0]), message)  # nothing ends within parentheses
        ends = [*_PART_END.finditer(whole)]
        return (message[: ends[-1].start()], message[ends[-1].end() :]) if ends else (message, "")


class InvalidMessage(AdawiseError):
    """A message, or one row of it, that can never be classified; the stream goes on without it."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RetryableError(AdawiseError):
    """The broker or the store did not do its part; the same call may succeed later."""


class BrokerUnavailable(RetryableError):
    """The broker cannot be reached or does not answer in time."""


class TopicUnavailable(BrokerUnavailable):
    """The broker answers, but a topic does not take records: it is missing, or has too few replicas in sync."""


class PermissionRefused(BrokerUnavailable):
    """The broker answers, but refuses this user's login or request; that may change while the program runs."""


class AlertsNotSent(RetryableError):
    """Alertmanager did not take the alerts of a report, so no one is alerted."""


class StoreUnavailable(RetryableError):
    """The store refused a valid request, or failed to do it."""

    REMEDY = (  # without a semicolon, before which a message names the cause
        "a worker or another service tries again by itself, any other command is to be run again once the store answers"
    )


class StoreFull(StoreUnavailable):
    """The store has no room: the disk is full, or a quota is used up. Nothing is lost; work resumes once it has."""

    REMEDY = (
        "free space or raise the quota, and workers go on by themselves: `adawise retain ROOT --keep 400d --yes` "
        "removes old output if a few MiB are free, `adawise record -o RECORDING --prune-only` expired parts of a "
        "recording"
    )


class FatalError(AdawiseError):
    """Going on would lose something, or cannot work: the worker stops, and commits nothing more."""


class SettingsError(FatalError):
    """A setting, a flag, an environment variable or a file named by one is wrong."""


class OrderTaken(SettingsError):
    """Another operator has just given the order about pairs with this number; this order was not given."""


class PrecisionTaken(SettingsError):
    """Another worker has just claimed the root for another number format: this one loads its pair again in that."""


class PairTooLarge(SettingsError):
    """There is no memory for another pair beside the one that serves."""


class ImagesUnusable(SettingsError):
    """None of the images of a table, or of a batch, can be decoded."""


class CheckpointError(FatalError):
    """Two checkpoints that do not make a pair, or one that cannot be loaded."""


class CardError(FatalError):
    """A card that does not belong to the pair, or is not a card."""


class PairMissing(FatalError):
    """The pair of models that serves a partition, by its chain, cannot be loaded here: the partition is blocked."""


class DeviceError(FatalError):
    """The card that runs the model failed or was lost."""


class DeviceMemoryError(DeviceError):
    """The device has too little memory for the model."""


class TrainingError(FatalError):
    """Fine-tuning cannot go on: its checkpoint is of another run, its output cannot be written, or it diverged."""


class DivergedError(TrainingError):
    """The loss of a run of fine-tuning, or its gradient, is not finite."""


class SourceError(FatalError):
    """The topic is missing, or is not the one that the chain was written from."""


class LogEndsEarly(SourceError):
    """The broker's log ends before offsets that were read from it.

    The broker has lost them, or it does not report them yet after a crash.
    """


class LogRewritten(SourceError):
    """The broker has other messages at the offsets of the chain's rows: the partition is blocked."""


class Vanished(SourceError):
    """A file of a recording was listed, and then removed by retention before it was read."""


class ChainError(FatalError):
    """A segment of the chain is damaged, foreign or unreadable."""
