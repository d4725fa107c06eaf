"""The work of `adawise dlq`: read the dead-letter topic, and send messages from it back to their topic."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adawise.app.kafka import kafka_source, reach
from adawise.cli.dlq.show import as_json, print_letter, print_table, shown
from adawise.console import print_json, progress, say
from adawise.errors import SettingsError, SourceError
from adawise.kafka.read_all import read_whole
from adawise.kafka.source import KafkaSource
from adawise.publish.dead_letters.reading import DeadLetter, read_letter, receipt_for
from adawise.publish.dead_letters.resend import LetterReplay, open_replay
from adawise.settings import KafkaSettings, Settings
from adawise.settings.moments import milliseconds

if TYPE_CHECKING:
    from adawise.cli.dlq.options import DlqListCommand, DlqReplayCommand, DlqShowCommand, LettersCommand

_TIMEOUT_S = 30.0
_SENT = "sent"

Place = tuple[int, int]  # partition and offset in the dead-letter topic
_Key = tuple[int | None, int | None, int]  # `DeadLetter.message`


@dataclass(frozen=True, slots=True)
class _Choice:
    """The criteria for dead letters; None accepts any value."""

    reason: str | None
    since_ms: int | None
    stream: str | None
    place: Place | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Return True if the dead letter meets all criteria."""
        return (
            self.reason in (None, letter.reason)
            and self.stream in (None, letter.stream)
            and (self.since_ms is None or letter.timestamp_ms >= self.since_ms)
            and self.place in (None, _place(letter))
        )


class _Past:
    """The messages that were sent back, which are known once the whole topic was read."""

    def __init__(self) -> None:
        # dead letters that a receipt names: a message of theirs was sent back
        self.receipts: set[Place] = set()
        # every dead letter -> the message that it is of
        self.messages: dict[Place, _Key] = {}

    @property
    def sent(self) -> set[_Key]:
        """The messages that were sent back. A receipt names one dead letter of a message, which may have others."""
        return {self.messages[place] for place in self.receipts if place in self.messages}


def list_letters(asked: DlqListCommand) -> int:
    """Print the newest dead letters that match, up to the limit. Their values are not kept in memory."""
    choice = _chosen(asked)
    newest: deque[DeadLetter] = deque(maxlen=asked.limit)
    past, fitting = _Past(), 0
    with _letters(asked.settings.kafka) as source:
        for letter in _read(source, past):
            if choice.fits(letter):
                newest.append(letter.without_value())
                fitting += 1
    sent = past.sent
    found = [(letter, past.messages[_place(letter)] in sent) for letter in newest]
    if asked.as_json:
        print_json([as_json(letter, replayed=sent) for letter, sent in found])
    else:
        print_table(found, older=fitting - len(found))
    return 0


def show_letter(asked: DlqShowCommand) -> int:
    """Print one dead letter, and with --save write the original bytes to a new file.

    Raises:
        SettingsError: there is no such dead letter, or it does not have the bytes to save.
    """
    kafka, place, save, past = asked.settings.kafka, _named(asked.letter), asked.save, _Past()
    found: DeadLetter | None = None
    with _letters(kafka) as source:
        for letter in _read(source, past):
            if _place(letter) == place:
                found = letter
    if found is None:
        raise SettingsError(
            f"there is no dead letter {place[0]}/{place[1]} in topic {kafka.dead_letters_to!r} at "
            f"{kafka.bootstrap_servers}; list them with `adawise dlq list`"
        )
    print_letter(found, replayed=past.messages[place] in past.sent)
    if save is not None:
        if not found.is_whole:
            raise SettingsError(
                f"{save} was not written: the dead letter does not hold its original; read {found.source}"
            )
        with save.open("xb") as file:
            file.write(found.record.value or b"")
        say(f"{found.size_bytes} bytes written to {save}")
    return 0


def replay_letters(asked: DlqReplayCommand) -> int:
    """Send the messages of the dead letters that match back to their topic, each once, and print how many.

    Left out are messages that were sent back before (unless --again), those that came back as dead letters
    --max-replays times, those of other topics, and those whose dead letter is without the original.
    """
    kafka, replay = asked.settings.kafka, None
    choice, past = _chosen(asked, asked.letter), _Past()
    try:
        with _letters(kafka) as source:
            if not asked.dry_run:  # opened first: from then on no other replay can commit, so the receipts are complete
                replay = _open(asked.settings, source.log.identity(kafka.topic).partitions)
            for _ in _read(source, past):
                pass
        counted = _send(kafka, choice, set() if asked.again else past.sent, asked.max_replays, replay)
    finally:
        if replay is not None:
            replay.close()
    _report(counted, kafka, asked.dry_run)
    return 0


