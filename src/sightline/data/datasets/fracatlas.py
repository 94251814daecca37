"""FracAtlas (Abedeen et al. 2023, Sci Data 10:521, doi:10.1038/s41597-023-02432-4) in its published layout.

    dataset.csv                                       one row an image: body part, view, hardware, fractured, ...
    images/Fractured, images/Non_fractured            JPEG files
    Annotations/COCO JSON/COCO_fracture_masks.json    boxes and polygons of the fractures
    groups.csv (optional, ours)                       columns that join images of one patient

The data set has no patient ids. `fracture_count` says how many fractures were marked and so gives the label away:
it is left out of the facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from sightline.data.datasets.coco import (
    build_regions_of_annotation,
    find_category,
    group_annotations_by_image,
    is_crowd,
    read_categories,
    read_image_records,
)
from sightline.data.split import assign_groups, read_groups, split_cohort
from sightline.errors import LayoutError, count_noun
from sightline.io.image import find_images
from sightline.io.tables import CsvRow, read_json, read_table
from sightline.structures.case import Case, Cohort, describe_unknown_patients
from sightline.structures.pictures.raster import read_exif_orientation
from sightline.structures.regions import Region

CLASSES = ("no fracture", "fracture")
FOLDERS = {"0": "Non_fractured", "1": "Fractured"}
VIEWS = ("frontal", "lateral", "oblique")
FACTS = ("hand", "leg", "hip", "shoulder", "mixed", "hardware", "multiscan", *VIEWS)
MASKS = "Annotations/COCO JSON/COCO_fracture_masks.json"


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    fractions: tuple[float, float, float] | None = (0.7, 0.1, 0.2)
    """Shares of patients in train, val and test, grouped and stratified."""
    seed: int = 0
    """Seed of the split."""
    contradictions: Literal["refuse", "set aside"] = "refuse"
    """Images on which folder, table and annotations disagree: refused, or left out and listed in `about`."""


def read(source: str | Path, options: Options | None = None) -> Cohort:
    """Read FracAtlas or a part of it.

    Every annotation becomes a Box and a Polygon with role `finding` and label `fracture`. The view is the marked
    projections joined by `+`. Without `groups.csv` every image counts as its own patient, and `about` says so.

    Args:
        source: folder that holds dataset.csv, images and Annotations.
        options: see `Options`; its defaults when left out.

    Raises:
        LayoutError: missing tables or columns, wrong cells, contradictions.
    """
    source, options = Path(source), options or Options()
    flags = (*FACTS, "fractured")
    rows = read_table(source / "dataset.csv", ["image_id", *flags], key="image_id", whole=flags)
    for row in rows:
        for column in flags:
            if row[column] not in ("0", "1"):
                raise row.error(column, f"is {row[column]!r}, expected 0 or 1")
    document = read_json(source / MASKS)
    sizes = {image["file_name"]: image for image in read_image_records(document, source / MASKS)}
    marks = group_annotations_by_image(document, source / MASKS)
    names = read_categories(document, source / MASKS)
    used = {find_category(mark, names, source / MASKS) for own in marks.values() for mark in own}
    if len(used) > 1:
        raise LayoutError(
            f"{source / MASKS}: annotations of {count_noun(len(used), 'category', 'categories')} "
            f"({', '.join(map(repr, sorted(used)))}); each of them is read as a fracture, so one was expected.",
            "Remove those that mark no fracture, or import several categories as coco.",
        )

    wrong = _find_contradictions(source, rows, set(sizes), marks)
    if wrong and options.contradictions == "refuse":
        listed = "\n  ".join(f"{image}: {what}" for image, what in list(wrong.items())[:10])
        raise LayoutError(
            f"{source}: folder, table and annotations disagree about {count_noun(len(wrong), 'image')}:\n  {listed}\n",
            'Restore or mend these files, or leave these images out: --contradictions "set aside".',
        )
    rows = [row for row in rows if row["image_id"] not in wrong]
    path = source / "groups.csv"
    groups = assign_groups(
        read_groups(path, "image_id") if path.is_file() else None, [row["image_id"] for row in rows], path
    )
    cases: list[Case] = []
    turned: list[str] = []
    for row in rows:
        name = row["image_id"]
        size = sizes.get(name)
        image = source / "images" / FOLDERS[row["fractured"]] / name
        shape = (size["height"], size["width"]) if size else None
        if shape is not None and _is_stored_on_its_side(image):
            shape, turned = (shape[1], shape[0]), [*turned, Path(name).stem]
        cases.append(
            Case(
                case_id=Path(name).stem,
                study_id=Path(name).stem,
                patient_id=Path(groups[name]).stem,
                image=image,
                label=CLASSES[int(row["fractured"])],
                regions=tuple(_read_fractures(marks.get(name, []), source / MASKS)),
                view="+".join(view for view in VIEWS if row[view] == "1"),
                shape=shape,
                facts={fact: row[fact] for fact in FACTS},
            )
        )
    about = {"layout": "FracAtlas", "source": "doi:10.6084/m9.figshare.22363012", "licence": "CC BY 4.0"}
    if path.is_file():
        about["patients"] = "groups.csv (near-duplicates and neighbouring ids): FracAtlas has no patient ids"
    else:
        about["patients"] = describe_unknown_patients(len(cases), len(cases), "groups.csv")
    if turned:
        about["stored on their side"] = f"{', '.join(turned)}: stated sizes swapped, as EXIF turns these pictures"
    unmarked = [case.case_id for case in cases if case.label == "fracture" and not case.regions]
    if unmarked:
        about["fractures without a mark"] = f"{len(unmarked)}: {', '.join(unmarked)}"
    if wrong:
        about["set aside"] = f"{len(wrong)}: {', '.join(wrong)}"
    cohort = Cohort("FracAtlas", CLASSES, tuple(cases), source, about)
    return cohort if options.fractions is None else split_cohort(cohort, options.fractions, options.seed)


def _read_fractures(marks: list[dict[str, Any]], path: Path) -> Iterator[Region]:
    """What the annotations of an image outline: fractures, whatever their one category is called."""
    for mark in marks:
        role: Literal["finding", "ignore"] = "ignore" if is_crowd(mark, path) else "finding"
        yield from build_regions_of_annotation(mark, "fracture", path, role=role)


def _is_stored_on_its_side(path: Path) -> bool:
    """Whether EXIF turns the picture by a quarter: sizes are stated as stored, but the marks were drawn as shown."""
    try:
        with Image.open(path) as picture:
            return read_exif_orientation(picture, path.read_bytes()) >= 5
    except (OSError, ValueError, SyntaxError):
        return False  # the audit reports pictures that do not decode


def _list_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder; what a system leaves there (.DS_Store, Thumbs.db) is none."""
    return [path for path in find_images(folder) if path.parent == folder] if folder.is_dir() else []


