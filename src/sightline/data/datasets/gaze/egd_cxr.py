"""EGD-CXR 1.0.0 (Karargyris 2021): chest radiographs a radiologist read while a tracker followed her eyes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sightline.data.datasets.gaze.egd_cxr_tables import (
    SCREEN,
    Gazes,
    Record,
    read_gaze,
    read_ids,
    read_master,
    read_organ_boxes,
)
from sightline.data.datasets.gaze.fixations import Viewing, build_viewing
from sightline.data.datasets.gaze.mimic_cxr import find_images
from sightline.data.split import split_cohort
from sightline.errors import CohortError, LayoutError, SightlineError, count_noun
from sightline.io.image import read_size
from sightline.structures.case import Case, Cohort
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Box, Mask, Region
from sightline.structures.tag import Tag

CLASSES = ("Normal", "CHF", "pneumonia")
READER = "EGD radiologist"
# the published pictures have about 3056 rows; the authors' effective spread there is 75 px (spec 3.3)
SPREAD_PX, SPREAD_OF_PX = 75.0, 3056.0
_ORGANS = (("left_lung", "pneumonia"), ("right_lung", "pneumonia"), ("aortic_knob", None))
_HEART = ("mediastinum", "mediastanum")


@dataclass(frozen=True)
class Options:
    """How the layout is read."""

    gaze: Literal["samples", "fixations"] = "samples"
    """The tracker's raw 60 Hz samples, or fixations."""
    images: Path | None = None
    """Folder of the images (MIMIC-CXR's paths, or flat), where they are not in the tree."""
    id_list: Path | None = None
    """csv of the ids to keep (Watanabe 2022 publishes one of 1,017)."""
    heart: Literal["mediastinum", "cardiac_silhouette"] = "mediastinum"
    """What stands for the heart: the mediastinum's mask (the papers'), or the box of the cardiac silhouette."""
    correct_drift: bool = False
    """Shift each session by where its calibration pictures were looked at."""
    screen_width_mm: float | None = None
    """Width of the screen; with the distance it says how many pixels a degree is."""
    distance_mm: float | None = None
    """From the eyes to the screen."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of patients in train, val and test, grouped and stratified."""
    seed: int = 0
    """Seed of the split."""


def read(source: str | Path, options: Options | None = None) -> Cohort:
    """The cohort of a tree in the published layout.

    Images are not part of EGD-CXR: they come from MIMIC-CXR, as DICOM under `files/`, or exported to PNG or JPEG, in
    the tree or in a folder of their own.

    Args:
        source: folder with master_sheet.csv.
        options: see `Options`; its defaults when left out.

    Raises:
        LayoutError: a file or column is missing, no image is there, or gaze disagrees with its own table.
    """
    source, options = Path(source), options or Options()
    records, lines = read_master(source / "master_sheet.csv", CLASSES)
    counts: Counter[str] = Counter({"records": len(records), "lines of the master sheet": lines})
    every = {record.dicom_id: record for record in records}
    wanted = every
    if options.id_list is not None:
        ids = read_ids(options.id_list)
        absent = sorted(ids - every.keys())
        if absent:
            raise LayoutError(
                f"{options.id_list} names {count_noun(len(absent), 'id')} that the master sheet "
                f"has not, e.g. {absent[0]}.",
                "Use the list that belongs to this release.",
            )
        wanted = {i: record for i, record in every.items() if i in ids}
        counts["not on the id list"] = len(every) - len(wanted)
    counts["no class, or several"] = sum(len(record.marks) != 1 for record in wanted.values())
    wanted = {i: record for i, record in wanted.items() if len(record.marks) == 1}
    viewing = build_viewing(SCREEN, options.screen_width_mm, options.distance_mm)
    if not wanted:
        raise LayoutError(
            f"{source / 'master_sheet.csv'}: no record is left (of {len(every)}).",
            "Each image needs exactly one of Normal, CHF and pneumonia, and must be on the id list.",
        )
    files = find_images(options.images or source, {i: record.path for i, record in wanted.items()})
    counts["image missing"] = len(wanted) - len(files)
    shapes = {dicom_id: read_size(path) for dicom_id, path in files.items()}
    table = source / ("eye_gaze.csv" if options.gaze == "samples" else "fixations.csv")
    gazes = read_gaze(table, every, shapes, options.gaze, correct_drift=options.correct_drift)
    boxes = (
        read_organ_boxes(source / "bounding_boxes.csv", "cardiac silhouette")
        if options.heart == "cardiac_silhouette"
        else {}
    )
    cases = []
    for dicom_id, path in files.items():
        regions = (
            *_build_gaze(gazes, wanted[dicom_id], options.gaze, shapes[dicom_id], viewing),
            *_read_organs(source, dicom_id, shapes[dicom_id], boxes, counts),
        )
        cases.append(_build_case(wanted[dicom_id], path, shapes[dicom_id], regions))
    counts["without gaze"] = sum(not any(isinstance(r, Gaze) for r in case.regions) for case in cases)
    about = {
        "layout": "EGD-CXR 1.0.0",
        "licence": "PhysioNet Credentialed Health Data License 1.5.0 (a phantom has none)",
        "counts": ", ".join(f"{name} {n}" for name, n in counts.items() if n or name == "records"),
        f"{options.gaze}": ", ".join(f"{name} {n}" for name, n in gazes.counts.items()),
        "calibration pictures": f"{len(gazes.calibration_ids)} ids, none of them in any map",
    }
    try:
        return split_cohort(Cohort("egd_cxr", CLASSES, tuple(cases), source, about), options.fractions, options.seed)
    except CohortError as error:
        raise LayoutError(f"{source}: {error.message}", error.remedy) from None


