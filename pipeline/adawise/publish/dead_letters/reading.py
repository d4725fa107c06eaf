"""A dead letter as it is read from the dead-letter topic, and what to send to replay it. Pure.

A replay sends the original back to its topic and, in the same transaction, a receipt into the dead-letter topic: an
empty record whose header names the dead letter. So each one is replayed once, even if a replay is asked for again.
Nothing in the topic is trusted, since others may write there too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from adawise.decode.headers import read_stream
from adawise.publish.dead_letters.record import OMITTED, ORIGIN, OURS, REPLAYS, TIMESTAMP
from adawise.records import Message

REPLAYED = "dlq.replayed"  # partition/offset of the dead letter that was sent back

_WHERE = "__connect.errors."
_UNKNOWN = "unknown"

MessageKey = tuple[int | None, int | None, int]
"""The identity of an original message: `DeadLetter.message`."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record of the dead-letter topic; what its headers lack is None or unknown."""

    record: Message
    size_bytes: int  # bytes of the original's value
    own_headers: Mapping[str, bytes] = field(repr=False)  # our headers

    @property
    def place(self) -> str:
        """Its partition and offset in the dead-letter topic, which name it."""
        return f"{self.record.partition}/{self.record.offset}"

    @property
    def reason(self) -> str:
        """The reason of the rejection."""
        return self._text("dlq.reason") or _UNKNOWN

    @property
    def detail(self) -> str:
        """The reason in words."""
        return self._text("dlq.detail") or self._text(f"{_WHERE}exception.message") or ""

    @property
    def topic(self) -> str | None:
        """The topic that the original came from."""
        return self._text(f"{_WHERE}topic")

    @property
    def partition(self) -> int | None:
        """The partition of that topic."""
        return self._number(f"{_WHERE}partition")

    @property
    def offset(self) -> int | None:
        """The offset in that partition."""
        return self._number(f"{_WHERE}offset")

    @property
    def timestamp_ms(self) -> int:
        """The original's timestamp; -1 if it has none.

        Dead letters of earlier versions have it as their own timestamp.
        """
        stated = self._number(TIMESTAMP)
        return self.record.timestamp_ms if TIMESTAMP not in self.own_headers else -1 if stated is None else stated

    @property
    def source(self) -> str:
        """The topic, partition and offset that the original came from."""
        return "/".join(_UNKNOWN if part is None else str(part) for part in (self.topic, self.partition, self.offset))

    @property
    def replays(self) -> int:
        """The number of times that it had been sent back before it was rejected."""
        return self._number(REPLAYS) or 0

    @property
    def message(self) -> MessageKey:
        """The identity of the original message, with its bytes.

        After a crash or a take-over, one message has several dead letters, all with the same bytes. The bytes are part
        of the identity, because offsets start again if a topic was deleted and created under the same name.
        """
        return self.partition, self.offset, hash((self.record.key, self.record.value))

    @property
    def is_whole(self) -> bool:
        """False if the topic could not take the original, so that only its place is known."""
        return OMITTED not in self.own_headers

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]:
        """The original's headers."""
        return tuple((name, value) for name, value in self.record.headers if not name.startswith(OURS))

    @property
    def stream(self) -> str | None:
        r"""The key, or the header `stream-id`; bytes that are not UTF-8 are written as `\xff`."""
        raw = read_stream(self.record.key, self.headers).stated
        return raw.decode("utf-8", "backslashreplace") if raw else None

    def without_value(self) -> DeadLetter:
        """Return a copy without the value, for callers that keep many."""
        return replace(self, record=replace(self.record, value=None))

    def to_send(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers for sending the original back: its own, the number of replays, and its first place."""
        origin = self.own_headers.get(ORIGIN) or self.source.encode()
        own = ((name, value or b"") for name, value in self.headers)
        return (*own, (REPLAYS, b"%d" % (self.replays + 1)), (ORIGIN, origin))

    def receipt(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers of the receipt, which records that this dead letter was sent back."""
        return ((REPLAYED, self.place.encode()),)

    def _text(self, name: str) -> str | None:
        raw = self.own_headers.get(name)
        return raw.decode("utf-8", "backslashreplace") if raw else None

    def _number(self, name: str) -> int | None:
        raw = self.own_headers.get(name, b"")[:20]
        return int(raw) if raw.isdigit() else None


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """The criteria for dead letters; None accepts any value."""

    reason: str | None
    since_ms: int | None
    stream: str | None
    place: str | None = None

    def fits(self, dead_letter: DeadLetter) -> bool:
        """Return True if the dead letter meets all criteria."""
        return (
            self.reason in (None, dead_letter.reason)
            and self.stream in (None, dead_letter.stream)
            and (self.since_ms is None or dead_letter.timestamp_ms >= self.since_ms)
            and self.place in (None, dead_letter.place)
        )


def read_dead_letter(record: Message) -> DeadLetter:
    """Read any record as a dead letter. If a header occurs several times, the last one counts."""
    own_headers = {name: value or b"" for name, value in record.headers if name.startswith(OURS)}
    return DeadLetter(record, len(record.value or b""), own_headers)


def receipt_for(record: Message) -> str | None:
    """Return the place of the dead letter that the record is a receipt for; None if it is no receipt."""
    raw = dict(record.headers).get(REPLAYED)
    partition, _, offset = (raw or b"").partition(b"/")
    if record.value or not partition.isdigit() or not offset.isdigit():
        return None
    return f"{int(partition[:20])}/{int(offset[:20])}"


class ReplaysSoFar:
    """The messages that were sent back, which are known once the whole topic was read."""

    def __init__(self) -> None:
        self._receipts: set[str] = set()  # dead letters that a receipt names: a message of theirs was sent back
        self.messages: dict[str, MessageKey] = {}
        """Every dead letter, by its place, and the message that it is of."""

    def dead_letters(self, records: Iterable[Message]) -> Iterator[DeadLetter]:
        """Yield every dead letter among the records, and note it and the receipts."""
        for record in records:
            receipt = receipt_for(record)
            if receipt is not None:
                self._receipts.add(receipt)
                continue
            dead_letter = read_dead_letter(record)
            self.messages[dead_letter.place] = dead_letter.message
            yield dead_letter

    @property
    def sent(self) -> set[MessageKey]:
        """The messages that were sent back. A receipt names one dead letter of a message, which may have others."""
        return {self.messages[place] for place in self._receipts if place in self.messages}
