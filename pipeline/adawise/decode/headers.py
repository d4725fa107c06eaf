"""The facts about a message's images outside its value: their stream, their time, their type.

The key is the stream id. Of several headers of one name the last counts, and names are case-insensitive:
`content-type`, `stream-id`, `captured-at` (RFC 3339), `frame-id`, `label`, `meta-*`; of CloudEvents in binary mode
`ce_datacontenttype`, `ce_subject` or the last segment of `ce_source` (the stream), `ce_time`, `ce_id`; and the
message's trace (W3C `traceparent`, `tracestate`). A header that cannot be read matters only where it is needed. An
invalid time costs the time alone, not the image.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from adawise.errors import InvalidMessage, Reason

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


def is_traceparent(text: str) -> bool:
    """Return True if a header `traceparent` of this text names a trace; a malformed one counts as absent."""
    match = _PARENT.fullmatch(text)
    if match is None:
        return False
    version, trace, parent, _, more = match.groups()
    known = version != "ff" and (version != "00" or more is None)
    return known and trace.strip("0") != "" and parent.strip("0") != ""


def continued(traceparent: str, span: str) -> str:
    """Return the `traceparent` of what follows from a message: its trace and its flags, with a span of its own.

    The span's id is a hash of its name `span`, so that what is sent again is the same span. A header of a later version
    is continued in version 00, as the recommendation says.
    """
    _, trace, _, flags, *_ = traceparent.split("-")
    parent = hashlib.sha256(span.encode("utf-8", "replace")).hexdigest()[:16]
    sampled = int(flags, 16) & 1
    return f"00-{trace}-{parent if parent.strip('0') else '1'.zfill(16)}-{sampled:02x}"


MAX_STREAM_ID_BYTES = 249  # Kafka's limit for a topic's name
MAX_TEXT_BYTES = 1_024  # frame ids, labels, meta values; longer ones are dropped, the image is still good
MAX_META = 32  # entries per image
MAX_META_NAME = 64

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_US = (datetime(2200, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_RFC_3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}):(\d{2})(?:\.(\d{1,20}))?(?:[Zz]|([+-]\d{2}:\d{2}))", re.ASCII
)
_META = "meta-"
_SPELT = {name.replace("-", "_"): name for name in ("content-type", "stream-id", "captured-at", "frame-id")}


@dataclass(frozen=True, slots=True)
class NamedStream:
    """The stream that the key and the headers of one message name.

    Attributes:
        stated: the key, else the header `stream-id`, as it came; if there is one, every row must be of that stream.
        stream_id: the first valid one of key, header and attributes, for reports about the message. Its images are of
            that stream unless `refused` says why not.
        refused: the reason and its detail, or None.
    """

    stated: bytes | None = None
    stream_id: str | None = None
    refused: tuple[Reason, str] | None = None

    def check(self) -> None:
        """Raise InvalidMessage if the stream is refused: bad_stream_id, or stream_id_mismatch of key and header."""
        if self.refused is not None:
            raise InvalidMessage(*self.refused)


@dataclass(frozen=True, slots=True)
class Headers:
    """The facts that the key and the headers of one message give about its images; unreadable ones count as absent.

    Attributes:
        stream: the stream.
        content_type: the media type in lower case, without parameters.
        captured_at_us: microseconds since the epoch.
        meta: the `meta-*` headers, by their names without the prefix.
        trace: the headers of the trace context, if they name a trace.
        note: a mistake of the producer that costs no picture.
    """

    stream: NamedStream = NamedStream()
    content_type: str | None = None
    frame_id: str | None = None
    captured_at_us: int | None = None
    label: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    trace: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None


def read_stream(key: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> NamedStream:
    """Return the stream alone, for callers that need no more. Raise nothing that a message could cause."""
    return _stream(key, _by_name(headers))


def read_headers(key: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """Return all facts. Raise nothing that a message could cause."""
    named = _by_name(headers)
    at = named.get("captured-at") or named.get("ce_time")
    captured_at_us, note = read_time(partial(parse_timestamp, at)) if at else (None, None)
    return Headers(
        stream=_stream(key, named),
        content_type=_media_type(_text(named, "content-type") or _text(named, "ce_datacontenttype") or ""),
        frame_id=_text(named, "frame-id") or _text(named, "ce_id"),
        captured_at_us=captured_at_us,
        label=_text(named, "label"),
        meta=_meta(named),
        trace=_trace(named) if TRACEPARENT in named else {},
        note=_misspelt(named) or note,
    )


def written_headers(
    content_type: str,
    captured_at_us: int,
    frame_id: str,
    *,
    label: str | None = None,
    meta: Mapping[str, str] | None = None,
) -> list[tuple[str, bytes]]:
    """Return the headers that our producers write for one image; `captured_at_us` in microseconds since the epoch."""
    captured_at = (_EPOCH + timedelta(microseconds=captured_at_us)).isoformat(timespec="microseconds")
    headers = {"content-type": content_type, "captured-at": captured_at, "frame-id": frame_id}
    if label is not None:
        headers["label"] = label
    headers |= {f"{_META}{name}": value for name, value in (meta or {}).items()}
    return [(name, value.encode()) for name, value in headers.items()]


def _by_name(headers: Iterable[tuple[str, bytes | None]]) -> Mapping[str, bytes]:
    return {name.lower(): value for name, value in headers if value}


def _stream(key: bytes | None, named: Mapping[str, bytes]) -> NamedStream:
    header, refused = named.get("stream-id"), None
    stated = key or header
    if key and header and key != header:
        detail = f"expected the same stream in key and header, got {_show(key)} and {_show(header)}"
        refused = Reason.STREAM_ID_MISMATCH, detail
    attributes = named.get("ce_subject") or named.get("ce_source", b"").rstrip(b"/").split(b"/")[-1]
    for raw in filter(None, (key, header, attributes)):
        try:
            return NamedStream(stated, check_stream_id(raw), refused)
        except InvalidMessage as invalid:
            refused = refused or (invalid.reason, invalid.detail)
    return NamedStream(stated, None, refused)


def _media_type(text: str) -> str | None:
    """Return the media type; None if there is none, or it says nothing."""
    return text.partition(";")[0].strip().lower().replace("application/octet-stream", "") or None


def _misspelt(named: Iterable[str]) -> str | None:
    """Return a note to the producer about a header that is not read because of an underscore in its name."""
    for name in named:
        meant = _SPELT.get(name) or (name.replace("meta_", _META, 1) if name.startswith("meta_") else None)
        if meant is not None:
            return f"header {name[:MAX_META_NAME]!r}: it is not read, call it {meant[:MAX_META_NAME]!r}"
    return None


def _meta(named: Mapping[str, bytes]) -> Mapping[str, str]:
    names = [name for name in named if name.startswith(_META) and len(name) <= MAX_META_NAME][:MAX_META]
    entries = {name.removeprefix(_META): _text(named, name) for name in names}
    return {name: text for name, text in entries.items() if text is not None}


def _trace(named: Mapping[str, bytes]) -> Mapping[str, str]:
    parent, state = _text(named, TRACEPARENT), _text(named, TRACESTATE)
    if parent is None or not is_traceparent(parent):
        return {}
    return {TRACEPARENT: parent} if state is None else {TRACEPARENT: parent, TRACESTATE: state}


def _text(named: Mapping[str, bytes], name: str) -> str | None:
    raw = named.get(name)
    if raw is None or len(raw) > MAX_TEXT_BYTES:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def read_time(read: Callable[[], int]) -> tuple[int | None, str | None]:
    """Return a time, or None and what is wrong with it: an invalid time costs the time and not the picture."""
    try:
        return read(), None
    except InvalidMessage as invalid:
        return None, f"captured-at: it is taken for not stated: {invalid.detail}"


def check_stream_id(raw: bytes) -> str:
    """Return a stream id as it goes into outputs; raise InvalidMessage: bad_stream_id."""
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
    """Return an RFC 3339 time as microseconds since the epoch, truncated; raise InvalidMessage: bad_timestamp."""
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
    """Return the same number if it lies in 1970-2199; raise InvalidMessage: bad_timestamp."""
    if not 0 <= captured_at_us < _LATEST_US:
        raise InvalidMessage(
            Reason.BAD_TIMESTAMP,
            f"expected a time from 1970 to 2199, got {captured_at_us} us since the epoch: check the camera's clock",
        )
    return captured_at_us


def _show(raw: bytes) -> str:
    return repr(raw[:48])[1:] + ("..." if len(raw) > 48 else "")
