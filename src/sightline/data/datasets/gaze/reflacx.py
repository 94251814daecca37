"""REFLACX 1.0.0 (Bigolin Lanfredi 2022): chest radiographs that radiologists dictated on, with gaze and ellipses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd

from sightline.data.datasets.gaze.mimic_cxr import find_images
from sightline.data.datasets.gaze.recordings import require_seconds
from sightline.data.split import refuse_leakage
from sightline.errors import CohortError, LayoutError
from sightline.io.image import read_size
from sightline.io.tables import CsvRow, find_dialect, find_path_inside, read_table, require_even_rows
from sightline.structures.case import Case, Cohort, Split
from sightline.structures.gaze import LONGEST_DWELL_S, Gaze
from sightline.structures.identifiers import normalise_form
from sightline.structures.regions import Box, Polygon, Region
from sightline.structures.tag import Tag

_SPLITS: Mapping[str, Split] = {"train": "train", "validate": "val", "test": "test"}
SIDES = 48


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    gaze: Literal["samples", "fixations"] = "fixations"
    """Fixations, or the 1000 Hz samples averaged over 1 / `rate_hz`."""
    images: Path | None = None
    """Folder of the images, where they are not in the tree."""
    findings: tuple[str, ...] = ()
    """Findings to tell apart, the first that an image has; without: finding or none."""
    certainty: int = 3
    """From which certainty on a finding counts: 1 unlikely, 2 less likely, 3 possibly, 4 probably, 5 consistent."""
    rate_hz: float = 60.0
    """At which samples are kept."""


def read(source: str | Path, options: Options | None = None) -> Cohort:
    """The cohort of a tree in the published layout: one case an image, one gaze a reading.

    Several radiologists read the same image in phases 1 and 2: their gazes stay apart, `tag.reader` is the reading's id
    (the publishers do not say who read). A finding counts as present where at least half of an image's readings hold
    it as likely as `certainty`. Splits are the published ones (MIMIC-CXR's).

    Args:
        source: folder with main_data (and gaze_data, for samples).
        options: see `Options`; its defaults when left out.

    Raises:
        LayoutError: a missing or contradictory file, or a finding that no table has.
    """
    source, options = Path(source), options or Options()
    if options.certainty not in range(1, 6) or not 1.0 <= options.rate_hz <= 1000.0:
        raise LayoutError(
            f"certainty is {options.certainty} and rate_hz {options.rate_hz:g}; expected 1 to 5 and 1 to 1000.",
            "Fix the option.",
        )
    readings = read_metadata(source / "main_data")
    known = sorted({name for reading in readings for name in reading.certainties})
    unknown = [name for name in options.findings if name not in known]
    if unknown:
        raise LayoutError(f"{source} has no finding {unknown[0]!r}; it has {', '.join(known)}.", "Name one of these.")
    classes = ("none of these", *options.findings) if options.findings else ("no finding", "finding")
    counts: Counter[str] = Counter({"readings": len(readings)})
    by_image: dict[str, list[ReadingRecord]] = {}
    for reading in readings:
        by_image.setdefault(reading.dicom_id, []).append(reading)
    counts["images"] = len(by_image)
    labels = {i: label_image(group, options.findings, options.certainty, counts) for i, group in by_image.items()}
    wanted = {i: group for i, group in by_image.items() if labels[i] is not None}
    counts["not asked about these findings"] = len(by_image) - len(wanted)
    files = find_images(options.images or source, {i: group[0].image for i, group in wanted.items()})
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
            found = build_gaze_of_reading(source, reading, options.gaze, options.rate_hz, counts)
            regions += [] if found is None else [found]
            regions += _read_marks(
                source / "main_data" / reading.reading_id, reading, options.findings, options.certainty, counts
            )
        cases.append(_build_case(group, path, str(labels[dicom_id]), tuple(regions)))
    about = {
        "layout": "REFLACX 1.0.0",
        "licence": "PhysioNet Credentialed Health Data License 1.5.0",
        "counts": ", ".join(f"{name} {n}" for name, n in counts.items() if n or name == "readings"),
        "label": f"certainty {options.certainty} or more in at least half of an image's readings",
    }
    try:
        cohort = Cohort("reflacx", classes, tuple(cases), source, about)
        refuse_leakage(cohort)
    except CohortError as error:
        raise LayoutError(f"{source}: {error.message}", error.remedy) from None
    return cohort


def label_image(
    readings: Sequence[ReadingRecord], findings: Sequence[str], certainty: int, counts: Counter[str]
) -> str | None:
    """The class of an image, or None where no reading was asked about one of the findings."""

    def is_present(name: str) -> bool | None:
        asked = [reading.certainties[name] >= certainty for reading in readings if name in reading.certainties]
        return 2 * sum(asked) >= len(asked) if asked else None

    if not findings:
        either = [any(value >= certainty for value in reading.certainties.values()) for reading in readings]
        return "finding" if 2 * sum(either) >= len(either) else "no finding"
    answers = {name: is_present(name) for name in findings}
    if None in answers.values():
        return None
    positive = [name for name, answer in answers.items() if answer]
    counts["several findings"] += len(positive) > 1
    return positive[0] if positive else "none of these"


def _build_case(readings: Sequence[ReadingRecord], path: Path, label: str, regions: tuple[Region, ...]) -> Case:
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


def _read_marks(
    folder: Path, reading: ReadingRecord, findings: Sequence[str], certainty: int, counts: Counter[str]
) -> list[Region]:
    """Ellipses that are certain enough, for the classes that they speak for; the box around lungs and heart."""
    regions: list[Region] = []
    for mark in read_marks(folder / "anomaly_location_ellipses.csv", certain=True, counts=counts):
        if mark.certainty < certainty:
            counts["ellipse not certain enough"] += 1
            continue
        spoken = [name for name in findings if name.lower() in mark.labels] if findings else ["finding"]
        counts["ellipse of other findings"] += not spoken
        regions += [
            Polygon((build_ellipse(mark.corners),), Tag("finding", name, reading.reading_id)) for name in spoken
        ]
    for mark in read_marks(folder / "chest_bounding_box.csv", certain=False, counts=counts):
        r0, c0, r1, c1 = mark.corners
        regions.append(Box((r0, c0), (r1, c1), Tag("organ", None, reading.reading_id)))
    return regions


def build_ellipse(corners: tuple[float, float, float, float]) -> tuple[tuple[float, float], ...]:
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


PHASES = (1, 2, 3)
_IDS = (
    "id", "split", "eye_tracking_data_discarded", "image", "dicom_id", "subject_id", "image_size_x", "image_size_y",
)  # fmt: skip
# what radiologists gave a certainty for: in phase 1, and in phases 2 and 3
_EARLY = (
    "Airway wall thickening", "Atelectasis", "Consolidation", "Emphysema", "Enlarged cardiac silhouette", "Fibrosis",
    "Fracture", "Groundglass opacity", "Mass", "Nodule", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary edema", "Wide mediastinum",
)  # fmt: skip
_LATE = (
    "Abnormal mediastinal contour", "Acute fracture", "Atelectasis", "Consolidation", "Enlarged cardiac silhouette",
    "Enlarged hilum", "Groundglass opacity", "Hiatal hernia", "High lung volume / emphysema",
    "Interstitial lung disease", "Lung nodule or mass", "Pleural abnormality", "Pneumothorax", "Pulmonary edema",
)  # fmt: skip
_DEGREE = ("angular_resolution_x_pixels_per_degree", "angular_resolution_y_pixels_per_degree")
_PLACE = ("x_position", "y_position")


@dataclass(frozen=True)
class ReadingRecord:
    """One radiologist's reading of one image: a row of the metadata.

    Attributes:
        reading_id: folder of its files.
        dicom_id: lower case.
        patient_id: of MIMIC-CXR.
        study_id: from the image's path, else the dicom id.
        image: path as the table states it.
        shape: (rows, columns).
        split: `train`, `validate` or `test`.
        phase: 1, 2 or 3.
        discarded: the gaze was thrown away; marks are there.
        certainties: 0 to 5 by finding; phase 1 asked about others than phases 2 and 3.
    """

    reading_id: str
    dicom_id: str
    patient_id: str
    study_id: str
    image: str
    shape: tuple[int, int]
    split: str
    phase: int
    discarded: bool
    certainties: Mapping[str, int]


@dataclass(frozen=True)
class Mark:
    """A row of the ellipses or of the chest box: corners (row start, column start, row stop, column stop)."""

    corners: tuple[float, float, float, float]
    certainty: int
    labels: frozenset[str]  # lower case


def read_metadata(folder: Path) -> list[ReadingRecord]:
    """The readings of every phase whose table is there.

    Raises:
        LayoutError: no table, missing columns, or a cell that is not what it should be.
    """
    readings: list[ReadingRecord] = []
    for phase in PHASES:
        path = folder / f"metadata_phase_{phase}.csv"
        if path.exists():
            rows = read_table(path, _IDS, key="id", known=_EARLY if phase == 1 else _LATE)
            readings += [_parse_reading(row, phase) for row in rows]
    if not readings:
        raise LayoutError(
            f"{folder} has no reading: metadata_phase_1.csv, _2.csv, _3.csv are missing or empty.",
            "Point at REFLACX 1.0.0, the folder that holds main_data.",
        )
    repeated = [i for i, n in Counter(reading.reading_id for reading in readings).items() if n > 1]
    if repeated:
        raise LayoutError(f"{folder}: the reading {repeated[0]} is in two phases.", "Restore the published metadata.")
    return readings


def _parse_reading(row: CsvRow, phase: int) -> ReadingRecord:
    rows, columns = (row.number_of(f"image_size_{axis}") for axis in "yx")
    for axis, size in (("y", rows), ("x", columns)):
        if size is None or not 1 <= size <= 100_000 or size != int(size):
            raise row.error(f"image_size_{axis}", f"is {row[f'image_size_{axis}']!r}, expected whole pixels")
    assert rows is not None and columns is not None
    certainties = {}
    for name in _EARLY if phase == 1 else _LATE:
        if name not in row.cells:
            continue
        value = row.number_of(name)
        if value is None or value not in range(6):
            raise row.error(name, f"is {row[name]!r}, expected a certainty from 0 to 5")
        certainties[name] = int(value)
    if not certainties:
        raise LayoutError(f"{row.path} has no column of a finding, e.g. {_LATE[2]}.", "Restore the published metadata.")
    if find_path_inside(row.path.parent, row.need("id")) is None or "/" in row["id"]:
        raise row.error("id", f"is {row['id']!r}, which is no name of a folder")
    image = row["image"].replace("\\", "/")
    dicom_id = normalise_form(row.need("dicom_id")).lower()
    study = next((p[1:] for p in reversed(PurePosixPath(image).parts) if p[:1] == "s" and p[1:].isdigit()), None)
    return ReadingRecord(
        row["id"], dicom_id, row.need("subject_id"), study or dicom_id, image,
        (int(rows), int(columns)), row.need("split"), phase, _is_true(row, "eye_tracking_data_discarded"), certainties,
    )  # fmt: skip


def read_marks(path: Path, *, certain: bool, counts: Counter[str] | None = None) -> list[Mark]:
    """Ellipses (`certain`: with certainty and labels) or chest boxes.

    Args:
        path: the table.
        certain: whether it has certainty and labels.
        counts: marks without an area, or whose corners are reversed, are left out and counted here.

    Raises:
        LayoutError: no such file, or corners that are no numbers.
    """
    columns = ("xmin", "ymin", "xmax", "ymax")
    marks = []
    findings = sorted({*_EARLY, *_LATE}) if certain else ()
    for row in read_table(path, (*columns, "certainty") if certain else columns, known=findings):
        corners = [row.number_of(column) for column in ("ymin", "xmin", "ymax", "xmax")]
        sure = row.number_of("certainty") if certain else 0.0
        if None in corners or sure is None:
            raise row.error("xmin", "to ymax, or certainty, is empty")
        if sure not in range(6):
            raise row.error("certainty", f"is {row['certainty']!r}, expected a whole number from 0 to 5")
        r0, c0, r1, c1 = (float(corner) for corner in corners if corner is not None)
        named = {name.lower() for name in {*_EARLY, *_LATE} if row[name] and _is_true(row, name)}
        if r1 > r0 and c1 > c0:
            marks.append(Mark((r0, c0, r1, c1), int(sure), frozenset(named)))
        elif counts is not None:
            counts["ellipse without an area" if certain else "chest box without an area"] += 1
    return marks


def build_gaze_of_reading(
    source: Path, reading: ReadingRecord, kind: Literal["samples", "fixations"], rate_hz: float, counts: Counter[str]
) -> Gaze | None:
    """The gaze of a reading in source pixels, or None where it was discarded or no place lies on the image.

    Args:
        source: folder of main_data and gaze_data.
        reading: whose.
        kind: which table.
        rate_hz: samples are averaged over 1 / rate_hz.
        counts: what is left out is counted here.

    Raises:
        LayoutError: a missing table or column, or numbers that are none.
    """
    if reading.discarded:
        counts["gaze discarded by the publishers"] += 1
        return None
    if kind == "fixations":
        path = source / "main_data" / reading.reading_id / "fixations.csv"
        table = _read_numbers(path, ("timestamp_start_fixation", "timestamp_end_fixation", *_PLACE, *_DEGREE))
        start = table["timestamp_start_fixation"].to_numpy()
        dwell = table["timestamp_end_fixation"].to_numpy() - start
        require_seconds(path, dwell, "fixations")
    else:
        path = source / "gaze_data" / reading.reading_id / "gaze.csv"
        table = _read_numbers(path, ("timestamp_sample", *_PLACE, *_DEGREE))
        if backwards := int((table["timestamp_sample"].diff() < 0.0).sum()):
            counts["samples earlier than the row before"] += backwards
        require_seconds(path, table["timestamp_sample"].diff(), "samples")
        table = _thin_samples(table, rate_hz)
        start, dwell = table["timestamp_sample"].to_numpy(), table["dwell"].to_numpy()
    if not np.isfinite(start).all() or not ((dwell >= 0.0) & (dwell <= LONGEST_DWELL_S)).all():
        raise LayoutError(
            f"{path}: a time is missing, or a fixation ends before it starts or lasts more than {LONGEST_DWELL_S:g} s.",
            "Restore the file.",
        )
    places = table[["y_position", "x_position"]].to_numpy()
    seen = np.isfinite(places).all(axis=1)
    inside = seen & ((places > 0.0) & (places < np.array(reading.shape))).all(axis=1)
    counts["eyes not found"] += int((~seen).sum())
    counts["off image"] += int((seen & ~inside).sum())
    counts[f"{kind} kept"] += int(inside.sum())
    order = np.flatnonzero(inside)[np.argsort(start[inside], kind="stable")]
    if not len(order):
        counts["reading without gaze"] += 1
        return None
    resolution = table[list(_DEGREE)].to_numpy()[order].mean(axis=1)
    px_per_deg = _average_weighted(resolution, dwell[order])
    # the publishers' own maps spread a fixation by one degree (Bigolin Lanfredi 2022)
    spread = 75.0 * max(reading.shape) / 3056.0 if px_per_deg is None else px_per_deg
    begin = float(start.min())
    return Gaze(
        places[order], start[order] - begin, dwell[order], kind, px_per_deg, spread,
        Tag("gaze", None, reading.reading_id),
    )  # fmt: skip


def _average_weighted(values: np.ndarray, weights: np.ndarray) -> float | None:
    good = np.isfinite(values) & (values > 0.0)
    if not good.any():
        return None
    return float(np.average(values[good], weights=weights[good]) if weights[good].sum() > 0 else values[good].mean())


def _thin_samples(table: pd.DataFrame, rate_hz: float) -> pd.DataFrame:
    """1000 Hz samples averaged over 1 / rate_hz; each counts for as long as the eyes were found in it."""
    time = table["timestamp_sample"]
    period = float(time.diff().median()) if len(table) > 1 else 0.001
    seen = table[list(_PLACE)].notna().all(axis=1)
    bins = np.floor((time - time.min()) * rate_hz + 1e-6)
    means = table.where(seen).groupby(bins).mean()
    means["timestamp_sample"] = time.groupby(bins).min()
    means["dwell"] = seen.groupby(bins).sum() * (period if np.isfinite(period) else 0.001)
    return means


def _read_numbers(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    dialect = find_dialect(path, columns)
    require_even_rows(path, dialect["sep"], short=True, columns=columns)
    try:
        return pd.read_csv(path, usecols=list(columns), dtype="float64", index_col=False, **dialect)
    except FileNotFoundError:
        raise LayoutError(
            f"{path} is missing.", "Samples need gaze_data, fixations main_data of REFLACX 1.0.0."
        ) from None
    except (OSError, ValueError) as error:
        raise LayoutError(f"{path} does not parse ({error}).", "Restore the published file.") from None


def _is_true(row: CsvRow, column: str) -> bool:
    word = row[column].strip().lower()
    if word not in ("true", "false"):
        raise row.error(column, f"is {row[column]!r}, expected True or False")
    return word == "true"
