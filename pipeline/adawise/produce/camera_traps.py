"""A site of camera traps in the format COCO Camera Traps: its images as the cameras took them. For producers.

The document has lists `images`, `annotations` and `categories`. An image names its file, its camera (`location`) and
its time, an annotation the category of an image. Data sets carry many other fields, which are ignored.
https://lila.science/coco-camera-traps
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError

from adawise.decode.headers import MAX_TEXT_BYTES, check_stream_id, parse_timestamp
from adawise.errors import InvalidMessage, SettingsError
from adawise.produce.files import ImageFile
from adawise.produce.json_lists import read_lists
from adawise.store.documents import Document, Line
from adawise.store.files import open_regular
from adawise.text import counted, near_match, some

MOST_BYTES = 1 << 33
"""Most bytes of a document. An image with its annotation has some 500 bytes."""

MOST_ENTRIES = 10_000_000
"""Most images, annotated images or categories of a document. Ten million images take some six gigabytes of memory."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IDS_OF_ONE_IMAGE = 8  # categories, from which on it has no label, whatever their names
_TIME = re.compile(
    r"(\d{4})[-:](\d{2})[-:](\d{2})[Tt ](\d{2}:\d{2})(:\d{2})?(\.\d{1,20})?(?:[Zz]|([+-]\d{2})(?::?(\d{2}))?)?",
    re.ASCII,
)


