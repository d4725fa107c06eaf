"""The findings of `status` about a fleet, and of `verify` about an output."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, and where it was found; `verify` names the file."""

    kind: str  # a stable word
    where: str  # the partition, camera or worker; "" for the whole fleet
    what: str  # a sentence
    remedy: str = ""  # what to do about it

    @override
    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.remedy}" if self.remedy else "")
