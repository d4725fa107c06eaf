"""The number and a hash of the segments before one, so that a start sees from a listing of names that one is missing.

A segment names the one before it, but a worker that goes on from the head opens no other: only `verify` would find that
rows in the middle of a chain were lost. So each footer carries a count and a rolling hash of the names before it.
Segments that a compacted file replaces may have been deleted; the last of them never is, and carries the count up to
there.

Segments of earlier versions have none: counting begins with the first one that a later version follows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from adawise.sink.layout import SegmentName


@dataclass(frozen=True, slots=True)
class Lineage:
    """The segments from `since` on up to some place in the chain: how many, and a hash over their names in order."""

    since: SegmentName
    count: int = 0
    digest: str = ""

    def extended(self, name: SegmentName) -> Lineage:
        """Return the lineage with one segment more."""
        digest = hashlib.sha256(f"{self.digest} {name.stem}".encode()).hexdigest()
        return Lineage(self.since, self.count + 1, digest)

    def stored(self) -> bytes:
        """Return the bytes for a footer, with a checksum of their own.

        The footer's checksum, which earlier versions verify, is not over them.
        """
        text = json.dumps([self.since.stem, self.count, self.digest])
        return f"{hashlib.sha256(text.encode()).hexdigest()} {text}".encode()

    @classmethod
    def of(cls, stored: bytes) -> Lineage:
        """Return the lineage of these bytes. Raises ValueError if they are damaged."""
        checksum, _, text = stored.decode().partition(" ")
        try:
            since, count, digest = json.loads(text)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"it is not a list of three: {text[:80]}") from error
        name = SegmentName.parse(f"{since}.parquet")
        if not isinstance(count, int) or not isinstance(digest, str):
            raise ValueError(f"it counts no segments: {text[:80]}")
        if checksum != hashlib.sha256(text.encode()).hexdigest() or name is None:
            raise ValueError(f"its checksum differs: {text}")
        return cls(name, count, digest)
