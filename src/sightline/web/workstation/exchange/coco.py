"""Marks as COCO, and COCO of other tools as marks.

Out: boxes, polygons and masks (run lengths), the reader and pass in `attributes`; scribbles, which COCO cannot hold, go
out as the mask of their stroke, with a line in left_out.csv. In: what CVAT, Label Studio and pycocotools write.
"""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.data.datasets.coco import decode
from sightline.errors import GeometryError, LayoutError
from sightline.io.files import write_new_folder, write_text
from sightline.io.tables import read_json
from sightline.structures.frame import Frame
from sightline.web.workstation.exchange.cohort_export import MERGING
from sightline.web.workstation.exchange.readings import (
    FinishedRead,
    find_shape,
    group_images_by_study,
    list_finished_reads,
)
from sightline.web.workstation.marks.operations import MarkContext, OperationRefused, check_mark
from sightline.web.workstation.marks.regions import build_region, decode_runs, encode_runs
from sightline.web.workstation.service import Workstation

ANY = "mark"


def build_annotation(mark: Mapping[str, Any], shape: tuple[int, int]) -> tuple[dict[str, Any], str]:
    """A COCO annotation of a mark (bbox, area, segmentation), and why it is not the mark itself, if so.

    Args:
        mark: on a radiograph.
        shape: (rows, columns) of its image.
    """
    if mark["kind"] == "box":
        (r0, c0), (r1, c1) = mark["start"], mark["stop"]
        return {"bbox": [c0, r0, c1 - c0, r1 - r0], "area": (c1 - c0) * (r1 - r0), "segmentation": [], "iscrowd": 0}, ""
    if mark["kind"] == "polygon":
        rings = [[x for row, column in part for x in (column, row)] for part in mark["parts"]]
        points = np.array([point for part in mark["parts"] for point in part])
        low, high = points.min(axis=0), points.max(axis=0)
        area = sum(abs(_compute_shoelace(part)) for part in mark["parts"])
        box = [low[1], low[0], high[1] - low[1], high[0] - low[0]]
        return {"bbox": [float(x) for x in box], "area": area, "segmentation": rings, "iscrowd": 0}, ""
    why = "" if mark["kind"] == "mask" else "COCO has no lines: the mask of the stroke was written"
    pixels = build_region(mark).draw(Frame.of_image(shape)) > 0
    if mark["kind"] == "mask":
        pixels = decode_runs(mark["size"], mark["counts"])
    size, counts = encode_runs(np.asarray(pixels, dtype=bool))
    inside = np.argwhere(pixels)
    low, high = (inside.min(axis=0), inside.max(axis=0) + 1) if len(inside) else (np.zeros(2), np.zeros(2))
    box = [float(low[1]), float(low[0]), float(high[1] - low[1]), float(high[0] - low[0])]
    shape_of_it = {"size": size, "counts": counts}
    return {"bbox": box, "area": int(pixels.sum()), "segmentation": shape_of_it, "iscrowd": 0}, why


def _compute_shoelace(part: Sequence[Sequence[float]]) -> float:
    ring = np.asarray(part, dtype=np.float64)
    after = np.roll(ring, -1, axis=0)
    return float((ring[:, 0] * after[:, 1] - ring[:, 1] * after[:, 0]).sum() / 2.0)


