"""Settings -> the dead letters of a topic: the newest ones, one of them, and their way back. For `adawise dlq`."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

from adawise.app.kafka import kafka_source, reach
from adawise.console import Progress
from adawise.errors import SettingsError, SourceError
from adawise.kafka.log import read_whole
from adawise.kafka.source import KafkaSource
from adawise.publish.dead_letters.reading import DeadLetter, DeadLetterFilter, ReplaysSoFar
from adawise.publish.dead_letters.resend import DeadLetterReplay, resend
from adawise.settings import KafkaSettings, Settings

_TIMEOUT_S = 30.0


def newest_dead_letters(
    kafka: KafkaSettings, choice: DeadLetterFilter, limit: int
) -> tuple[list[tuple[DeadLetter, bool]], int]:
    """Return the newest dead letters that match, each with True if it was sent back, and the number of older ones.

    Their values are not kept in memory.
    """
    newest: deque[DeadLetter] = deque(maxlen=limit)
    past, matching = ReplaysSoFar(), 0
    with _opened(kafka) as source:
        for dead_letter in filter(choice.fits, past.dead_letters(read_whole(source))):
            newest.append(dead_letter.without_value())
            matching += 1
    sent = past.sent
    return [(dead_letter, past.messages[dead_letter.place] in sent) for dead_letter in newest], matching - len(newest)


def find_dead_letter(kafka: KafkaSettings, place: str) -> tuple[DeadLetter, bool]:
    """Return the dead letter of this place, and True if it was sent back.

    Raises:
        SettingsError: there is no such dead letter.
    """
    past = ReplaysSoFar()
    with _opened(kafka) as source:
        found = [dead_letter for dead_letter in past.dead_letters(read_whole(source)) if dead_letter.place == place]
    if not found:
        raise SettingsError(
            f"there is no dead letter {place} in topic {kafka.dead_letters_to!r} at {kafka.bootstrap_servers}; "
            "list them with `adawise dlq list`"
        )
    return found[0], past.messages[place] in past.sent


def save_original(dead_letter: DeadLetter, file: Path) -> None:
    """Write the original's bytes to a new file.

    Raises:
        SettingsError: the dead letter does not hold its original.
        FileExistsError: there is such a file.
    """
    if not dead_letter.is_whole:
        why = f"the dead letter does not hold its original; read {dead_letter.source}"
        raise SettingsError(f"{file} was not written: {why}")
    with file.open("xb") as opened:
        opened.write(dead_letter.record.value or b"")


def send_back(
    settings: Settings,
    choice: DeadLetterFilter,
    *,
    again: bool,
    max_replays: int,
    dry_run: bool,
    shown: Callable[[], AbstractContextManager[Progress]],
) -> Counter[tuple[str | None, str]]:
    """Send the messages of the dead letters that match back to their topic, each once; see `resend`.

    With `again`, messages that were sent back before are sent, too; with `dry_run`, all are only counted. `shown`
    returns the progress.
    """
    kafka, past, replay = settings.kafka, ReplaysSoFar(), None
    with ExitStack() as stack:
        with _opened(kafka) as source:
            if not dry_run:  # opened first: from then on no other replay can commit, so the receipts are complete
                replay = DeadLetterReplay(
                    **reach(kafka),
                    dead_letter_topic=kafka.dead_letters_to,
                    partitions=source.log.identity(kafka.topic).partitions,
                    max_message_bytes=settings.decode.max_message_bytes,
                    timeout_s=_TIMEOUT_S,
                )
                stack.callback(replay.close)
            deque(past.dead_letters(read_whole(source)), maxlen=0)
        with _opened(kafka) as source, shown() as bar:
            dead_letters = filter(choice.fits, ReplaysSoFar().dead_letters(read_whole(source)))
            return resend(dead_letters, kafka.topic, set() if again else past.sent, max_replays, replay, bar.advance)


@contextmanager
def _opened(kafka: KafkaSettings) -> Iterator[KafkaSource]:
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
