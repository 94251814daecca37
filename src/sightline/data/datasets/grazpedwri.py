"""GRAZPEDWRI-DX (Nagy et al. 2022, Sci Data 9:222, doi:10.1038/s41597-022-01328-z), children's wrists, as published.

    dataset.csv       one row an image: filestem, patient_id, study_number, projection, ao_classification, ...
    FILESTEM.png      16 bit, in any folder below (the archive comes in four parts)
    FILESTEM.txt      boxes in YOLO's layout, in any folder below

Only the images that are there are read, so that one part of the archive is a cohort.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sightline.data.split import split_cohort
from sightline.data.task import read_ao
from sightline.errors import LayoutError, SightlineError, count_noun
from sightline.io.image import measure_whole_picture
from sightline.io.picture import Reject, join_reasons
from sightline.io.tables import CsvRow, parse_number, read_table, read_text, refuse_underscores
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import is_pixel_size
from sightline.structures.regions import Box
from sightline.structures.tag import Tag

LabelFrom = Literal["fracture_visible", "ao_classification"]

# the order of the published meta.yaml
OBJECTS = (
    "boneanomaly", "bonelesion", "foreignbody", "fracture", "metal", "periostealreaction", "pronatorsign",
    "softtissue", "text",
)  # fmt: skip
CLASSES = ("no fracture", "fracture")
NORMAL = "normal"
VIEWS = {"1": "frontal", "2": "lateral", "3": "oblique"}
FLAGS = ("initial_exam", "cast", "osteopenia", "metal")
COLUMNS = (
    "filestem", "patient_id", "study_number", "gender", "age", "laterality", "projection", "ao_classification",
    "diagnosis_uncertain", "fracture_visible", "pixel_spacing", "device_manufacturer", *FLAGS,
)  # fmt: skip
WHOLE = ("patient_id", "study_number", "projection", "diagnosis_uncertain", "fracture_visible", *FLAGS)


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    label_from: LabelFrom = "fracture_visible"
    """The column that says the label: `fracture_visible`, image by image, or the cell of `ao_classification`."""
    fractions: tuple[float, float, float] | None = (0.7, 0.1, 0.2)
    """Shares of patients in train, val and test, grouped and stratified."""
    seed: int = 0
    """Seed of the split."""


def read(source: str | Path, options: Options | None = None) -> tuple[Cohort, tuple[Reject, ...]]:
    """Read the images that are there, with their rows and the boxes of their fractures.

    A study is one wrist on one visit. Where its images differ in their label (a fracture that shows in one projection
    alone) each image is a study of its own, as one label must hold for a study.

    Args:
        source: folder that holds dataset.csv and, somewhere below, the images and their boxes.
        options: see `Options`; its defaults when left out.

    Returns:
        The cohort, and images that were left out: no row, unreadable, broken boxes, or fractures marked on an image
        whose row says that none is visible.

    Raises:
        LayoutError: the table or a column is missing, a cell is wrong, or no image is there.
    """
    source, options = Path(source), options or Options()
    rows = {row["filestem"]: row for row in read_table(source / "dataset.csv", COLUMNS, key="filestem", whole=WHOLE)}
    images, boxes = _find_files(source, ".png"), _find_files(source, ".txt")
    rejects = [
        Reject(path, "no row of dataset.csv has this filestem", "Leave the file out, or fix the table.")
        for stem, path in images.items()
        if stem not in rows
    ]
    cases: list[Case] = []
    left_out: Counter[str] = Counter()
    for stem in sorted(rows.keys() & images.keys()):
        case = _build_case(rows[stem], images[stem], options.label_from)
        if case is None:
            left_out["a visible fracture without an AO code"] += 1
            continue
        try:
            cases.append(_add_marks(case, boxes.get(stem), visible=rows[stem]["fracture_visible"] == "1"))
        except SightlineError as error:
            rejects.append(Reject(images[stem], error.message, error.remedy))
    if not cases:
        raise LayoutError(
            f"{source}: none of the {len(rows)} images of dataset.csv can be read (PNG files below: {len(images)}, "
            f"left out: {len(rejects) + left_out.total()}).{join_reasons(rejects, 5)}",
            rejects[0].remedy if rejects else "Unpack the images (images_part1.zip ...) beside dataset.csv.",
        )
    cohort = Cohort(
        "GRAZPEDWRI-DX",
        _list_classes(cases, options.label_from),
        tuple(_unify_labels(cases)),
        source,
        _describe_import(rows, cases, boxes, left_out, options.label_from),
    )
    return cohort if options.fractions is None else split_cohort(cohort, options.fractions, options.seed), tuple(
        rejects
    )


def _find_files(source: Path, suffix: str) -> dict[str, Path]:
    """Files below by stem; the same stem twice would leave open which one is meant.

    Raises:
        LayoutError: it stands twice.
    """
    found: dict[str, Path] = {}
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() != suffix:
            continue
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise LayoutError(f"{other} and {path} have the same name.", "Keep one of the two.")
    return found


def _build_case(row: CsvRow, image: Path, label_from: LabelFrom) -> Case | None:
    """What the table says of an image; None where it has no label of the kind asked for."""
    if row["projection"] not in VIEWS:
        raise row.error("projection", f"is {row['projection']!r}, expected 1 (frontal), 2 (lateral) or 3 (oblique)")
    for flag in (*FLAGS, "diagnosis_uncertain", "fracture_visible"):
        if row[flag] not in ("", "0", "1"):
            raise row.error(flag, f"is {row[flag]!r}, expected 1 or an empty cell")
    visible = row["fracture_visible"] == "1"
    code = row["ao_classification"].strip()
    if code and read_ao(code) is None:
        raise row.error("ao_classification", f"is {code!r}, which is no AO code")
    if label_from == "fracture_visible":
        label = CLASSES[visible]
    elif visible and not code:
        return None
    else:
        label = code or NORMAL
    spacing = row.number_of("pixel_spacing")
    if spacing is not None and not is_pixel_size(spacing):
        raise row.error("pixel_spacing", f"is {row['pixel_spacing']!r}, expected the size of a pixel in mm")
    facts = {flag: row[flag] or "0" for flag in FLAGS}
    facts |= {"sex": row["gender"], "side": row["laterality"], "device": row["device_manufacturer"]}
    facts |= {"truth_ao": code, "truth_uncertain": row["diagnosis_uncertain"] or "0"}
    return Case(
        case_id=row["filestem"],
        study_id=f"{row.need('patient_id')}-{row.need('study_number')}-{row['laterality']}",
        patient_id=row.need("patient_id"),
        image=image,
        label=label,
        view=VIEWS[row["projection"]],
        spacing_mm=(spacing, spacing) if spacing else None,
        facts={name: value for name, value in facts.items() if value},
    )


def _add_marks(case: Case, boxes: Path | None, *, visible: bool) -> Case:
    """The case with its size and the boxes of its fractures; what else is boxed is no finding of any class here."""
    shape = measure_whole_picture(case.image)
    objects = read_yolo_boxes(boxes, shape, OBJECTS) if boxes is not None else ()
    fractures = [box for name, box in objects if name == "fracture"]
    if fractures and not visible:
        raise LayoutError(
            f"{boxes}: {len(fractures)} fractures are marked, but dataset.csv says that none is visible.",
            "Fix the row or the boxes.",
        )
    regions = tuple(replace(box, tag=Tag("finding", case.label)) for box in fractures)
    return replace(case, shape=shape, regions=regions)


def _list_classes(cases: Sequence[Case], label_from: LabelFrom) -> tuple[str, ...]:
    if label_from == "fracture_visible":
        return CLASSES
    return (NORMAL, *sorted({case.label for case in cases} - {NORMAL}))


def _unify_labels(cases: Sequence[Case]) -> list[Case]:
    labels: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        labels[case.study_id].add(case.label)
    return [replace(case, study_id=case.case_id) if len(labels[case.study_id]) > 1 else case for case in cases]


def _describe_import(
    rows: Mapping[str, CsvRow],
    cases: Sequence[Case],
    boxes: Mapping[str, Path],
    left_out: Mapping[str, int],
    label_from: LabelFrom,
) -> dict[str, str]:
    about = {
        "layout": "GRAZPEDWRI-DX",
        "source": "doi:10.6084/m9.figshare.14825193",
        "licence": "CC BY 4.0",
        "label from": label_from,
    }
    counts = [f"rows {len(rows)}", f"images {len(cases)}"]
    counts += [f"left out, {why} {n}" for why, n in left_out.items()]
    split_up = sum(n > 1 for n in Counter(case.study_id for case in cases).values())
    alone = sum(a is not b for a, b in zip(cases, _unify_labels(cases), strict=True))
    counts += [f"studies of several images {split_up}", f"images alone because their study's labels differ {alone}"]
    about["counts"] = ", ".join(counts)
    marked = [case for case in cases if case.facts.get("truth_ao") or case.label == "fracture"]
    unmarked = sum(not case.regions for case in marked)
    about["fractures without a mark"] = f"{unmarked} of {count_noun(len(marked), 'image')} with a fracture"
    if not any(case.case_id in boxes for case in cases):
        about["warning"] = "no boxes (YOLO's text files) were found below: nothing can guide or be localised"
    return about


# written with six digits, a box at the edge may lead out of the picture by as much
_SLACK = 1e-3


def read_yolo_boxes(path: Path, shape: tuple[int, int], names: Sequence[str]) -> tuple[tuple[str, Box], ...]:
    """The boxes of one image, in its pixels, each with the name of its class.

    Args:
        path: the text file; an empty one says that nothing is marked.
        shape: (rows, columns) of the image.
        names: of the classes, by number.

    Raises:
        LayoutError: a line that is no box of a known class inside the picture.
    """
    lines = read_text(path, "Restore the file.").splitlines()
    return tuple(
        _parse_box(path, number, line, shape, names) for number, line in enumerate(lines, start=1) if line.strip()
    )


def _parse_box(path: Path, number: int, line: str, shape: tuple[int, int], names: Sequence[str]) -> tuple[str, Box]:
    rows, columns = shape
    try:
        word, *numbers = line.split()
        x, y, width, height = map(parse_number, numbers)
        name = names[int(refuse_underscores(word))] if int(word) >= 0 else None
    except (ValueError, IndexError):
        name = None
    if name is None:
        raise LayoutError(
            f"{path}: line {number} is {line.strip()!r}; a class from 0 to {len(names) - 1} and four numbers were "
            "expected.",
            "Fix this line.",
        )
    edges = (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
    inside = all(math.isfinite(edge) and -_SLACK <= edge <= 1.0 + _SLACK for edge in edges)
    if not inside or width <= 0.0 or height <= 0.0:
        raise LayoutError(
            f"{path}: line {number} is {line.strip()!r}, which is no box inside the picture.",
            "Centres and sides are fractions of the picture's width and height.",
        )
    top, left, bottom, right = (min(max(edge, 0.0), 1.0) for edge in edges)
    return name, Box((top * rows, left * columns), (bottom * rows, right * columns))
