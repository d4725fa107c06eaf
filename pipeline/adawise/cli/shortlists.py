"""The command `shortlists`, which proposes the classes that each camera can show."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import LABEL_WITHIN, LABELS, Command, json_flag, optional
from adawise.settings.group import Location
from adawise.settings.moments import MOMENT_SCHEMA, Moment
from adawise.settings.recording import distinct_names

if TYPE_CHECKING:
    from adawise.labels.join import Labels
    from adawise.labels.proposal import Proposal

_NAMED = 5  # classes that are left out
_NAMED_IN_JSON = 20


class ShortlistsCommand(Command):
    """Propose a shortlist for each camera: the classes that it can show, from what was predicted and labelled.

    It prints a [[scene.shortlists]] table for each camera, to be edited and put into adawise.toml. A class is listed if
    it was predicted often and with confidence, or if it is the label of an image and one of model.classes (without
    these: a class that was predicted). Images that were served under a shortlist are no evidence. A camera that shows
    very many classes gets the reason in place of a table. Read the tables before they are used: what is not on a
    shortlist can no longer be predicted. It changes nothing. Needs the extra `report` (pip install 'adawise[report]').
    """

    name = "shortlists"
    groups = ("model.classes", "log")
    examples = (
        ("propose a shortlist for each camera, from all that was served", "shortlists runs/yard"),
        ("propose those of two cameras, from the last 28 days", "shortlists runs/yard --streams gate,hall --since 28d"),
        ("list what labels name, too", "shortlists runs/yard --labels labels.csv"),
        ("print JSON for another program", "shortlists s3://bucket/yard --json"),
    )

    root: CliPositionalArg[Location] = Field(description="output folder or s3://BUCKET/PREFIX of a worker")
    streams: Annotated[str, AfterValidator(distinct_names)] | None = Field(
        default=None,
        description="only these streams; none: all",
        json_schema_extra={"metavar": "A,B", "expected": "names separated by commas, each once"},
    )
    since: Moment | None = optional("only images from this time on", **MOMENT_SCHEMA)
    until: Moment | None = optional("only images before this time", **MOMENT_SCHEMA)
    labels: Location | None = LABELS
    label_within: float = LABEL_WITHIN
    as_json: CliToggleFlag[bool] = json_flag("print what was found as JSON")

    @classmethod
    @override
    def uses(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Return the log's group alone: no model is loaded; its classes only say which names can be listed."""
        return frozenset({"log"})

    @override
    def call(self) -> int:
        """Print a table for each camera, or the reason why there is none. Return 0."""
        from adawise.app.prompts import read_lines
        from adawise.console import print_json, print_text
        from adawise.output.near import expect_outputs
        from adawise.settings.scene import MOST_SHORTLISTS
        from adawise.text import separated

        expect_outputs([self.root])
        file = self.settings.model.classes
        known = None if file is None else read_lines(file, "model.classes", "class name")
        from adawise.labels.proposal import Proposal, open_evidence

        opened = open_evidence(
            self.root,
            separated(self.streams),
            self.since,
            self.until,
            labels=self.labels,
            label_within_us=round(self.label_within * 1e6),
            classes=known,
        )
        with opened as found:
            proposals = (Proposal.of(camera, known) for camera in found.cameras)
            if self.as_json:
                document = _document(self.root, found.labels, proposals)
                print_json(document)
                tables = len(document["shortlists"])
            else:
                print_text("\n".join(map(_encodable, self._head(found.labels, known))))
                tables, is_empty = 0, True
                for each in proposals:
                    print_text("\n".join(map(_encodable, ["", *_block(each)])))
                    tables, is_empty = tables + (not each.problem), False
                if is_empty:
                    print_text(f"# there are no accepted images{self._of_this_time}")
        if tables > MOST_SHORTLISTS:
            print_text(
                f"these are {tables:,} shortlists, and scene.shortlists takes {MOST_SHORTLISTS:,}: replace the tables "
                "of some cameras by one with a pattern that matches them all, or choose cameras by --streams",
                sys.stderr,
            )
        return 0

    @property
    def _of_this_time(self) -> str:
        return " of this time; correct --since or --until" if self.since or self.until else ""

    def _head(self, labels: Labels, known: Collection[str] | None) -> Iterator[str]:
        from adawise.labels.join import NO_LABELS
        from adawise.text import counted

        yield f"# Proposed from {_quoted(self.root)} by `adawise shortlists`. Edit it before it is used: what is not on"
        yield "# a shortlist can no longer be predicted (docs/guide/scene.md)."
        if labels.labelled:
            listed = "their classes are listed" if known is None else "those of model.classes are listed"
            yield f"# {counted(labels.labelled, 'label')} of {_quoted(labels.source)}: {listed}."
        if labels.notes != (NO_LABELS,):
            yield from (f"# {line}" for line in "\n".join(labels.notes).splitlines())


