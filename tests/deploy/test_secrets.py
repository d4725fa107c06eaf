"""`deploy/make_secrets.py`: no other user of the machine reads a secret, and each container reads its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.deploy.scripts import loaded
from tests.deploy.watching import DEPLOY


def main() -> Callable[[Path], None]:
    made: Callable[[Path], None] = loaded("make_secrets").main
    return made


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def mounted() -> set[str]:
    """Names of the files that compose mounts into containers, whose users are not the owner of the files."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return {Path(secret["file"]).name for secret in compose["secrets"].values()}


@pytest.mark.parametrize("before", [None, 0o711, 0o755], ids=["new", "of 0.2", "by hand"])
def test_other_users_of_the_machine_cannot_reach_a_secret(before: int | None, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    if before is not None:
        folder.mkdir()
        folder.chmod(before)
    main()(folder)
    assert mode(folder) == 0o700
    assert {path.name for path in folder.iterdir()} == {*mounted(), "s3.env"}
    assert {path.name for path in folder.iterdir() if mode(path) & 0o077} == mounted()


def test_secrets_of_an_earlier_version_are_kept_and_closed(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    main()(folder)
    output = {path.name: path.read_text() for path in folder.iterdir()}
    folder.chmod(0o711)
    (folder / "s3.env").chmod(0o444)
    main()(folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == output
    assert (mode(folder), mode(folder / "s3.env")) == (0o700, 0o400)
