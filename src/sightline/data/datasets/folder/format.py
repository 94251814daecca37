"""The names of our own layout and its head document, `cohort.json`."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sightline.errors import LayoutError
from sightline.io.tables import CsvRow, find_path_inside, parse_number, read_json
from sightline.structures.case import SPLITS, Split
from sightline.structures.frame import FloatArray
from sightline.structures.gaze import Gaze
from sightline.structures.identifiers import normalise_form
from sightline.structures.regions import Box, Mask, Polygon, Region, Scribble
from sightline.structures.tag import Role, Tag

LAYOUT, HEAD = "sightline folder", "cohort.json"
VERSION = 1
FACT = "fact:"
STUDY_COLUMNS = ("study_id", "patient_id", "label", "split")
IMAGE_COLUMNS = ("image_id", "study_id", "view", "path", "width", "height", "row_spacing_mm", "col_spacing_mm")


def read_head(source: Path) -> dict[str, Any]:
    """The checked content of `cohort.json`: layout, version, name, classes, about.

    Raises:
        LayoutError: no such file, or not a cohort of this layout and version.
    """
    path = source / HEAD
    if not path.is_file():
        raise LayoutError(
            f"{source} is not a cohort folder: it has no cohort.json.",
            "Point at a folder in our layout, or bring one there with `sightline cohort import LAYOUT SRC DEST`.",
        )
    head = read_json(path)
    if not isinstance(head, dict) or head.get("layout") != LAYOUT:
        raise LayoutError(f"{path} is not a {LAYOUT!r} document.", f'It must hold "layout": "{LAYOUT}".')
    if head.get("version") != VERSION:
        raise LayoutError(
            f"{path} has layout version {head.get('version')!r}, expected {VERSION}.",
            "Use the sightline that wrote it.",
        )
    name, classes, about = head.get("name"), head.get("classes"), head.get("about", {})
    if not isinstance(name, str) or not name:
        raise LayoutError(f"{path}: `name` is {name!r}, expected a text.", "Name the cohort.")
    classes = [normalise_form(name) for name in classes or ()] if _is_texts(classes) else classes
    if not _is_texts(classes) or not classes or len(set(classes)) < len(classes):
        raise LayoutError(f"{path}: `classes` is {classes!r}, expected distinct class names.", "List the class names.")
    if not isinstance(about, dict) or not _is_texts([*about, *about.values()]):
        raise LayoutError(f"{path}: `about` must map texts to texts.", "Write numbers in `about` as texts.")
    return {"layout": LAYOUT, "version": VERSION, "name": name, "classes": classes, "about": about}


def _is_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, str) for v in values)


def describe_region(image_id: str, region: Region, mask: str = "") -> dict[str, Any]:
    """A region as a JSON record; floats keep every digit.

    Args:
        image_id: the image it lies on.
        region: the region.
        mask: for masks and gaze, the path relative to the cohort folder.
    """
    record: dict[str, Any] = {"image_id": image_id, "kind": _name_kind(region), "role": region.tag.role}
    record |= {"label": region.tag.label, "reader": region.tag.reader}
    if region.tag.name:
        record["name"] = region.tag.name
    if isinstance(region, Box):
        meant = {} if region.meant is None else {"meant": [region.meant.start, region.meant.stop]}
        return record | {"start": region.start, "stop": region.stop} | meant
    if isinstance(region, Polygon):
        return record | {"parts": region.parts}
    if isinstance(region, Scribble):
        return record | {"lines": region.lines, "stroke_px": region.stroke_px}
    if isinstance(region, Gaze):
        own = {"of": region.kind, "px_per_deg": region.px_per_deg, "spread_px": region.spread_px}
        return record | own | {"path": mask}
    return record | {"path": mask} | ({} if region.value is None else {"value": region.value})


def _name_kind(region: Region) -> str:
    """The word of a region in files, whatever its class is called."""
    if isinstance(region, (Box, Polygon)):
        return "box" if isinstance(region, Box) else "polygon"
    if isinstance(region, Scribble):
        return "scribble"
    return "gaze" if isinstance(region, Gaze) else "mask"


def save_gaze(gaze: Gaze, path: Path) -> None:
    """Rows of row, column, start and dwell time as plain numbers of float64 (npy): a tracker gives thousands."""
    path.write_bytes(encode_gaze(gaze))


def encode_gaze(gaze: Gaze) -> bytes:
    """The content of the file that `save_gaze` writes."""
    with BytesIO() as file:
        np.save(file, np.column_stack(gaze.numbers), allow_pickle=False)
        return file.getvalue()


def _load_gaze(path: Path) -> FloatArray:
    try:
        table: FloatArray = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy reads the header as a Python literal: broken ones raise whatever they provoke
        raise ValueError(f"gaze {path.name} does not decode ({' '.join(str(error).split())[:160]})") from None
    if table.ndim != 2 or table.shape[1] != 4 or table.dtype != np.float64:
        raise ValueError(f"gaze {path.name} holds {table.dtype} {table.shape}, expected float64 [n, 4]")
    return table


def build_region_of_record(record: Mapping[str, Any], source: Path) -> Region:
    """The region that a JSON record describes; the opposite of `describe_region`.

    Raises:
        KeyError, TypeError, ValueError, GeometryError: fields that are missing or wrong.
    """
    role, label = record.get("role", "focus"), record.get("label")
    if role not in get_args(Role):
        raise ValueError(f"role is {role!r}, expected one of {', '.join(get_args(Role))}")
    if label is not None and not isinstance(label, str):
        raise ValueError(f"label is {label!r}, expected a class name or null")
    tag = Tag(role, label, str(record.get("reader", "")), str(record.get("name", "")))
    kind = record["kind"]
    if kind == "box":
        meant = None
        if record.get("meant") is not None:
            start, stop = record["meant"]
            meant = Box(_require_numbers(start), _require_numbers(stop), tag)
        return Box(_require_numbers(record["start"]), _require_numbers(record["stop"]), tag, meant)
    if kind == "polygon":
        return Polygon(tuple(_require_points(part) for part in record["parts"]), tag)
    if kind == "scribble":
        return Scribble(
            tuple(_require_points(line) for line in record["lines"]), parse_number(record.get("stroke_px", 1.0)), tag
        )
    if kind == "mask":
        path = find_path_inside(source, record["path"])
        if path is None or not path.is_file():
            raise ValueError(f"mask {record['path']!r} is not a file inside the folder")
        value = record.get("value")
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ValueError(f"value is {value!r}, expected a whole number")
        return Mask(path, tag, value)
    if kind == "gaze":
        path = find_path_inside(source, record["path"])
        if path is None or not path.is_file():
            raise ValueError(f"gaze {record['path']!r} is not a file inside the folder")
        table = _load_gaze(path)
        if record["of"] not in ("samples", "fixations"):
            raise ValueError(f"gaze is of {record['of']!r}, expected samples or fixations")
        scale = record.get("px_per_deg")
        return Gaze(
            table[:, :2], table[:, 2], table[:, 3], record["of"], None if scale is None else parse_number(scale),
            parse_number(record["spread_px"]), tag,
        )  # fmt: skip
    raise ValueError(f"kind is {kind!r}, expected box, polygon, scribble, mask or gaze")


def _require_numbers(values: Any) -> tuple[float, ...]:
    if isinstance(values, str):
        raise ValueError(f"coordinates are {values!r}, expected a list of numbers")
    return tuple(v if isinstance(v, int) and not isinstance(v, bool) else parse_number(v) for v in values)


def _require_points(values: Any) -> tuple[tuple[float, float], ...]:
    points = [_require_numbers(value) for value in values]
    if any(len(point) != 2 for point in points):
        raise ValueError("a point must be [row, column]")
    return tuple((point[0], point[1]) for point in points)


def parse_split(row: CsvRow) -> Split | None:
    """The split that a row's cell names; None where it is empty.

    Raises:
        LayoutError: another word.
    """
    for name in SPLITS:
        if row["split"] == name:
            return name
    if row["split"]:
        raise row.error("split", f"is {row['split']!r}, expected one of {list(SPLITS)} or nothing")
    return None