def export_coco(desk: Workstation, destination: Path, whose: str = "each") -> tuple[int, int]:
    """Write `annotations.json` and `left_out.csv`; how many annotations, and how many lines were left out.

    Args:
        desk: the workstation.
        destination: a new or empty folder.
        whose: `each`, or a reader's name.

    Raises:
        LayoutError: a folder that holds something, a rule that merges readers, or no finished read of this reader.
    """
    if whose in MERGING:
        raise LayoutError(
            f"COCO holds the marks of each reader as drawn; got the rule {whose!r}, which merges them.",
            "Export --as folder or --as dicom by a rule, or COCO of `each` or of one reader.",
        )
    with desk.database.reading() as connection:
        reads = [one for one in list_finished_reads(connection) if whose in ("each", one.reader)]
        images = group_images_by_study(connection)
    if not reads and whose != "each":
        raise LayoutError(f"There is no finished read of {whose!r}.", "Look at `sightline readers list`.")
    document, left_out = build_coco_document(desk, reads, images)
    with write_new_folder(destination) as partial:
        write_text(partial / "annotations.json", json.dumps(document, allow_nan=False))
        with (partial / "left_out.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("image_id", "mark", "why"))
            rows.writerows(left_out)
    return len(document["annotations"]), len(left_out)


def build_coco_document(
    desk: Workstation, reads: Sequence[FinishedRead], images: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """The document, and what COCO could not hold: image, mark, why."""
    categories = [ANY, *[name for name in desk.cohort.classes if name != ANY]]
    number = {name: i + 1 for i, name in enumerate(categories)}
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    left_out: list[tuple[str, str, str]] = []
    ids: dict[str, tuple[int, tuple[int, ...]]] = {}
    for row in (row for rows in images.values() for row in rows):
        shape = find_shape(desk, row)
        if shape is None or len(shape) != 2:
            left_out.append(
                (row["image_id"], "", "COCO holds pictures of two axes" if shape else "the picture is gone")
            )
            continue
        ids[row["key"]] = (len(records) + 1, shape)
        size = {"height": shape[0], "width": shape[1]}
        records.append({"id": len(records) + 1, "file_name": row["path"], **size, "image_id": row["image_id"]})
    for one in reads:
        for mark in one.fold.live:
            if mark["image"] not in ids:
                continue
            image_id, shape = ids[mark["image"]]
            body, why = build_annotation(mark, (shape[0], shape[1]))
            if why:
                left_out.append((records[image_id - 1]["image_id"], mark["id"], why))
            attributes = {"reader": one.reader, "pass": one.row["pass"], "role": mark["role"], "mark": mark["id"]}
            own = {"id": len(annotations) + 1, "image_id": image_id, "category_id": number[mark["label"] or ANY]}
            annotations.append(own | body | {"attributes": attributes | {"source": mark.get("source", "drawn")}})
    head = {"description": f"marks of {desk.cohort.name}", "version": "1.0"}
    kinds = [{"id": number[name], "name": name, "supercategory": ""} for name in categories]
    return {"info": head, "licenses": [], "images": records, "annotations": annotations, "categories": kinds}, left_out


def read_coco_marks(
    path: Path, names: Mapping[str, str], around: MarkContext, role: str
) -> tuple[dict[str, list[dict[str, Any]]], list[tuple[str, str]]]:
    """Marks by image key out of a COCO document, and what could not be used: which annotation, why.

    An image is found by its file name, with or without folders, or by an `image_id` of ours.

    Args:
        path: of the document.
        names: image keys by id, by path and by file name, where that is one image's alone.
        around: what marks are checked against.
        role: of marks that state none.

    Raises:
        LayoutError: no COCO document.
    """
    document = read_json(path)
    if not isinstance(document, dict) or not all(isinstance(document.get(k), list) for k in ("images", "annotations")):
        raise LayoutError(f"{path} is no COCO document: it lacks images or annotations.", "Export it again.")
    keys, sizes = {}, {}
    for record in document["images"]:
        if not isinstance(record, dict) or not isinstance(record.get("id"), int | str):
            raise LayoutError(f"{path}: an image is {record!r:.80}, expected an object with an id.", "Export it again.")
        file = Path(str(record.get("file_name", ""))).name
        # Label Studio puts eight letters and a dash before the name of an uploaded file
        uploaded = [file[9:]] if len(file) > 9 and file[8] == "-" else []
        names_given = [record.get("image_id"), record.get("file_name"), file, *uploaded]
        found = next((names[str(name)] for name in names_given if str(name) in names), None)
        if found is not None:
            keys[record.get("id")], sizes[record.get("id")] = found, (record.get("height"), record.get("width"))
    listed = document.get("categories")
    classes = {
        c["id"]: c.get("name")
        for c in (listed if isinstance(listed, list) else [])
        if isinstance(c, dict) and isinstance(c.get("id"), int | str)
    }
    marks: dict[str, list[dict[str, Any]]] = {}
    rejects: list[tuple[str, str]] = []
    for n, annotation in enumerate(document["annotations"]):
        name = f"annotation {annotation.get('id', n)}" if isinstance(annotation, dict) else f"annotation {n}"
        try:
            key = keys.get(annotation.get("image_id"))
            if key is None:
                raise ValueError("its image is not in this cohort")
            shape = around.shapes[key]
            if shape is not None and tuple(sizes[annotation["image_id"]]) != tuple(shape):
                raise ValueError(f"its image is of {sizes[annotation['image_id']]}, ours of {tuple(shape)}")
            mark = _build_mark(annotation, classes, around, role, shape)
            check_mark(mark, around, shape)
            marks.setdefault(key, []).append(mark)
        except OperationRefused as error:
            rejects.append((name, error.message))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, GeometryError) as error:
            rejects.append((name, str(error)))
    return marks, rejects


def _build_mark(
    annotation: Mapping[str, Any], classes: Mapping[Any, Any], around: MarkContext, role: str,
    shape: tuple[int, ...] | None,
) -> dict[str, Any]:  # fmt: skip
    label = classes.get(annotation.get("category_id"))
    own = annotation.get("attributes") or {}
    mark: dict[str, Any] = {
        "id": str(uuid.uuid4()), "role": own.get("role", role) if own.get("role") in around.roles else role,
        "label": label if label in around.classes else None, "source": "imported",
    }  # fmt: skip
    if mark["label"] is None and isinstance(label, str) and label != ANY:
        mark["name"] = label[:100]
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        pixels: NDArray[np.bool_] = decode(segmentation)
        size, counts = encode_runs(pixels)
        return mark | {"kind": "mask", "size": size, "counts": counts}
    if segmentation:
        parts = [[[float(y), float(x)] for x, y in zip(r[::2], r[1::2], strict=True)] for r in segmentation]
        return mark | {"kind": "polygon", "parts": parts}
    x, y, width, height = (float(v) for v in annotation["bbox"])
    return mark | {"kind": "box", "start": [y, x], "stop": [y + height, x + width]}
