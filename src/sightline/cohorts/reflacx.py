"""REFLACX 1.0.0 (Bigolin Lanfredi 2022): chest radiographs that radiologists dictated on, with gaze and ellipses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from sightline.case import Case, Cohort, Split
from sightline.cohorts.mimic_images import find_images
from sightline.cohorts.reflacx_tables import Reading, gaze_of_reading, read_marks, read_metadata
from sightline.cohorts.split import refuse_leakage
from sightline.errors import CohortError, LayoutError
from sightline.io.image import read_size
from sightline.region import Box, Polygon, Region
from sightline.tag import Tag

_SPLITS: Mapping[str, Split] = {"train": "train", "validate": "val", "test": "test"}
SIDES = 48


def read(
    source: Path,
    *,
    gaze: Literal["samples", "fixations"] = "fixations",
    images: Path | None = None,
    findings: Sequence[str] = (),
    certainty: int = 3,
    rate_hz: float = 60.0,
) -> Cohort:
    """The cohort of a tree in the published layout: one case an image, one gaze a reading.

    Several radiologists read the same image in phases 1 and 2: their gazes stay apart, `tag.reader` is the reading's id
    (the publishers do not say who read). A finding counts as present where at least half of an image's readings hold
    it as likely as `certainty`. Splits are the published ones (MIMIC-CXR's).

    Args:
        source: folder with main_data (and gaze_data, for samples).
        gaze: `fixations`, or the 1000 Hz `samples`, averaged over 1 / rate_hz.
        images: folder of the images; the tree itself by default.
        findings: columns of the metadata to tell apart; an image with several has the first of them. Without any the
            classes are `no finding` and `finding`.
        certainty: 1 unlikely (below 10%), 2 less likely (25%), 3 possibly (50%), 4 probably (75%), 5 consistent with
            (above 90%); ellipses below are left out, too.
        rate_hz: at which samples are kept.

    Raises:
        LayoutError: a missing or contradictory file, or a finding that no table has.
    """
    if certainty not in range(1, 6) or not 1.0 <= rate_hz <= 1000.0:
        raise LayoutError(
            f"certainty is {certainty} and rate_hz {rate_hz:g}; expected 1 to 5 and 1 to 1000.", "Mend the option."
        )
    readings = read_metadata(source / "main_data")
    known = sorted({name for reading in readings for name in reading.certainties})
    unknown = [name for name in findings if name not in known]
    if unknown:
        raise LayoutError(f"{source} has no finding {unknown[0]!r}; it has {', '.join(known)}.", "Name one of these.")
    classes = ("none of these", *findings) if findings else ("no finding", "finding")
    counts: Counter[str] = Counter({"readings": len(readings)})
    by_image: dict[str, list[Reading]] = {}
    for reading in readings:
        by_image.setdefault(reading.dicom_id, []).append(reading)
    counts["images"] = len(by_image)
    labels = {i: label_of(group, findings, certainty, counts) for i, group in by_image.items()}
    wanted = {i: group for i, group in by_image.items() if labels[i] is not None}
    counts["not asked about these findings"] = len(by_image) - len(wanted)
    files = find_images(images or source, {i: group[0].image for i, group in wanted.items()})
    counts["image missing"] = len(wanted) - len(files)
    cases = []
    for dicom_id, path in files.items():
        group = wanted[dicom_id]
        shape = read_size(path)
        if shape != group[0].shape:
            raise LayoutError(
                f"{path} has {shape[0]} x {shape[1]} pixels, REFLACX read {group[0].shape[0]} x {group[0].shape[1]}.",
                "Use MIMIC-CXR's images in their own size.",
            )
        regions: list[Region] = []
        for reading in group:
            found = gaze_of_reading(source, reading, gaze, rate_hz, counts)
            regions += [] if found is None else [found]
            regions += _marks(source / "main_data" / reading.reading_id, reading, findings, certainty, counts)
        cases.append(_case(group, path, str(labels[dicom_id]), tuple(regions)))
    about = {
        "layout": "REFLACX 1.0.0",
        "licence": "PhysioNet Credentialed Health Data License 1.5.0",
        "counts": ", ".join(f"{name} {n}" for name, n in counts.items() if n or name == "readings"),
        "label": f"certainty {certainty} or more in at least half of an image's readings",
    }
    try:
        cohort = Cohort("reflacx", classes, tuple(cases), source, about)
        refuse_leakage(cohort)
    except CohortError as error:
        raise LayoutError(f"{source}: {error.message}", error.remedy) from None
    return cohort


def label_of(readings: Sequence[Reading], findings: Sequence[str], certainty: int, counts: Counter[str]) -> str | None:
    """The class of an image, or None where no reading was asked about one of the findings."""

    def present(name: str) -> bool | None:
        asked = [reading.certainties[name] >= certainty for reading in readings if name in reading.certainties]
        return 2 * sum(asked) >= len(asked) if asked else None

    if not findings:
        either = [any(value >= certainty for value in reading.certainties.values()) for reading in readings]
        return "finding" if 2 * sum(either) >= len(either) else "no finding"
    answers = {name: present(name) for name in findings}
    if None in answers.values():
        return None
    positive = [name for name, answer in answers.items() if answer]
    counts["several findings"] += len(positive) > 1
    return positive[0] if positive else "none of these"


def _case(readings: Sequence[Reading], path: Path, label: str, regions: tuple[Region, ...]) -> Case:
    first = readings[0]
    for reading in readings:
        if (reading.patient_id, reading.split, reading.shape) != (first.patient_id, first.split, first.shape):
            raise LayoutError(
                f"Readings {first.reading_id} and {reading.reading_id} of one image disagree about "
                "patient, split or size.",
                "Restore the published metadata.",
            )
    if first.split not in _SPLITS:
        raise LayoutError(
            f"Reading {first.reading_id} is of the split {first.split!r}, expected one of {', '.join(_SPLITS)}.",
            "Restore the published metadata.",
        )
    return Case(
        case_id=first.dicom_id, study_id=first.study_id, patient_id=first.patient_id, image=path, label=label,
        regions=regions, split=_SPLITS[first.split], view="frontal", shape=first.shape,
        facts={"phase": str(first.phase), "readings": str(len(readings))},
    )  # fmt: skip


def _marks(
    folder: Path, reading: Reading, findings: Sequence[str], certainty: int, counts: Counter[str]
) -> list[Region]:
    """Ellipses that are certain enough, for the classes that they speak for; the box around lungs and heart."""
    regions: list[Region] = []
    for mark in read_marks(folder / "anomaly_location_ellipses.csv", certain=True):
        if mark.certainty < certainty:
            counts["ellipse not certain enough"] += 1
            continue
        spoken = [name for name in findings if name.lower() in mark.labels] if findings else ["finding"]
        counts["ellipse of other findings"] += not spoken
        regions += [Polygon((ellipse(mark.corners),), Tag("finding", name, reading.reading_id)) for name in spoken]
    for mark in read_marks(folder / "chest_bounding_box.csv", certain=False):
        r0, c0, r1, c1 = mark.corners
        regions.append(Box((r0, c0), (r1, c1), Tag("organ", None, reading.reading_id)))
    return regions


def ellipse(corners: tuple[float, float, float, float]) -> tuple[tuple[float, float], ...]:
    """The ellipse that fills an upright box, as a ring of `SIDES` points; of the same area as the ellipse.

    Args:
        corners: row start, column start, row stop, column stop.
    """
    r0, c0, r1, c1 = corners
    turns = 2.0 * np.pi * np.arange(SIDES) / SIDES
    # a ring inscribed in the ellipse would be smaller than it
    grow = float(np.sqrt(2.0 * np.pi / (SIDES * np.sin(2.0 * np.pi / SIDES))))
    rows = (r0 + r1) / 2.0 + (r1 - r0) / 2.0 * grow * np.sin(turns)
    columns = (c0 + c1) / 2.0 + (c1 - c0) / 2.0 * grow * np.cos(turns)
    return tuple((float(r), float(c)) for r, c in zip(rows, columns, strict=True))