def _find_contradictions(
    source: Path, rows: list[CsvRow], sized: set[str], marks: dict[str, list[Any]]
) -> dict[str, str]:
    """Image -> what its folder, its row and its annotations disagree about."""
    on_disk = {flag: {path.name for path in _list_pictures(source / "images" / name)} for flag, name in FOLDERS.items()}
    wrong = {}
    for row in rows:
        name, flag = row["image_id"], row["fractured"]
        other = "1" if flag == "0" else "0"
        if name in on_disk[other]:
            also = " and there as well" if name in on_disk[flag] else ""
            wrong[name] = f"lies in images/{FOLDERS[other]}{also}, but dataset.csv says fractured = {flag}"
        elif name not in on_disk[flag]:
            wrong[name] = f"is in dataset.csv, but not in images/{FOLDERS[flag]}"
        elif flag == "0" and marks.get(name):
            wrong[name] = "has fracture annotations, but dataset.csv says fractured = 0"
    known = {row["image_id"] for row in rows}
    wrong |= dict.fromkeys(sorted((sized | set(marks)) - known), "has annotations, but no row in dataset.csv")
    for flag, names in on_disk.items():
        wrong |= dict.fromkeys(names - known, f"lies in images/{FOLDERS[flag]}, but has no row in dataset.csv")
    return dict(sorted(wrong.items()))
