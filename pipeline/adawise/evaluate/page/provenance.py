"""How a result was made: the command, the tables by their content, and the versions that computed it."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from adawise.evaluate.tables import LogitTable

_PACKAGES = ("adawise", "torch", "botorch", "numpy", "altair", "vl-convert-python")


@dataclass(frozen=True)
class Provenance:
    """`command` as a shell takes it; `digests` SHA-256 by table; `versions` by package."""

    command: str
    created_at: str
    digests: dict[str, str]
    versions: dict[str, str]


def provenance(arguments: Sequence[str], tables: Sequence[LogitTable], *, created_at: str) -> Provenance:
    """Of `adawise` called with these arguments on these tables."""
    return Provenance(
        command=shlex.join(["adawise", *arguments]),
        created_at=created_at,
        digests={table.name: digest(table) for table in tables},
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    )


def digest(table: LogitTable) -> str:
    """SHA-256 of what a table says, in hex; however its file was compressed, and without its name."""
    said = hashlib.sha256()
    for array in (table.logits, table.labels, np.asarray(table.alphas)):
        said.update(f"{array.dtype.str}{array.shape}".encode())
        said.update(np.ascontiguousarray(array).data)
    said.update("\0".join(table.class_names).encode())
    return said.hexdigest()