def _build_case(record: Record, path: Path, shape: tuple[int, int], regions: tuple[Region, ...]) -> Case:
    return Case(
        case_id=record.dicom_id, study_id=record.study_id, patient_id=record.patient_id, image=path,
        label=record.marks[0], regions=regions, view="frontal", shape=shape, facts=dict(record.facts),
    )  # fmt: skip


def _build_gaze(
    gazes: Gazes,
    record: Record,
    kind: Literal["samples", "fixations"],
    shape: tuple[int, int],
    viewing: Viewing | None,
) -> tuple[Region, ...]:
    dicom_id = record.dicom_id
    if dicom_id not in gazes.places or not len(gazes.places[dicom_id]):
        return ()
    spread = SPREAD_PX * max(shape) / SPREAD_OF_PX
    # how many source pixels a screen pixel shows: images were fitted to the screen
    source_px = shape[1] / (SCREEN[1] - record.pads[2] - record.pads[3])
    px_per_deg = None if viewing is None else viewing.screen_px_per_deg * source_px
    numbers = (gazes.places[dicom_id], gazes.start_s[dicom_id], gazes.dwell_s[dicom_id])
    return (Gaze(*numbers, kind, px_per_deg, spread, Tag("gaze", None, READER)),)


def _read_organs(
    source: Path,
    dicom_id: str,
    shape: tuple[int, int],
    boxes: Mapping[str, tuple[float, float, float, float]],
    counts: Counter[str],
) -> tuple[Region, ...]:
    """Masks of lungs, heart and aortic knob, each with the class whose finding would lie there."""
    folder = next(
        (
            f
            for name in (dicom_id, dicom_id.upper())
            if (f := source / "audio_segmentation_transcripts" / name).is_dir()
        ),
        None,
    )
    regions: list[Region] = []
    names = [*_ORGANS]
    if not boxes:
        names += [(name, "CHF") for name in _HEART]
    for name, label in names:
        path = None if folder is None else folder / f"{name}.png"
        if path is not None and path.is_file():
            try:
                pixels = Mask(path).pixels()
            except SightlineError:
                counts["mask that does not decode"] += 1
                continue
            if pixels.shape != shape:
                counts["mask of another size"] += 1
            elif not pixels.any():
                counts["empty mask"] += 1
            else:
                regions.append(Mask(path, Tag("organ", label)))
    # a lung without its mask would count as a place where no pneumonia can be
    counts["one lung alone"] += sum(region.tag.label == "pneumonia" for region in regions) == 1
    if dicom_id in boxes:
        r0, c0, r1, c1 = boxes[dicom_id]
        if r1 > r0 and c1 > c0:
            regions.append(Box((r0, c0), (r1, c1), Tag("organ", "CHF")))
        else:
            counts["heart box without an area"] += 1
    if not regions:
        counts["without organs"] += 1
    return tuple(regions)
