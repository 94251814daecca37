"""A cohort of drawn radiographs in our own folder layout, the same for the same arguments, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from sightline.data.datasets.folder.reader import read_cohort
from sightline.data.datasets.folder.writer import write_cohort
from sightline.data.phantoms.radiographs.dicom_writer import RadiographHeader, write_dicom
from sightline.data.phantoms.radiographs.draw import FIELDS, Field, RadiographDrawing, Streams, draw_femur, draw_wrist
from sightline.data.phantoms.radiographs.femur import FEMUR_CLASSES
from sightline.data.phantoms.radiographs.plan import (
    WRIST_CLASSES,
    Anatomy,
    AoShares,
    Study,
    make_generator,
    plan_studies,
)
from sightline.errors import CohortError, LayoutError
from sightline.io.files import mark_whole, require_empty
from sightline.io.progress import open_process_pool
from sightline.structures.case import Case, Cohort
from sightline.structures.regions import Box, Mask, Region, Scribble
from sightline.structures.tag import Tag

SaveAs = Literal["png", "dicom"]
STROKE_PX = 3.0
# shares of train, val and test, by patient and balanced by class
FRACTIONS = (0.6, 0.1, 0.3)


@dataclass(frozen=True)
class FemurOptions:
    """What only phantoms of femurs have.

    Attributes:
        field: `close`, or `wide`: half a pelvis and the thigh, in which the hip is small.
        ao_shares: every class as often as the others, or in the `published` shares of Jimenez-Sanchez 2018 (A3 is one
            fracture in 52).
    """

    field: Field = "close"
    ao_shares: AoShares = "even"


def write_radiographs(
    destination: Path,
    *,
    anatomy: Anatomy = "wrist",
    studies: int = 120,
    shortcut: float = 0.0,
    seed: int = 0,
    save_as: SaveAs = "png",
    size_px: int = 416,
    femurs: FemurOptions | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Cohort:
    """Draw a cohort and write it as `cohorts/folder.py` reads it.

    Args:
        destination: a new or empty folder. A folder that already holds the phantom of the same arguments is read back.
        anatomy: `wrist` (2 to 4 views a study, the scaphoid broken or not) or `femur` (AP, AO-like classes).
        studies: number of studies; a longer phantom of the same seed begins with the same studies.
        shortcut: 0 for none, else the probability (0.5 to 1) that a lead arrow in a corner agrees with the label in
            train and val; test images never carry it.
        seed: of everything drawn.
        save_as: `png` (8 bits) or `dicom` (12 bits, DX, MONOCHROME1 and 2 by turns).
        size_px: long side of an image.
        femurs: what only femurs have; its defaults when None.
        workers: processes that draw; the result does not depend on it.
        progress: called with (studies written, studies in all).

    Returns:
        The cohort. Every case has a focus Mask, Box and Scribble of the target bone, a finding Box at each fracture
        (also at occult ones); femurs have a square finding Box about head and trochanters instead.

    Raises:
        CohortError: an argument that makes no cohort.
        LayoutError: a destination with other content.
    """
    destination = Path(destination)
    if save_as not in ("png", "dicom"):
        raise LayoutError(f"A phantom cannot be saved as {save_as!r}.", "Choose png or dicom.")
    if size_px < 160:
        raise LayoutError(f"A phantom of {size_px} pixels shows no fracture.", "Ask for at least 160 pixels.")
    names = WRIST_CLASSES if anatomy == "wrist" else FEMUR_CLASSES
    femurs = femurs or FemurOptions()
    field, ao_shares = femurs.field, femurs.ao_shares
    plan = plan_studies(
        anatomy, studies, classes=names, shortcut=shortcut, fractions=FRACTIONS, seed=seed, ao_shares=ao_shares
    )
    if field not in FIELDS or (field != "close" and anatomy != "femur"):
        raise CohortError(f"A phantom {anatomy} has no field {field!r}.", "Femurs have the fields close and wide.")
    about = {
        "layout": f"phantom {anatomy} radiographs",
        "source": "drawn by sightline; no patient",
        "licence": "Apache-2.0",
        "studies": str(studies),
        "shortcut": str(float(shortcut)),
        "seed": str(seed),
        "saved as": save_as,
        "size_px": str(size_px),
        "fractions": " ".join(str(float(f)) for f in FRACTIONS),
    }
    # only where they are not the default: phantoms of earlier versions are read back
    about |= {"ao shares": ao_shares} if ao_shares != "even" else {}
    about |= {"field": field} if field != "close" else {}
    name = f"phantom-{anatomy}"
    if (destination / "cohort.json").exists():
        there = read_cohort(destination)
        if (there.name, there.classes, dict(there.about)) == (name, names, about):
            mark_whole(destination)
            return there
        raise LayoutError(f"{destination} already holds another cohort, {there.name!r}.", "Choose another destination.")
    require_empty(destination)
    for part in ("images", "regions/mask"):
        (destination / part).mkdir(parents=True, exist_ok=True)
    write = partial(write_study, destination, anatomy=anatomy, seed=seed, save_as=save_as, size_px=size_px, field=field)
    cases: list[Case] = []
    for number, written in enumerate(_run_each(write, plan, workers), start=1):
        cases += written
        if progress is not None:
            progress(number, len(plan))
    cohort = Cohort(name, names, tuple(cases), destination, about)
    write_cohort(cohort, destination)
    mark_whole(destination)
    return cohort


def write_study(
    destination: Path,
    study: Study,
    *,
    anatomy: Anatomy,
    seed: int,
    save_as: SaveAs,
    size_px: int,
    field: Field = "close",
) -> list[Case]:
    """Draw and write the images and masks of one study; returns its cases."""
    study_id, patient_id = f"S{study.index + 1:04d}", f"P{study.patient + 1:04d}"
    cases = []
    for number, view in enumerate(study.views, start=1):
        case_id = f"{study_id}-{number}"
        drawn = draw_image(study, number, seed=seed, size_px=size_px, anatomy=anatomy, field=field)
        image = destination / "images" / f"{case_id}.{'png' if save_as == 'png' else 'dcm'}"
        if save_as == "png":
            Image.fromarray(np.rint(drawn.picture * 255.0).astype(np.uint8)).save(image, compress_level=3)
        else:
            write_dicom(
                drawn.picture,
                image,
                header=RadiographHeader(
                    seed=seed,
                    patient_id=patient_id,
                    study_id=study_id,
                    case_id=case_id,
                    number=number,
                    view=view,
                    side=study.side,
                    body_part="WRIST" if anatomy == "wrist" else "HIP",
                    pixel_mm=drawn.pixel_mm,
                ),
                inverted=(study.index + number) % 2 == 0,
            )
        mask = destination / "regions" / "mask" / f"{case_id}.png"
        Image.fromarray(drawn.bone.astype(np.uint8) * np.uint8(255)).save(mask, compress_level=6)
        pixel_mm = float(f"{drawn.pixel_mm:.6g}")
        cases.append(
            Case(
                case_id=case_id,
                study_id=study_id,
                patient_id=patient_id,
                image=image,
                label=study.label,
                regions=_build_regions(drawn, mask, study.label),
                split=study.split,
                view=view,
                shape=(int(drawn.picture.shape[0]), int(drawn.picture.shape[1])),
                spacing_mm=(pixel_mm, pixel_mm),
                facts=drawn.facts,
            )
        )
    return cases


def draw_image(
    study: Study, number: int, *, anatomy: Anatomy, seed: int, size_px: int, field: Field = "close"
) -> RadiographDrawing:
    """The `number`-th image (from 1) of a planned study."""
    person_key = (study.patient,) if anatomy == "wrist" else (study.patient, "LR".index(study.side))
    streams = Streams(
        person=make_generator(seed, "anatomy", *person_key),
        fracture=make_generator(seed, "fracture", study.index),
        image=make_generator(seed, "image", study.index, number),
        noise=make_generator(seed, "noise", study.index, number),
        lead=make_generator(seed, "lead", study.index, number),
    )
    if anatomy == "femur":
        return draw_femur(
            streams,
            ao_class=study.kind,
            side=study.side,
            hardware=study.hardware,
            marker=study.marker,
            size_px=size_px,
            field=field,
        )
    return draw_wrist(
        streams,
        view=study.views[number - 1],
        side=study.side,
        grade=study.grade,
        share=_draw_shares(study, seed)[number - 1],
        hardware=study.hardware,
        marker=study.marker,
        size_px=size_px,
    )


def _draw_shares(study: Study, seed: int) -> list[float]:
    """How much of the fracture each view shows: plain ones show on all, subtle ones on one only."""
    rng = make_generator(seed, "fracture", study.index, 1)
    low, high = (0.6, 1.0) if study.grade == "plain" else (0.0, 0.3)
    shares = rng.uniform(low, high, len(study.views)).tolist()
    shares[int(rng.integers(len(study.views)))] = 1.0
    return shares


def _build_regions(drawn: RadiographDrawing, mask: Path, label: str) -> tuple[Region, ...]:
    focus = Tag("focus", None, "phantom")
    rows, columns = np.flatnonzero(drawn.bone.any(axis=1)), np.flatnonzero(drawn.bone.any(axis=0))
    line = tuple((round(float(r), 3), round(float(c), 3)) for r, c in drawn.midline)
    start, stop = (float(rows[0]), float(columns[0])), (float(rows[-1]) + 1.0, float(columns[-1]) + 1.0)
    regions: list[Region] = [Mask(mask, focus), Box(start, stop, focus), Scribble((line,), STROKE_PX, focus)]
    if drawn.region is not None:
        top, left, bottom, right = (round(x, 3) for x in drawn.region)
        regions.append(Box((top, left), (bottom, right), Tag("finding", None, "phantom")))
    elif drawn.fracture is not None:
        top, left, bottom, right = drawn.fracture
        regions.append(Box((top, left), (bottom, right), Tag("finding", label, "phantom")))
    return tuple(regions)


def _run_each(write: Callable[[Study], list[Case]], plan: Sequence[Study], workers: int) -> Iterator[list[Case]]:
    if workers < 2:
        yield from map(write, plan)
        return
    # a fresh interpreter each: forking a process that runs torch's threads can hang
    with open_process_pool(workers) as pool:
        yield from pool.map(write, plan, chunksize=4)