def _chosen(asked: LettersCommand, letter: str | None = None) -> _Choice:
    since_ms = None if asked.since is None else milliseconds(asked.since)
    return _Choice(asked.reason, since_ms, asked.stream, None if letter is None else _named(letter))


def _named(letter: str) -> Place:
    partition, _, offset = letter.partition("/")
    return int(partition), int(offset)


def _send(
    kafka: KafkaSettings, choice: _Choice, sent: set[_Key], max_replays: int, replay: LetterReplay | None
) -> Counter[tuple[str, str]]:
    """Send the chosen messages, and return the number of dead letters by (outcome, reason).

    Without `replay`, nothing is sent.
    """
    counted: Counter[tuple[str, str]] = Counter()
    now: set[_Key] = set()
    with _letters(kafka) as source, progress("replayed", unit="messages") as bar:
        for letter in _read(source, _Past()):
            if not choice.fits(letter):
                continue
            why_not = _why_not(letter, kafka.topic, sent, now, max_replays)
            counted[why_not or _SENT, letter.reason] += 1
            if why_not is None:
                now.add(letter.message)
                if replay is not None:
                    replay.send(letter)
                    bar.advance()
        if replay is not None:
            replay.commit()
    return counted


def _why_not(letter: DeadLetter, topic: str, sent: set[_Key], now: set[_Key], max_replays: int) -> str | None:
    if letter.topic != topic:  # any client may write into the dead-letter topic, and name any topic as the origin
        return f"not from {topic}"
    if not letter.is_whole:
        return "without their original"
    if letter.message in now:
        return "another dead letter of a message that is sent"
    if letter.message in sent:
        return "sent back before (--again)"
    return f"sent back {max_replays} times or more (--max-replays)" if letter.replays >= max_replays else None


def _report(counted: Counter[tuple[str, str]], kafka: KafkaSettings, dry_run: bool) -> None:
    sent = Counter({reason: count for (what, reason), count in counted.items() if what == _SENT})
    by_reason = ", ".join(f"{count} {shown(reason)}" for reason, count in sent.most_common())
    done = "would be sent" if dry_run else "sent"
    say(f"{sent.total()} messages {done} back to {kafka.topic}" + (f": {by_reason}" if by_reason else ""))
    for what in sorted({what for what, _ in counted} - {_SENT}):
        say(f"{sum(n for (why, _), n in counted.items() if why == what)} dead letters left out: {what}")


def _read(source: KafkaSource, past: _Past) -> Iterator[DeadLetter]:
    """Yield every dead letter, and fill `past` with it and with the receipts."""
    for record in read_whole(source):
        receipt = receipt_for(record)
        if receipt is None:
            letter = read_letter(record)
            past.messages[_place(letter)] = letter.message
            yield letter
        else:
            past.receipts.add(receipt)


def _place(letter: DeadLetter) -> Place:
    return letter.record.partition, letter.record.offset


@contextmanager
def _letters(kafka: KafkaSettings) -> Iterator[KafkaSource]:
    """Open the dead-letter topic, to be read from its beginning.

    Raises:
        SourceError: there is no such topic.
    """
    name = kafka.dead_letters_to
    try:
        source = kafka_source(kafka.model_copy(update={"topic": name}), group=False, origin="earliest")
    except SourceError as error:
        raise SourceError(
            f"there is no dead-letter topic {name!r} at {kafka.bootstrap_servers}: either no message of "
            f"{kafka.topic!r} was ever rejected as a whole, or kafka.topic or kafka.dead_letter_topic names the "
            "wrong topic"
        ) from error
    with closing(source):
        yield source


def _open(settings: Settings, partitions: int) -> LetterReplay:
    kafka = settings.kafka
    return open_replay(
        **reach(kafka),
        letters=kafka.dead_letters_to,
        partitions=partitions,
        max_message_bytes=settings.decode.max_message_bytes,
        timeout_s=_TIMEOUT_S,
    )
