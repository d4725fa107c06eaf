"""The options of `adawise dlq list`, `dlq show` and `dlq replay`, for messages that could not be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import READING, Command, json_flag
from adawise.errors import Reason
from adawise.settings.group import FilePath, Text
from adawise.settings.moments import MOMENT_SCHEMA, Moment

_LETTER = re.compile(r"(\d{1,10})/(\d{1,19})", re.ASCII)
_LETTER_EXPECTED = "partition/offset, such as 0/17 in `adawise dlq list`"


def _checked_letter(value: str) -> str:
    if not _LETTER.fullmatch(value):
        raise ValueError("it is not")
    return value


def _checked_reason(value: str) -> str:
    if value not in [*map(str, Reason)]:
        raise ValueError("there is no such reason")
    return value


_LETTERS: tuple[str, ...] = (*READING, "kafka.dead_letter_topic", "log")


class LettersCommand(Command):
    """The options by which `dlq list` and `dlq replay` choose dead letters."""

    groups = _LETTERS

    reason: Annotated[str, AfterValidator(_checked_reason)] | None = Field(
        default=None,
        description="only dead letters with this reason",
        json_schema_extra={"metavar": "REASON", "expected": "one of " + ", ".join(map(str, Reason))},
    )
    since: Moment | None = Field(
        default=None, description="only messages from this time on", json_schema_extra=MOMENT_SCHEMA
    )
    stream: Text | None = Field(default=None, description="only dead letters of this stream (camera), by key or header")


class DlqListCommand(LettersCommand):
    """List the messages that could not be read: time, reason, origin, stream, size, and whether they were sent back.

    They are in the dead-letter topic (kafka.dead_letter_topic, else the topic's name with .dlq). Single bad images of
    an Arrow batch are not among them: they are rows of the output with offset, index and reason, since sending their
    message back would repeat its good images.
    """

    name = "dlq list"
    runs = "adawise.cli.dlq.run:list_letters"
    examples = (
        ("list the newest ones", "dlq list"),
        ("list one camera's of the last 12 hours, as JSON", "dlq list --stream yard --since 12h --json"),
    )

    limit: int = Field(default=1_000, ge=1, le=1_000_000, description="most dead letters to list, the newest ones")
    as_json: CliToggleFlag[bool] = json_flag("print the dead letters as JSON")


class DlqShowCommand(Command):
    """Show one message that could not be read: its origin, reason, headers and first bytes."""

    name = "dlq show"
    runs = "adawise.cli.dlq.run:show_letter"
    groups = _LETTERS
    examples = (("save the original bytes to a file", "dlq show 0/17 --save broken.jpg"),)

    letter: CliPositionalArg[Annotated[str, AfterValidator(_checked_letter)]] = Field(
        description="the dead letter to show", json_schema_extra={"expected": _LETTER_EXPECTED}
    )
    save: FilePath | None = Field(default=None, description="new file for the original bytes")


class DlqReplayCommand(LettersCommand):
    """Send messages that could not be read back to their topic, unchanged, after the cause was fixed.

    Each message is sent once, however many dead letters it has: those sent back before are left out, also after an
    interrupted replay (needs a broker with transactions). They get the headers dlq.replays and dlq.origin. Existing
    rows of the output do not change.
    """

    name = "dlq replay"
    runs = "adawise.cli.dlq.run:replay_letters"
    groups = (*_LETTERS, "decode.max_message_bytes")
    examples = (
        ("count what would be sent", "dlq replay --reason too_large --since 7d --dry-run"),
        ("send one dead letter back", "dlq replay --letter 0/17"),
    )

    letter: Annotated[str, AfterValidator(_checked_letter)] | None = Field(
        default=None,
        description="only this dead letter",
        json_schema_extra={"metavar": "LETTER", "expected": _LETTER_EXPECTED},
    )
    every: CliToggleFlag[bool] = Field(
        default=False,
        validation_alias=AliasChoices("all"),
        description="all dead letters, in place of the options that choose some",
    )
    again: CliToggleFlag[bool] = Field(default=False, description="include messages that were sent back before")
    max_replays: int = Field(
        default=3, ge=1, le=999_999, description="leave out messages that were sent back this often and rejected again"
    )
    dry_run: CliToggleFlag[bool] = Field(default=False, description="print how many would be sent, and send nothing")

    @classmethod
    @override
    def problems(cls, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield a mistake unless either some dead letters are chosen, or all of them."""
        chosen = sorted({"reason", "since", "stream", "letter"} & set(options))
        if not chosen and "all" not in options:
            yield "all", "expected --reason, --since, --stream or --letter to choose some, or --all"
        if chosen and "all" in options:
            yield "all", f"--{chosen[0]} chooses some; leave one of them out"
