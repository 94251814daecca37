"""Our own layout: two tables, one document of regions, the pictures and the masks. What it writes it reads back equal.

    cohort.json       name, classes, about, layout version
    studies.csv       study_id, patient_id, label, split
    images.csv        image_id, study_id, view, path, width, height, row_spacing_mm, col_spacing_mm
                      [, grid, grid_mm] [, label, split] [, fact:NAME ...]
    regions.json      boxes, polygons, scribbles in source pixels; masks and gaze by path
                      grid and grid_mm: the three sizes of a volume, in voxels and mm, e.g. `96 96 96` and `1 1 1`
    images/           pictures, or volumes (NIfTI)
    regions/mask/     IMAGE_ID[__LABEL].png or .tif (of a volume: .nii.gz), non-zero is inside
    regions/gaze/     IMAGE_ID[__READER].npy, float64 [n, 4]: row, column, start and dwell time in seconds

`docs/cohorts.md` is the reference.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from sightline.data.datasets.folder.format import (
    FACT,
    IMAGE_COLUMNS,
    STUDY_COLUMNS,
    build_region_of_record,
    parse_split,
    read_head,
)
from sightline.errors import GeometryError, LayoutError
from sightline.io.tables import CsvRow, find_path_inside, parse_number, read_json, read_table
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import is_pixel_size
from sightline.structures.identifiers import normalise_form
from sightline.structures.regions import Mask, Region, is_volume
from sightline.structures.tag import Tag

__all__ = ["Options", "read", "read_cohort"]
_MASK = re.compile(r"\.(png|tiff?|nii(\.gz)?)$", re.IGNORECASE)
_LEFT = ("thumbs.db", "desktop.ini")
_OPTIONAL = (*IMAGE_COLUMNS[4:], "grid", "grid_mm", "label", "split")


@dataclass(frozen=True)
class Options:
    """There is nothing to choose: splits, marks and facts come as they are."""


def read(source: str | Path, options: Options | None = None) -> Cohort:
    """Read a cohort in our layout, as `import_cohort` does with any layout."""
    return read_cohort(Path(source))


def read_cohort(source: Path) -> Cohort:
    """Read a cohort in our layout.

    Args:
        source: folder that holds `cohort.json`.

    Raises:
        LayoutError: a table, document or file that does not follow the layout, naming file, row and column.
    """
    source = Path(source)
    head = read_head(source)
    studies: dict[str, CsvRow] = {}
    for study in read_table(source / "studies.csv", STUDY_COLUMNS, key="study_id"):
        first = studies.setdefault(normalise_form(study["study_id"]), study)
        if first is not study:
            raise study.error(
                "study_id", f"is {study['study_id']!r}, in another Unicode form that of row {first.number}"
            )
    rows = read_table(source / "images.csv", IMAGE_COLUMNS[:4], key="image_id", known=_OPTIONAL)
    regions = _read_regions(source, {row["image_id"] for row in rows}, head["classes"])
    cases = tuple(_build_case(source, row, studies, head["classes"], regions) for row in rows)
    unused = sorted(studies.keys() - {case.study_id for case in cases})
    if unused:
        raise studies[unused[0]].error("study_id", f"names {unused[0]!r}, which has no image in images.csv")
    return Cohort(head["name"], tuple(head["classes"]), cases, source, head["about"])


def _build_case(
    source: Path, row: CsvRow, studies: Mapping[str, CsvRow], classes: list[str], regions: Mapping[str, list[Region]]
) -> Case:
    study = studies.get(normalise_form(row.need("study_id")))
    if study is None:
        raise row.error("study_id", f"names {row['study_id']!r}, which studies.csv does not have")
    # a cell of the image speaks before the cell of its study
    labelled = row if row["label"] else study
    if normalise_form(labelled.need("label")) not in classes:
        raise labelled.error("label", f"is {labelled['label']!r}, expected one of {classes} (cohort.json)")
    image = find_path_inside(source, row.need("path"))
    if image is None:
        raise row.error(
            "path",
            f"is {row['path']!r}, which leads out of the folder or can be no name of a file",
            "Use paths inside the folder.",
        )
    if not image.is_file():
        raise row.error("path", f"names {row['path']!r}, which does not exist", "Put the picture there.")
    return Case(
        case_id=row["image_id"],
        study_id=row["study_id"],
        patient_id=study.need("patient_id"),
        image=image,
        label=labelled["label"],
        regions=tuple(_place_on_volume(region, image) for region in regions.get(row["image_id"], ())),
        split=parse_split(row if row["split"] else study),
        view=row["view"],
        shape=_read_shape(row) if not row["grid"] else _parse_whole_numbers(row, "grid"),
        spacing_mm=_read_spacing(row) if not row["grid_mm"] else _parse_sizes(row, "grid_mm"),
        facts={name[len(FACT) :]: text for name, text in row.cells.items() if name.startswith(FACT) and text},
    )


def _place_on_volume(region: Region, image: Path) -> Region:
    """A region with the volume it marks: a mask of its own file says by its affine which voxels it marks."""
    if isinstance(region, Mask) and isinstance(region.source, Path) and is_volume(region.source) and is_volume(image):
        return replace(region, on=image)
    return region


def _read_shape(row: CsvRow) -> tuple[int, int] | None:
    width, height = row.integer("width"), row.integer("height")
    if width is None and height is None:
        return None
    for column, value in (("width", width), ("height", height)):
        if value is None or value < 1:
            raise row.error(column, f"is {row[column]!r}, expected a positive whole number (or both sizes empty)")
    assert width is not None and height is not None
    return height, width


def _read_spacing(row: CsvRow) -> tuple[float, float] | None:
    columns = ("row_spacing_mm", "col_spacing_mm")
    down, across = (row.number_of(column) for column in columns)
    if down is None and across is None:
        return None
    for column, value in zip(columns, (down, across), strict=True):
        if value is None or not is_pixel_size(value):
            raise row.error(column, f"is {row[column]!r}, expected the size of a pixel in mm (or both empty)")
    assert down is not None and across is not None
    return down, across


def _parse_sizes(row: CsvRow, column: str) -> tuple[float, ...]:
    try:
        sizes = tuple(map(parse_number, row[column].split()))
    except ValueError:
        sizes = ()
    if len(sizes) != 3 or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise row.error(column, f"is {row[column]!r}, expected three positive numbers with spaces between")
    return sizes


def _parse_whole_numbers(row: CsvRow, column: str) -> tuple[int, ...]:
    sizes = _parse_sizes(row, column)
    if any(size != int(size) for size in sizes):
        raise row.error(column, f"is {row[column]!r}, expected three whole numbers with spaces between")
    return tuple(int(size) for size in sizes)


# -- regions -------------------------------------------------------------------------------------------------------


def _read_regions(source: Path, image_ids: set[str], classes: list[str]) -> dict[str, list[Region]]:
    path = source / "regions.json"
    if not path.exists():
        return _find_masks_by_name(source / "regions" / "mask", image_ids, classes)
    records = read_json(path)
    if not isinstance(records, list):
        raise LayoutError(f"{path} must hold a list of regions.", "See docs/cohorts.md for the layout.")
    known = {normalise_form(image_id): image_id for image_id in image_ids}
    regions: dict[str, list[Region]] = {}
    for number, record in enumerate(records):
        try:
            named = record["image_id"]
            image_id = named if named in image_ids else known.get(normalise_form(str(named)))
            if image_id is None:
                raise ValueError(f"image_id {named!r} is not in images.csv")
            regions.setdefault(image_id, []).append(build_region_of_record(record, source))
        except (KeyError, TypeError, ValueError, OverflowError, GeometryError) as error:
            what = f"misses the field {error}" if isinstance(error, KeyError) else str(error)
            what = error.message if isinstance(error, GeometryError) else what
            raise LayoutError(
                f"{path}: region {number} (counted from 0): {what.rstrip('.')}.", "Fix or remove the region."
            ) from None
    return regions


def _find_masks_by_name(folder: Path, image_ids: set[str], classes: list[str]) -> dict[str, list[Region]]:
    """Without regions.json: every IMAGE_ID[__LABEL][__NUMBER].png (.tif, .nii.gz) is a focus mask, for all classes or
    for one.
    """
    regions: dict[str, list[Region]] = {}
    known = {normalise_form(image_id): image_id for image_id in image_ids}
    for path in _list_masks(folder):
        words = unquote(_MASK.sub("", path.name)).split("__")
        # the longest image id that fits: ids and labels may hold `__` themselves
        splits = [("__".join(words[:n]), "__".join(words[n:])) for n in range(len(words), 0, -1)]
        image_id, rest = next(
            ((known[normalise_form(a)], b) for a, b in splits if normalise_form(a) in known), ("", "")
        )
        rest = normalise_form(rest)
        label = rest if rest in classes else re.sub(r"(__|^)\d+$", "", rest)
        if not image_id or label not in ["", *classes]:
            raise LayoutError(
                f"{path} does not name an image of images.csv and a class of {classes}.",
                "Name masks IMAGE_ID.png or IMAGE_ID__LABEL.png.",
            )
        regions.setdefault(image_id, []).append(Mask(path, Tag(label=label or None)))
    return regions


def _list_masks(folder: Path) -> list[Path]:
    """The files of a folder of masks; hidden ones, and what Windows leaves there, are none.

    Raises:
        LayoutError: a file of another kind, or in a folder below.
    """
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file()] if folder.is_dir() else []
    words = {path: path.relative_to(folder).parts for path in inside}
    masks = [path for path in inside if not any(w.startswith(".") or w.lower() in _LEFT for w in words[path])]
    for path in masks:
        if path.parent != folder or not _MASK.search(path.name):
            raise LayoutError(
                f"{path} is no mask that is read: without regions.json masks are PNG, TIFF or NIfTI files "
                f"(.png, .tif, .nii.gz) in {folder} itself.",
                "Move or convert it, or write a regions.json that names it.",
            )
    return masks
