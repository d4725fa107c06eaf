"""`python -m tests.golden --write`: writes the golden files again."""

from __future__ import annotations

import os
import sys
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.golden import files
from tests.golden.pages import FOLDER, OF_CODE, OF_FILES


def main() -> int:
    """Write all of them."""
    if sys.argv[1:] != ["--write"]:
        print("usage: python -m tests.golden --write", file=sys.stderr)
        return 2
    with TemporaryDirectory() as folder, chdir(folder):
        files.make()
        for name, made in {**OF_CODE, **OF_FILES}.items():
            (FOLDER / name).write_text(made(), encoding="utf-8")
            print(Path("tests/golden") / name)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
