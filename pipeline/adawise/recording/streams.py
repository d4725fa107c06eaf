"""The selection of messages for a recording of some streams.

A message's stream is what its key and headers name: the key, else the header `stream-id`, else CloudEvents. An Arrow
batch that names its streams only in its rows has none in this sense: a message is recorded whole or not at all, and
nothing is decoded for that. So it is left out, and so is a message that names no stream.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from adawise.decode.headers import read_stream
from adawise.records import Message


class Streams:
    """Shell patterns of stream ids: `camera-1`, `yard-*`, `gate-[ab]`.

    Args:
        patterns: separated by commas; None for every message, whatever its stream.
    """

    def __init__(self, patterns: str | None) -> None:
        self._patterns = None if patterns is None else tuple(each.strip() for each in patterns.split(","))
        self.nameless = 0  # messages left out because neither key nor headers name a stream

    def has(self, message: Message) -> bool:
        """Return True if the message is of one of the streams."""
        if self._patterns is None:
            return True
        stream_id = stream_of(message)
        if stream_id is None:
            self.nameless += 1
            return False
        return self.has_stream(stream_id)

    def has_stream(self, stream_id: str) -> bool:
        """Return True if this is one of the streams."""
        return self._patterns is None or any(fnmatchcase(stream_id, pattern) for pattern in self._patterns)


def stream_of(message: Message) -> str | None:
    """Return the stream that key and headers name; None if they name no valid one."""
    stream = read_stream(message.key, message.headers)
    return None if stream.refused else stream.stream_id
