"""Open chest radiographs with boxes around both lungs, for a look at real anatomy.

    manifest.csv    one row an image: file, patientid, finding, view, ..., w, h, right_lung_xywh, left_lung_xywh
    images/         the pictures, at most 512 pixels a side

Pictures come from ieee8023/covid-chestxray-dataset (Cohen 2020), boxes from GeneralBlockchain's lung bounding boxes;
each image has a licence of its own, kept in its facts. A box stands as "[x, y, width, height]" in pixels; the patient's
right lung is on the left of the picture.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sightline.data.split import split_cohort
from sightline.errors import LayoutError, count_noun
from sightline.io.files import parse_json
from sightline.io.image import read_size
from sightline.io.tables import CsvRow, find_path_inside, read_table
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Box
from sightline.structures.tag import Tag

CLASSES = ("other", "pneumonia")
FRONTAL = ("PA", "AP", "AP Supine", "AP Erect")
# infections of the lung among the source's findings; ARDS has many causes and is `other`
INFECTIONS = (
    "pneumonia", "covid-19", "sars", "mers", "mers-cov", "influenza", "pneumocystis", "streptococcus", "klebsiella",
    "legionella", "mycoplasma", "chlamydophila", "varicella", "lipoid", "e.coli", "nocardia", "aspergillosis",
    "tuberculosis", "herpes", "staphylococcus", "bacterial", "viral", "fungal",
)  # fmt: skip
UNKNOWN = ("", "todo", "unknown")
_LUNGS = ("right_lung_xywh", "left_lung_xywh")
_FACTS = {"sex": "sex", "age": "age", "location": "location", "doi": "doi", "url": "source", "license": "licence"}
_SLACK_PX = 1.0


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    unknown: Literal["leave out", "other"] = "other"
    """Images whose finding was never stated ("todo", "Unknown"): `other`, which they need not be, or left out."""
    fractions: tuple[float, float, float] | None = None
    """Shares of patients in train, val and test, grouped and stratified; without them cases stay unassigned."""
    seed: int = 0
    """Seed of the split."""


def read(source: str | Path, options: Options | None = None) -> Cohort:
    """Frontal radiographs; others (laterals, slices of CT) are left out and counted in `about`.

    An image is `pneumonia` where any part of its finding ("Pneumonia/Viral/COVID-19") names an infection of the lung,
    else `other`. The finding itself is the fact `truth_finding`, which no audit takes for an acquisition fact.

    Args:
        source: folder with manifest.csv and images/.
        options: see `Options`; its defaults when left out.

    Raises:
        LayoutError: a file, column, box or size is missing or wrong, or nothing is left.
    """
    source, options = Path(source), options or Options()
    rows = read_table(
        source / "manifest.csv",
        ["file", "patientid", "finding", "view", "w", "h", *_FACTS, *_LUNGS],
        key="file",
    )
    views: Counter[str] = Counter()
    unstated = 0
    cases = []
    for row in rows:
        if row["view"].strip().lower() not in {view.lower() for view in FRONTAL}:
            views[row["view"] or "not stated"] += 1
            continue
        if row["finding"].strip().lower() in UNKNOWN:
            unstated += 1
            if options.unknown == "leave out":
                continue
        cases.append(_build_case(source, row))
    if not cases:
        raise LayoutError(
            f"{source / 'manifest.csv'} has no frontal radiograph among {count_noun(len(rows), 'row')}.",
            f"Views: {FRONTAL}.",
        )
    about = {
        "layout": "chest_lungs",
        "licence": ", ".join(f"{name} ({n})" for name, n in _count_licences(cases).items()) + "; boxes CC BY 4.0",
        "counts": ", ".join([
            f"rows {len(rows)}", f"kept {len(cases)}", *(f"view {name} left out {n}" for name, n in views.items()),
            f"finding not stated {unstated} ({options.unknown})",
        ]),
    }  # fmt: skip
    cohort = Cohort("chest_lungs", CLASSES, tuple(cases), source, about)
    return cohort if options.fractions is None else split_cohort(cohort, options.fractions, options.seed)


def label_finding(finding: str) -> str:
    """The class of a finding: any of its parts, divided by `/` or `,`, that is an infection makes it `pneumonia`.

    Letters and digits alone count (`Covid19` is `COVID-19`).

    Raises:
        LayoutError: an infection is named, but no part is one (`no pneumonia`, `Pneumonia (viral)`): which is meant?
    """
    known = {_reduce(name) for name in INFECTIONS}
    if known & {_reduce(part) for part in finding.replace(",", "/").split("/")}:
        return "pneumonia"
    if named := sorted(known & {_reduce(word) for word in re.split(r"[^\w.-]+", finding)}):
        raise LayoutError(
            f"The finding {finding!r} names {named[0]} among other words, so its class is not known.",
            "Divide what is there by / (Pneumonia/Viral), and call what is not there No Finding.",
        )
    return "other"


def _reduce(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _count_licences(cases: Sequence[Case]) -> Counter[str]:
    return Counter(case.facts.get("licence", "not stated") for case in cases)


def _build_case(source: Path, row: CsvRow) -> Case:
    path = find_path_inside(source / "images", row["file"])
    if path is None or not path.is_file():
        raise row.error("file", f"names {row['file']!r}, which is not under {source / 'images'}")
    shape = (row.integer("h"), row.integer("w"))
    found = read_size(path)
    if found != shape:
        raise row.error("w", f"and 'h' say {shape[1]} x {shape[0]}; {row['file']} is {found[1]} x {found[0]}")
    try:
        label = label_finding(row["finding"])
    except LayoutError as error:
        raise LayoutError(f"{row.path}: row {row.number}: {error.message}", error.remedy) from None
    facts = {name: row[column].strip() for column, name in _FACTS.items() if row[column].strip()}
    return Case(
        case_id=Path(row["file"]).stem, study_id=Path(row["file"]).stem, patient_id=row.need("patientid"), image=path,
        label=label, regions=tuple(_read_box(row, column, found) for column in _LUNGS),
        view=row["view"].strip(), shape=found, facts={**facts, "truth_finding": row["finding"].strip()},
    )  # fmt: skip


def _read_box(row: CsvRow, column: str, shape: tuple[int, int]) -> Box:
    """A lung's box, cut to the picture where rounding leads out of it."""
    try:
        x, y, width, height = (float(number) for number in parse_json(row[column]))
    except (ValueError, TypeError, RecursionError):
        raise row.error(column, f"is {row[column]!r}, expected [x, y, width, height]") from None
    start, stop = (y, x), (y + height, x + width)
    out = max(-y, -x, stop[0] - shape[0], stop[1] - shape[1])
    if not (all(map(math.isfinite, (*start, *stop))) and min(width, height) > 0.0 and out <= _SLACK_PX):
        raise row.error(column, f"is {row[column]!r}, which is no box in a picture of {shape[1]} x {shape[0]} pixels")
    return Box(
        (max(0.0, start[0]), max(0.0, start[1])), (min(float(shape[0]), stop[0]), min(float(shape[1]), stop[1])),
        Tag("organ", "pneumonia"),
    )  # fmt: skip