def _as_whole(value: object) -> object:
    """Return a number such as 1.0, as tables write whole numbers, as an int."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Whole = Annotated[int, Field(gt=-(1 << 63), lt=1 << 63), BeforeValidator(_as_whole)]
_Id = Line | _Whole


class _Category(Document):
    id: _Id
    name: Annotated[Line, StringConstraints(strip_whitespace=True, min_length=1)]


class _Image(Document):
    id: _Id
    file_name: Line
    location: _Id | None = None
    datetime: Line | None = None
    date_captured: Line | None = None
    seq_id: _Id | None = None
    frame_num: _Whole | None = None


class _Annotation(Document):
    image_id: _Id
    category_id: _Id


_SPLIT = "Split it into several documents"
_FAULTS = {
    "missing": "it is not there",
    "model_type": "expected an object",
    "string_pattern_mismatch": "expected text of one line",
}
_KINDS = {"images": _Image, "annotations": _Annotation, "categories": _Category}


class _Taken(NamedTuple):
    """An image; the order of the fields is the order of sending."""

    captured_at_us: int
    location: str
    seq_id: str
    frame_num: int
    file_name: str
    label: str  # "": none


@dataclass(frozen=True)
class TrapSite:
    """The images that can be sent, by time, then location, sequence, frame and file.

    Args:
        folder: the folder of the files.
        taken: the images in this order.
        locations: the cameras, sorted; only those that were asked for.
        categories: how many the document lists.
        several: images without a label, since their annotations name several categories.
        unlabelled: images without a label, since they have no annotation.
        foreign: images that annotations name and the document does not list.
        left_out: the reason for each image that was left out, by its file's name, unless the file is sent, too.
        images_left_out: how many images were left out.
    """

    folder: Path
    taken: tuple[_Taken, ...] = field(repr=False)
    locations: tuple[str, ...]
    categories: int
    several: int
    unlabelled: int
    foreign: int
    left_out: dict[str, str] = field(repr=False)
    images_left_out: int

    def __len__(self) -> int:
        return len(self.taken)

    def __iter__(self) -> Iterator[ImageFile]:
        for each in self.taken:
            yield self._file(each)

    def summary(self) -> str:
        """Return what the site has, and which of its images have no label, in one sentence."""
        cameras = counted(len(self.locations), "camera")
        what = f"{counted(len(self), 'image')} of {cameras}, {counted(self.categories, 'category', 'categories')}"
        if self.taken:
            first, last = (_EPOCH + timedelta(microseconds=self.taken[i].captured_at_us) for i in (0, -1))
            what += f", from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
        counts = {
            "without a label, of several categories": self.several,
            "without a label, of no category": self.unlabelled,
            "left out": self.images_left_out,
            "annotated but not listed": self.foreign,
        }
        return "; ".join([what, *(f"{count:,} {which}" for which, count in counts.items() if count)])

    def _file(self, each: _Taken) -> ImageFile:
        path = self.folder / each.file_name
        return ImageFile(path, each.file_name, each.label or None, each.location, each.captured_at_us)


def read_site(document: Path, folder: Path, locations: Collection[str] | None = None) -> TrapSite:
    """Read a document.

    Memory is some 600 bytes an image with an id and a file name of ordinary length.

    Args:
        document: in the format COCO Camera Traps.
        folder: what the names of files are relative to.
        locations: the cameras that are wanted; None: all.

    Raises:
        SettingsError: one of the two cannot be read, the document is damaged or leaves the folder, or a location cannot
            be the name of a camera or is not there.
    """
    if not folder.is_dir():  # it may be an address with a password, and is not shown
        raise SettingsError(f"SOURCE is no folder. Name the folder of the images of {document}.")
    reading = _Reading(document, None if locations is None else frozenset(locations))
    try:
        size = document.stat().st_size
        if size > MOST_BYTES:
            raise reading.damaged(f"it has {size:,} bytes, and at most {MOST_BYTES:,} are read", _SPLIT)
        with open_regular(document) as file:
            for name, number, value in read_lists(file, _KINDS):
                reading.add(name, number, value)
    except OSError as error:
        raise SettingsError(f"could not read {document}: {error.strerror or error}. Correct the path.") from error
    except ValueError as error:
        raise reading.damaged(str(error)) from error
    return reading.site(folder)


_Kind = TypeVar("_Kind", bound=Document)


class _Reading:
    """A document as far as it was read; its lists may come in any order."""

    def __init__(self, document: Path, wanted: frozenset[str] | None) -> None:
        self._document, self._wanted = document, wanted
        self._names: dict[str | int, str] = {}
        self._images: dict[str | int, _Taken | None] = {}
        self._labels: dict[str | int, tuple[str | int, ...]] = {}  # the categories of each image that is annotated
        self._alone: dict[str | int, tuple[str | int, ...]] = {}  # the tuple of one category, shared by its images
        self._locations: dict[str, str | int] = {}
        self._checked = set[str]()  # locations that can be names of streams
        self._left_out: dict[str, str] = {}
        self._images_left_out = 0

    def damaged(self, why: str, remedy: str = "Correct the document") -> SettingsError:
        """Return the error for a document that cannot be understood or is too large."""
        expected = "expected a document in the format COCO Camera Traps"
        return SettingsError(f"{self._document}: {expected}: {why}. {remedy}.")

    def add(self, name: str, number: int, value: object) -> None:
        """Add an entry of a list. Raises SettingsError: it is damaged."""
        where = f"entry {number:,} of {name}"
        if name == "images":
            self._add_image(where, self._parsed(_Image, where, value))
        elif name == "annotations":
            self._add_annotation(self._parsed(_Annotation, where, value))
        else:
            category = self._parsed(_Category, where, value)
            if category.id in self._names:
                raise self.damaged(f"{where}: the id {category.id!r:.60} is there twice")
            if len(category.name.encode()) > MAX_TEXT_BYTES:
                raise self.damaged(f"{where}: a name has at most {MAX_TEXT_BYTES:,} bytes")
            self._names[category.id] = category.name
        if max(len(self._images), len(self._labels), len(self._names)) > MOST_ENTRIES:
            raise self.damaged(f"{where}: at most {MOST_ENTRIES:,} entries can be read", _SPLIT)

    def _add_annotation(self, annotation: _Annotation) -> None:
        ids, category_id = self._labels.get(annotation.image_id), annotation.category_id
        if ids is None:
            self._labels[annotation.image_id] = self._alone.setdefault(category_id, (category_id,))
        elif category_id not in ids and len(ids) < _IDS_OF_ONE_IMAGE:
            self._labels[annotation.image_id] = (*ids, category_id)

    def _parsed(self, kind: type[_Kind], where: str, value: object) -> _Kind:
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = "".join(f", {part}" for part in first["loc"][:1])
            expected = "expected text of one line or a whole number"  # what a union of two reports in two errors
            why = expected if len(first["loc"]) > 1 else _FAULTS.get(first["type"]) or first["msg"]
            raise self.damaged(f"{where}{place}: {why[:1].lower()}{why[1:]}") from None

    def _add_image(self, where: str, image: _Image) -> None:
        if image.id in self._images:
            raise self.damaged(f"{where}: the id {image.id!r:.60} is there twice")
        self._images[image.id] = None
        if image.file_name.startswith("/") or ".." in image.file_name.split("/"):
            raise SettingsError(
                f"{self._document}: {where}: the file_name {image.file_name[:120]!r} leaves the folder of the images. "
                "Names are relative to that folder; correct them."
            )
        if image.location is None or image.location == "":
            self._leave_out(image, "no location")
            return
        location = self._camera(where, image.location)
        if self._wanted is not None and location not in self._wanted:
            return
        texts = [text for text in (image.datetime, image.date_captured) if text]
        captured_at_us = next((at for text in texts if (at := time_of(text)) is not None), None)
        if captured_at_us is None:
            self._leave_out(image, f"its datetime is {texts[0][:60]!r}" if texts else "no datetime")
            return
        seq_id = "" if image.seq_id is None else sys.intern(str(image.seq_id))
        frame_num = -1 if image.frame_num is None else image.frame_num
        self._images[image.id] = _Taken(captured_at_us, location, seq_id, frame_num, image.file_name, "")

    def _leave_out(self, image: _Image, why: str) -> None:
        self._images_left_out += 1
        self._left_out[image.file_name] = why

    def _camera(self, where: str, location: str | int) -> str:
        """Return a location as the name of a stream: one object for all of its images."""
        text = sys.intern(str(location))
        if self._locations.setdefault(text, location) != location:
            raise self.damaged(f"{where}: the location {text[:60]!r} is there as a number and as text")
        if text not in self._checked and (self._wanted is None or text in self._wanted):
            try:
                check_stream_id(text.encode())
            except InvalidMessage as invalid:
                raise SettingsError(
                    f"{self._document}: {where}: the location {text[:60]!r} cannot be the name of a camera "
                    f"({invalid.detail}). Rename it in the document, or choose others by --locations."
                ) from invalid
            self._checked.add(text)
        return text

    def site(self, folder: Path) -> TrapSite:
        """Return the site. What was read is used up."""
        if not self._images:
            raise self.damaged("it lists no images")
        for name in sorted(self._wanted or ()):
            if name not in self._locations:
                near = near_match(name, self._locations)
                known = some(sorted(self._locations)) if near is None else near
                raise SettingsError(
                    f"{self._document} has no location {name!r}. Name some of its "
                    f"{len(self._locations):,} by --locations, such as {known}."
                )
        taken, several, unlabelled = list[_Taken](), 0, 0
        while self._images:
            id_, image = self._images.popitem()
            ids = self._labels.pop(id_, ())
            names = {self._name(category_id) for category_id in ids}
            if image is None:
                continue
            is_sure = len(names) == 1 and len(ids) < _IDS_OF_ONE_IMAGE
            several += bool(ids) and not is_sure
            unlabelled += not ids
            taken.append(image._replace(label=names.pop()) if is_sure else image)
            self._left_out.pop(image.file_name, None)
        return TrapSite(
            folder,
            tuple(sorted(taken)),
            tuple(sorted({each.location for each in taken})),
            len(self._names),
            several,
            unlabelled,
            len(self._labels),
            self._left_out,
            self._images_left_out,
        )

    def _name(self, category_id: str | int) -> str:
        if category_id not in self._names:
            raise self.damaged(f"annotations name the category_id {category_id!r:.60}, which no category has")
        return self._names[category_id]


def time_of(text: str) -> int | None:
    """Return when an image was taken, in microseconds since the epoch; None if the text is no time from 1970 to 2199.

    A time without an offset is read as UTC, as data sets give a camera's own clock without its zone.

    Example:
        >>> time_of("2011-05-13 23:43:18")
        1305330198000000
        >>> time_of("2011-05-13 23:43:18") == time_of("2011-05-14T01:43:18.0+0200")
        True
        >>> time_of("0000-00-00 00:00:00") is None
        True
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, minutes, seconds, fraction, hours, rest = match.groups()
    offset = "Z" if hours is None else f"{hours}:{rest or '00'}"
    stated = f"{year}-{month}-{day}T{minutes}{seconds or ':00'}{fraction or ''}{offset}"
    try:
        return parse_timestamp(stated.encode())
    except InvalidMessage:
        return None
