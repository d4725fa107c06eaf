"""Images of others are named exactly: by a digest, or by the tag of one release."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from adawise import __version__
from tests.deploy.watching import DEPLOY

NUMBERS = {"chrislusf/seaweedfs": 2}  # of a release of theirs; three of all others
_PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9./_-]*?)(?::v?(?P<release>[0-9]+(?:\.[0-9]+)*)(?P<variant>-[a-z0-9-]+)?)?")


def is_exact(image: str) -> bool:
    name, at, digest = image.partition("@")
    if at:
        return re.fullmatch(r"sha256:[0-9a-f]{64}", digest) is not None
    match = _PIN.fullmatch(name)
    if match is None or match["release"] is None:
        return False
    return match["release"].count(".") + 1 >= NUMBERS.get(match["name"], 3)


def images() -> Iterator[tuple[str, str]]:
    """(where, image) of what is pulled."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        yield f"compose.yaml {name}", service["image"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", dockerfile, re.MULTILINE))
    for named in re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE):
        yield "Dockerfile", re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], named)


@pytest.mark.parametrize(("where", "image"), [*images()])
def test_an_image_is_of_one_release(where: str, image: str) -> None:
    assert is_exact(image), f"{where}: {image}"
    if image.startswith("adawise:"):
        assert image == f"adawise:{__version__}"


@pytest.mark.parametrize(
    ("image", "exact"),
    [
        ("python:3.11.14-slim-bookworm", True),
        (f"python:3.11@sha256:{'0a' * 32}", True),
        ("chrislusf/seaweedfs:4.48", True),
        ("python:3.11-slim-bookworm", False),
        ("prom/prometheus:latest", False),
        ("prom/prometheus", False),
        ("python:3.11.14@sha256:0a", False),
    ],
)
def test_what_an_exact_name_is(image: str, exact: bool) -> None:
    assert is_exact(image) == exact
