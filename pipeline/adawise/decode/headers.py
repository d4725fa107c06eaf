"""What a message says about its images outside its value: whose they are, from when, of what type.

The key is the stream id. Of headers the last one of a name counts, and names are case-insensitive: `content-type`,
`stream-id`, `captured-at` (RFC 3339), `frame-id`, `label`, `meta-*`; of CloudEvents in binary mode
`ce_datacontenttype`, `ce_subject` or the last segment of `ce_source` (the stream), `ce_time`, `ce_id`. A header that
cannot be read matters only where it is needed; a time that is none costs the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from adawise.decode.arrow_batch import MAX_META, MAX_META_NAME, MAX_STREAM_ID_BYTES, MAX_TEXT_BYTES
from adawise.errors import InvalidMessage, Reason

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_US = (datetime(2200, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_RFC_3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}):(\d{2})(?:\.(\d{1,20}))?(?:[Zz]|([+-]\d{2}:\d{2}))", re.ASCII
)
_META = "meta-"
_SPELT = {name.replace("-", "_"): name for name in ("content-type", "stream-id", "captured-at", "frame-id")}


class MessageHeaders:
    """The key and the headers of one message, read when asked for."""

    def __init__(self, key: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> None:
        self._key = key
        self._headers = {name.lower(): value for name, value in headers if value}

    def content_type(self) -> str | None:
        """The media type, lower case and without parameters; None if the producer gave none that says anything."""
        text = self._text("content-type") or self._text("ce_datacontenttype") or ""
        return text.partition(";")[0].strip().lower().replace("application/octet-stream", "") or None

    def stated_stream_id(self) -> str | None:
        """The stream by key or `stream-id` header, which every row has to agree with.

        Raises:
            InvalidMessage: bad_stream_id, or stream_id_mismatch if the two differ.
        """
        header = self._headers.get("stream-id")
        if self._key and header and self._key != header:
            raise InvalidMessage(
                Reason.STREAM_ID_MISMATCH,
                f"expected the same stream in key and header, got {_show(self._key)} and {_show(header)}",
            )
        raw = self._key or header
        return check_stream_id(raw) if raw else None

    def fallback_stream_id(self) -> str | None:
        """The stream by CloudEvents attributes, for whoever states none. Raises InvalidMessage: bad_stream_id."""
        raw = self._headers.get("ce_subject") or (self._headers.get("ce_source") or b"").rstrip(b"/").split(b"/")[-1]
        return check_stream_id(raw) if raw else None

    def known_stream_id(self) -> str | None:
        """For a row that is rejected: the first of key, header and attributes that can be a stream id."""
        for raw in (self._key, self._headers.get("stream-id")):
            with suppress(InvalidMessage):
                if raw:
                    return check_stream_id(raw)
        with suppress(InvalidMessage):
            return self.fallback_stream_id()
        return None

    def misspelt(self) -> str | None:
        """What to tell the producer of a header that is not read because of an underscore in its name."""
        for name in self._headers:
            meant = _SPELT.get(name) or (name.replace("meta_", _META, 1) if name.startswith("meta_") else None)
            if meant is not None:
                return f"header {name[:MAX_META_NAME]!r}: it is not read, call it {meant[:MAX_META_NAME]!r}"
        return None

    def captured_at_us(self) -> int | None:
        """Microseconds since the epoch. Raises InvalidMessage: bad_timestamp."""
        raw = self._headers.get("captured-at") or self._headers.get("ce_time")
        return parse_timestamp(raw) if raw else None

    def frame_id(self) -> str | None:
        """What the producer calls this image."""
        return self._text("frame-id") or self._text("ce_id")

    def label(self) -> str | None:
        """The true class, where the producer knows it."""
        return self._text("label")

    def meta(self) -> Mapping[str, str]:
        """What is passed through, without the prefix."""
        names = [name for name in self._headers if name.startswith(_META) and len(name) <= MAX_META_NAME][:MAX_META]
        entries = {name.removeprefix(_META): self._text(name) for name in names}
        return {name: text for name, text in entries.items() if text is not None}

    def _text(self, name: str) -> str | None:
        raw = self._headers.get(name)
        if raw is None or len(raw) > MAX_TEXT_BYTES:
            return None
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return None


def check_stream_id(raw: bytes) -> str:
    """A stream id as it goes into outputs. Raises InvalidMessage: bad_stream_id."""
    if not 1 <= len(raw) <= MAX_STREAM_ID_BYTES:
        raise InvalidMessage(
            Reason.BAD_STREAM_ID, f"expected 1 to {MAX_STREAM_ID_BYTES} bytes of stream id, got {_show(raw)}"
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidMessage(Reason.BAD_STREAM_ID, f"expected UTF-8, got {_show(raw)}") from error
    if not text.isprintable() or text != text.strip():
        raise InvalidMessage(
            Reason.BAD_STREAM_ID, f"expected printable characters without spaces around them, got {_show(raw)}"
        )
    return text


def parse_timestamp(raw: bytes) -> int:
    """RFC 3339 -> microseconds since the epoch, cut (not rounded). Raises InvalidMessage: bad_timestamp."""
    match = _RFC_3339.fullmatch(raw[:64].decode("ascii", "replace").strip())
    if match is None:
        raise InvalidMessage(
            Reason.BAD_TIMESTAMP, f"expected RFC 3339 with an offset, as 2026-05-01T12:00:00.25Z, got {_show(raw)}"
        )
    date, minutes, seconds, fraction, offset = match.groups()
    leap = seconds == "60"  # allowed by the RFC, unknown to datetime
    try:
        moment = datetime.fromisoformat(f"{date}T{minutes}:{'59' if leap else seconds}{offset or '+00:00'}")
        whole_s = (moment - _EPOCH) // timedelta(seconds=1) + leap
    except (ValueError, OverflowError) as error:
        raise InvalidMessage(Reason.BAD_TIMESTAMP, f"expected a date that exists, got {_show(raw)}") from error
    return check_timestamp(whole_s * 1_000_000 + int((fraction or "")[:6].ljust(6, "0")))


def check_timestamp(captured_at_us: int) -> int:
    """The same number if it lies in 1970-2199. Raises InvalidMessage: bad_timestamp."""
    if not 0 <= captured_at_us < _LATEST_US:
        raise InvalidMessage(
            Reason.BAD_TIMESTAMP,
            f"expected a time from 1970 to 2199, got {captured_at_us} us since the epoch: check the camera's clock",
        )
    return captured_at_us


def _show(raw: bytes) -> str:
    return repr(raw[:48])[1:] + ("..." if len(raw) > 48 else "")
