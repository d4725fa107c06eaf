"""How many segments came before one, and which: so that a start sees from a listing of names that one is gone.

A segment names the one before it, but who goes on from the head opens no other: rows that were lost in the middle of a
chain would be missed by `verify` alone. So each footer carries a count and a rolling hash of the names before it. What
a compacted file stands for may have been deleted; its last segment never is, and carries the count up to there.

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
        """With one segment more."""
        digest = hashlib.sha256(f"{self.digest} {name.stem}".encode()).hexdigest()
        return Lineage(self.since, self.count + 1, digest)

    def stored(self) -> bytes:
        """For a footer; the footer's own checksum, which earlier versions know, is not over it."""
        text = json.dumps([self.since.stem, self.count, self.digest])
        return f"{hashlib.sha256(text.encode()).hexdigest()} {text}".encode()

    @classmethod
    def of(cls, stored: bytes) -> Lineage:
        """Raises ValueError if it is damaged."""
        checksum, _, text = stored.decode().partition(" ")
        try:
            since, count, digest = json.loads(text)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"it is no list of three: {text[:80]}") from error
        name = SegmentName.parse(f"{since}.parquet")
        if not isinstance(count, int) or not isinstance(digest, str):
            raise ValueError(f"it counts no segments: {text[:80]}")
        if checksum != hashlib.sha256(text.encode()).hexdigest() or name is None:
            raise ValueError(f"its checksum differs: {text}")
        return cls(name, count, digest)