def _document(root: str, labels: Labels, proposals: Iterable[Proposal]) -> dict[str, Any]:
    cameras, shortlists = [], []
    for each in proposals:
        camera = each.camera
        cameras.append(
            {
                "stream_id": camera.stream_id,
                "images": camera.images,
                "batches": camera.batches,
                "first": camera.first,
                "last": camera.last,
                "confidence": camera.confidence,
                "under_shortlist": camera.listed,
                "problem": each.problem or None,
                "classes": [
                    {
                        "class": seen.name,
                        "images": seen.images,
                        "weight": round(seen.weight, 3),
                        "labelled": seen.labelled,
                        "listed": is_listed,
                    }
                    for is_listed, some in ((True, each.classes), (False, each.left_out[:_NAMED_IN_JSON]))
                    for seen in some
                ],
                "more_classes": max(len(each.left_out) - _NAMED_IN_JSON, 0),
            }
        )
        if not each.problem:
            shortlists.append({"streams": each.pattern, "classes": [one.name for one in each.classes]})
    found = {"source": labels.source, "labelled": labels.labelled, "notes": labels.notes}
    return {"root": root, "labels": found, "shortlists": shortlists, "cameras": cameras}


def _block(each: Proposal) -> Iterator[str]:
    from adawise.text import counted, some

    camera = each.camera
    if each.problem:
        yield f"# {_quoted(camera.stream_id)}: {each.problem}"
        return
    period = f", {_time(camera.first)} to {_time(camera.last)}" if camera.first and camera.last else ""
    yield f"# {counted(camera.images, 'image')} in {counted(camera.batches, 'batch', 'batches')}{period}"
    if each.left_out:
        share = sum(seen.images for seen in each.left_out) / camera.images
        named = some([f"{_quoted(seen.name)} ({seen.images:,})" for seen in each.left_out], _NAMED)
        yield f"# left out: {share:.1%} of these images, served as {named}"
    if camera.listed:
        yield f"# no evidence: {counted(camera.listed, 'image')} that a shortlist served"
    yield "[[scene.shortlists]]"
    yield f"streams = {_quoted(each.pattern)}"
    yield "classes = ["
    for seen in each.classes:
        labelled = f", {counted(seen.labelled, 'label')}" if seen.labelled else ""
        yield f"    {_quoted(seen.name)},  # {counted(seen.images, 'image')}{labelled}"
    yield "]"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _quoted(text: str) -> str:
    """Return a string of TOML, on one line, whose characters are all printable."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return f"\\{character}"
    return character if character.isprintable() else _by_number(character)


def _encodable(line: str) -> str:
    """Return a line of TOML, in ASCII if the standard output is not UTF-8: a file in another encoding is not TOML."""
    if codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8":  # None: of text in memory
        return line
    return "".join(each if each.isascii() else _by_number(each) for each in line)


def _by_number(character: str) -> str:
    return f"\\u{ord(character):04X}" if ord(character) <= 0xFFFF else f"\\U{ord(character):08X}"
