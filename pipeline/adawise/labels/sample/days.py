"""The folder of a sample: one CSV a day, which people fill in; it is written once and read strictly.

A row is an image. People write into the column `label`; all else is the draw's, and a file in which that was changed is
refused. What was served is there only as a digest, so that people who label an image do not see it.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from adawise.errors import SettingsError
from adawise.store.files import read_bytes

MOST_DAYS = 4_000
"""The most files of a folder that are read."""

_EPOCH = date(1970, 1, 1)
_NAME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})\.csv")
_ROW_ID = re.compile(r"[^/]{1,249}/[0-9]{1,9}/[0-9]{1,18}/[0-9]{1,9}")
_DIGEST = 16  # hexadecimal digits
_LONGEST = 1_024  # characters of a text
_MOST_GROUPS = 100_000
_EXACT = 1e-9


@dataclass(frozen=True, slots=True)
class SampledImage:
    """A row of a file: the image that was drawn of a group of batches of its camera's day.

    `probability` is that of the image among the `group_images` of its group, whose mean confidence is
    `group_confidence`; `images` and `mean_confidence` are of the whole day, which has that many `groups`.
    `floor` is the least probability, beside that of a uniform draw, that the design gives an image. `served` is the
    digest of the row id and the served label, `check` that of all columns but `label`.
    """

    row_id: str
    stream_id: str
    captured_at: str
    label: str
    probability: float
    confidence: float
    group: int
    group_images: int
    group_confidence: float
    groups: int
    images: int
    mean_confidence: float
    floor: float
    design: str
    seed: int
    served: str
    check: str = ""

    @property
    def ratio(self) -> float:
        """Probability beside that of a uniform draw of the group."""
        return self.probability * self.group_images

    @property
    def is_right(self) -> bool | None:
        """True if the label is the one that was served; None without a label."""
        return digest(self.row_id, self.label) == self.served if self.label else None


_COLUMNS = tuple(each.name for each in fields(SampledImage))
_WHOLE = ("group", "group_images", "groups", "images", "seed")
_NUMBERS = ("probability", "confidence", "group_confidence", "mean_confidence", "floor")


def digest(*values: object) -> str:
    """Return 16 hexadecimal digits of the values, each as text."""
    joined = "\x1f".join(map(str, values))
    return sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]


def is_sample(labels: str) -> bool:
    """Return whether labels are the folder of a sample, which `adawise sample` drew, and not a file."""
    return "://" not in labels and Path(labels).is_dir()


def day_of(path: Path) -> int | None:
    """Return the day of a file by its name, in days since 1970; None if it is no file of a sample."""
    found = _NAME.fullmatch(path.name)
    try:
        return None if found is None else (date.fromisoformat(found[1]) - _EPOCH).days
    except ValueError:
        return None


def path_of(folder: Path, day: int) -> Path:
    """Return the file of a day."""
    return folder / f"{_EPOCH + timedelta(days=day)}.csv"


def write_day(folder: Path, day: int, images: Iterable[SampledImage]) -> Path:
    """Publish the file of a day; one that is there already is never replaced.

    Raises:
        SettingsError: it is there, or cannot be written.
    """
    path, text = path_of(folder, day), io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    rows.writerows((*astuple(each)[:-1], _check(each)) for each in images)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", encoding="utf-8", newline="", dir=folder, suffix=".partial", delete=False) as file:
            try:
                file.write(text.getvalue())
                file.flush()
                os.fsync(file.fileno())
                os.link(file.name, path)  # fails where the file is there, which a rename does not
            finally:
                os.unlink(file.name)
    except FileExistsError as error:
        raise SettingsError(f"{path}: this day was drawn already, and is not drawn again") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror or error}; correct -o") from error
    return path


def read_days(folder: Path) -> dict[int, list[SampledImage]]:
    """Return the images of each day of a folder, by day since 1970.

    Raises:
        SettingsError: there is no file of a sample, or one is not as it was drawn; names file, row and remedy.
    """
    try:
        named = sorted((day, path) for path in folder.iterdir() if (day := day_of(path)) is not None)
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be read: {error.strerror or error}; correct --labels") from error
    if not named or len(named) > MOST_DAYS:
        raise SettingsError(
            f"{folder}: expected 1 to {MOST_DAYS} files such as 2026-06-01.csv of `adawise sample`, but found "
            f"{len(named)}; correct --labels"
        )
    return {day: _read(path) for day, path in named}


def _read(path: Path) -> list[SampledImage]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path}: expected a CSV file in UTF-8, but: {error}; save it as such") from error
    if not lines or tuple(lines[0]) != _COLUMNS:
        raise SettingsError(f"{path}: expected the columns {', '.join(_COLUMNS)}, in this order; restore the file")
    found = [_image(path, number, cells) for number, cells in enumerate(lines[1:], start=2) if cells]
    by_camera: dict[str, list[SampledImage]] = {}
    for each in found:
        by_camera.setdefault(each.stream_id, []).append(each)
    for name, rows in by_camera.items():
        if sorted(each.group for each in rows) != [*range(rows[0].groups)]:
            raise SettingsError(
                f"{path}: expected {rows[0].groups} rows of {name!r}, one for each group, but found {len(rows)}; "
                "put back the rows that were removed, and remove copies: an image that cannot be labelled keeps its "
                "row, with an empty label"
            )
        if len({(each.groups, each.images, each.mean_confidence, each.floor) for each in rows}) > 1:
            raise SettingsError(f"{path}: rows of {name!r} are of two draws; restore the file")
    return found


def _image(path: Path, number: int, cells: Sequence[str]) -> SampledImage:
    if len(cells) != len(_COLUMNS):
        raise SettingsError(f"{path}, line {number}: expected {len(_COLUMNS)} cells, got {len(cells)}; restore the row")
    values: dict[str, str | int | float] = dict(zip(_COLUMNS, cells, strict=True))
    values["label"] = str(values["label"]).strip()
    try:
        whole, numbers = {name: int(values[name]) for name in _WHOLE}, {name: float(values[name]) for name in _NUMBERS}
    except ValueError as error:
        raise SettingsError(
            f"{path}, line {number}: expected numbers as they were drawn, but: {error}; restore it"
        ) from error
    image = SampledImage(**(values | whole | numbers))  # type: ignore[arg-type]
    if image.check != _check(image) or not _is_possible(image):
        raise SettingsError(
            f"{path}, line {number}: expected all columns but label as they were drawn, but they were changed (a "
            "spreadsheet may write numbers and times its own way: import every column as text); restore the row"
        )
    return image


def _is_possible(of: SampledImage) -> bool:
    """Return whether numbers are in their ranges: the check shows what was changed, not what was made up."""
    texts = all(len(each) <= _LONGEST for each in (of.row_id, of.stream_id, of.label, of.design))
    shares = (of.confidence, of.group_confidence, of.mean_confidence)
    return (
        texts
        and _ROW_ID.fullmatch(of.row_id) is not None
        and 0 <= of.group < of.groups <= _MOST_GROUPS
        and 1 <= of.group_images <= of.images
        and of.group_images * of.groups <= 2 * of.images
        and 0.0 < of.floor <= 1.0
        and of.floor - _EXACT <= of.ratio <= of.group_images + _EXACT
        and all(0.0 <= share <= 1.0 for share in shares)
    )


def _check(of: SampledImage) -> str:
    return digest(*(getattr(of, name) for name in _COLUMNS if name not in {"label", "check"}))


def as_time(us: int) -> str:
    """Return a time, microseconds since 1970, as files have it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
