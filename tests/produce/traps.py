"""Sites of camera traps, as documents in the format COCO Camera Traps with their images."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.hostile import picture

CATEGORIES = [{"id": 0, "name": "empty"}, {"id": 1, "name": "deer"}, {"id": 2, "name": "fox"}]


def image(number: int, **facts: object) -> dict[str, object]:
    """An image of the location `gate`, taken `number` minutes after noon; `facts` replace and add fields."""
    at = f"2011-05-13 12:{number:02}:00"
    own = {"id": f"i{number}", "file_name": f"{number}.jpg", "location": "gate", "datetime": at, "width": 40}
    return {**own, **facts}


def document(images: list[dict[str, object]], labels: Mapping[str, Any], **more: object) -> dict[str, object]:
    """A document; `labels` are the numbers of categories by the ids of images."""
    annotations = [
        {"id": f"{id_}-{category}", "image_id": id_, "category_id": category, "bbox": [1.5, 2.0, 3.0, 4.0]}
        for id_, categories in labels.items()
        for category in categories
    ]
    return {
        **{"info": {"version": "1.0"}, "categories": CATEGORIES, "images": images, "annotations": annotations},
        **more,
    }


def written(folder: Path, content: object) -> Path:
    """Write a document into a folder, beside the folder `images` of its images; return its path."""
    (folder / "images").mkdir(exist_ok=True)
    path = folder / "cameratraps.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def with_pictures(document: Path, *names: str) -> Path:
    """Write pictures of these names; return their folder."""
    rng = random.Random(0)
    folder = document.parent / "images"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(rng))
    return folder
