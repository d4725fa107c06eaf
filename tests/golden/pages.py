"""The golden files by name, with what makes each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.golden import files, names

FOLDER = Path(__file__).parent
REMEDY = "if that is meant, write it again: python -m tests.golden --write"

OF_CODE: Mapping[str, Callable[[], str]] = {
    "help.txt": names.help_texts,
    "names.txt": names.names,
    "library.txt": names.library,
    "readings.txt": files.readings,
}
OF_FILES: Mapping[str, Callable[[], str]] = {  # after `files.make()` in the same folder
    "schemas.txt": files.schemas,
    "documents.txt": files.documents,
    "outputs.txt": files.outputs,
}
