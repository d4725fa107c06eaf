"""The provenance of a result: the command, digests of the tables, and the versions that computed it."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from adawise_lab.evaluate.tables import LogitTable

_PACKAGES = ("adawise", "torch", "botorch", "numpy", "altair", "vl-convert-python")


@dataclass(frozen=True)
class Provenance:
    """The origin of a result.

    Attributes:
        command: the command line, quoted for a shell.
        created_at: when it was made.
        digests: SHA-256 by table.
        versions: version by package.
    """

    command: str
    created_at: str
    digests: dict[str, str]
    versions: dict[str, str]


def provenance(arguments: Sequence[str], tables: Sequence[LogitTable], *, created_at: str) -> Provenance:
    """Return the provenance of `adawise` called with these arguments on these tables."""
    return Provenance(
        command=shlex.join(["adawise", *arguments]),
        created_at=created_at,
        digests={table.name: digest(table) for table in tables},
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    )


def digest(table: LogitTable) -> str:
    """Return the SHA-256 of a table's content in hex; the name and the compression of its file do not matter."""
    said = hashlib.sha256()
    for array in (table.logits, table.labels, np.asarray(table.alphas)):
        said.update(f"{array.dtype.str}{array.shape}".encode())
        said.update(np.ascontiguousarray(array).data)
    said.update("\0".join(table.class_names).encode())
    return said.hexdigest()
