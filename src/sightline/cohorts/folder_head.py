"""The names of our own layout and its head document, `cohort.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sightline.cohorts.tables import read_json
from sightline.errors import LayoutError

LAYOUT = "sightline folder"
VERSION = 1
FACT = "fact:"
STUDY_COLUMNS = ("study_id", "patient_id", "label", "split")
IMAGE_COLUMNS = ("image_id", "study_id", "view", "path", "width", "height", "row_spacing_mm", "col_spacing_mm")


def read_head(source: Path) -> dict[str, Any]:
    """The checked content of `cohort.json`: layout, version, name, classes, about.

    Raises:
        LayoutError: no such file, or not a cohort of this layout and version.
    """
    path = source / "cohort.json"
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
    if not _is_texts(classes) or not classes or len(set(classes)) < len(classes):
        raise LayoutError(f"{path}: `classes` is {classes!r}, expected distinct class names.", "List the class names.")
    if not isinstance(about, dict) or not _is_texts([*about, *about.values()]):
        raise LayoutError(f"{path}: `about` must map texts to texts.", "Write numbers in `about` as texts.")
    return {"layout": LAYOUT, "version": VERSION, "name": name, "classes": classes, "about": about}


def _is_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, str) for v in values)
