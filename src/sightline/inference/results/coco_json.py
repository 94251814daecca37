"""Boxes as COCO JSON, for pycocotools, CVAT and Label Studio.

The file is a COCO data set (images, annotations, categories) whose annotations carry a `score`. pycocotools opens it as
it is; to measure its boxes against a data set with the same image numbers, give `loadRes` the list under `annotations`.
Coordinates are COCO's: x is the column and y the row of the upper left corner in pixels of the file, then width and
height.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.errors import GeometryError
from sightline.io.files import write_text
from sightline.structures.regions import ScoredBox


@dataclass(frozen=True)
class CocoPicture:
    """One picture with its boxes.

    Attributes:
        file_name: as COCO's `file_name`, relative to the folder of the pictures.
        shape: rows and columns.
        boxes: any number, also none.
    """

    file_name: str
    shape: tuple[int, int]
    boxes: tuple[ScoredBox, ...] = ()


def build_coco_data(pictures: Iterable[CocoPicture], classes: Sequence[str], about: str = "") -> dict[str, Any]:
    """COCO data: images and categories are numbered from 1, in the order given.

    Raises:
        GeometryError: a box of a class that is none of `classes`.
    """
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, start=1):
        height, width = picture.shape
        images.append({"id": number, "file_name": picture.file_name, "width": width, "height": height})
        for box in picture.boxes:
            if box.label not in numbers:
                raise GeometryError(
                    f"{picture.file_name}: a box of class {box.label!r}; the classes are {list(classes)}."
                )
            top, left, bottom, right = box.corners
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": numbers[box.label],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "segmentation": [],
                    "iscrowd": 0,
                    "score": box.score,
                }
            )
    return {
        "info": {"description": about},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()],
    }


def write_coco(path: Path, pictures: Iterable[CocoPicture], classes: Sequence[str], about: str = "") -> None:
    """Write `build_coco_data` in one atomic step."""
    write_text(path, json.dumps(build_coco_data(pictures, classes, about), indent=1) + "\n")
