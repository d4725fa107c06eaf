"""W3C Trace Context: the trace that a message belongs to, and how what follows from it continues the trace. Pure."""

from __future__ import annotations

import hashlib
import re

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
