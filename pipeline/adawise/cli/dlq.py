"""The commands `dlq list`, `dlq show` and `dlq replay`, for messages that could not be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, AliasChoices, Field, JsonValue
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import READING, Command, json_flag, optional
from adawise.console import paper, print_json, print_text, progress
from adawise.errors import Reason
from adawise.settings.group import FilePath, Text
from adawise.settings.moments import MOMENT_SCHEMA, Moment, milliseconds

if TYPE_CHECKING:
    from adawise.publish.dead_letters.reading import DeadLetterFilter

_PLACE = re.compile(r"(\d{1,10})/(\d{1,19})", re.ASCII)
_PLACE_SCHEMA: dict[str, JsonValue] = {"expected": "partition/offset, such as 0/17 in `adawise dlq list`"}


def _checked_place(value: str) -> str:
    if (match := _PLACE.fullmatch(value)) is None:
        raise ValueError("it is not")
    return f"{int(match[1])}/{int(match[2])}"


def _checked_reason(value: str) -> str:
    if value not in [*map(str, Reason)]:
        raise ValueError("there is no such reason")
    return value


Place = Annotated[str, AfterValidator(_checked_place)]


class DeadLetterCommand(Command):
    """The options by which `dlq list` and `dlq replay` choose dead letters."""

    groups: ClassVar[tuple[str, ...]] = (*READING, "kafka.dead_letter_topic", "log")

    reason: Annotated[str, AfterValidator(_checked_reason)] | None = optional(
        "only dead letters with this reason", metavar="REASON", expected="one of " + ", ".join(map(str, Reason))
    )
    since: Moment | None = optional("only messages from this time on", **MOMENT_SCHEMA)
    stream: Text | None = optional("only dead letters of this stream (camera), by key or header")

    def choice(self, place: str | None = None) -> DeadLetterFilter:
        """Return the criteria for dead letters."""
        from adawise.publish.dead_letters.reading import DeadLetterFilter

        return DeadLetterFilter(
            self.reason, None if self.since is None else milliseconds(self.since), self.stream, place
        )


class DlqListCommand(DeadLetterCommand):
    """List the messages that could not be read: time, reason, origin, stream, size, and whether they were sent back.

    They are in the dead-letter topic (kafka.dead_letter_topic, else the topic's name with .dlq). Single bad images of
    an Arrow batch are not among them: they are rows of the output with offset, index and reason, since sending their
    message back would repeat its good images.
    """

    name = "dlq list"
    examples = (
        ("list the newest ones", "dlq list"),
        ("list one camera's of the last 12 hours, as JSON", "dlq list --stream yard --since 12h --json"),
    )

    limit: int = Field(default=1_000, ge=1, le=1_000_000, description="most dead letters to list, the newest ones")
    as_json: CliToggleFlag[bool] = json_flag("print the dead letters as JSON")

    @override
    def call(self) -> int:
        """Print the newest dead letters that match, and return 0. Their values are not kept in memory."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Column, Table
        from rich.text import Text as Cell

        from adawise.app.dead_letters import newest_dead_letters
        from adawise.publish.dead_letters import text

        found, older = newest_dead_letters(self.settings.kafka, self.choice(), self.limit)
        if self.as_json:
            print_json([text.as_json(dead_letter, replayed=replayed) for dead_letter, replayed in found])
            return 0
        columns = [Column(name, overflow="fold") for name in text.COLUMNS]
        table = Table(*columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for dead_letter, replayed in found:
            table.add_row(*map(Cell, text.cells(dead_letter, replayed=replayed)))
        if found:
            paper().print(table)
        print(text.summary([dead_letter for dead_letter, _ in found], older))
        return 0


class DlqShowCommand(Command):
    """Show one message that could not be read: its origin, reason, headers and first bytes."""

    name = "dlq show"
    groups = DeadLetterCommand.groups
    examples = (("save the original bytes to a file", "dlq show 0/17 --save broken.jpg"),)

    letter: CliPositionalArg[Place] = Field(description="the dead letter to show", json_schema_extra=_PLACE_SCHEMA)
    save: FilePath | None = Field(default=None, description="new file for the original bytes")

    @override
    def call(self) -> int:
        """Print one dead letter, and with --save write the original bytes to a new file. Return 0."""
        from adawise.app.dead_letters import find_dead_letter, save_original
        from adawise.publish.dead_letters.text import details

        dead_letter, replayed = find_dead_letter(self.settings.kafka, self.letter)
        print(details(dead_letter, replayed=replayed))
        if self.save is not None:
            save_original(dead_letter, self.save)
            print_text(f"{dead_letter.size_bytes} bytes written to {self.save}")
        return 0


class DlqReplayCommand(DeadLetterCommand):
    """Send messages that could not be read back to their topic, unchanged, after the cause was fixed.

    Each message is sent once, however many dead letters it has: those sent back before are left out, also after an
    interrupted replay (needs a broker with transactions). They get the headers dlq.replays and dlq.origin. Existing
    rows of the output do not change.
    """

    name = "dlq replay"
    groups = (*DeadLetterCommand.groups, "decode.max_message_bytes")
    examples = (
        ("count what would be sent", "dlq replay --reason too_large --since 7d --dry-run"),
        ("send one dead letter back", "dlq replay --letter 0/17"),
    )

    letter: Place | None = optional("only this dead letter", metavar="LETTER", **_PLACE_SCHEMA)
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

    @override
    def call(self) -> int:
        """Send the messages of the dead letters that match back to their topic, print how many, and return 0."""
        from adawise.app.dead_letters import send_back
        from adawise.publish.dead_letters.text import sent

        counted = send_back(
            self.settings,
            self.choice(self.letter),
            again=self.again,
            max_replays=self.max_replays,
            dry_run=self.dry_run,
            shown=lambda: progress("replayed", unit="messages"),
        )
        print_text("\n".join(sent(counted, self.settings.kafka.topic, dry_run=self.dry_run)))
        return 0
