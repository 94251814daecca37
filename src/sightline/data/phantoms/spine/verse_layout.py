"""A phantom data set of spines in the layout of VerSe, with deformed vertebrae, their grades, and what is true of it.

Folders `dataset-phantomtraining`, `-phantomvalidation` and `-phantomtest` hold `rawdata` and `derivatives` as VerSe's
archives do; `fractures.csv` grades every whole vertebra; `truth.json` holds poses and heights. Ours are
`..._seg-subreg_msk.nii.gz` (SUBREGIONS of data/spine/vertebrae.py) and `..._seg-finding_msk.nii.gz`, numbers of
FINDINGS: 1 depressed upper endplate, 2 depressed lower one, 3 sclerotic band, 4 wall that buckled or was pushed out.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.data.datasets.verse.gradings import FIELDS
from sightline.data.phantoms.spine.column import Column, PlacedVertebra, stack_vertebrae
from sightline.data.phantoms.spine.plan import PhantomSubject, plan_person
from sightline.data.phantoms.spine.scan import draw_spine, simulate_scanner
from sightline.data.phantoms.spine.series import Series, orient_arrays, plan_series
from sightline.data.spine.vertebrae import FINDINGS, LEVELS, RANKS
from sightline.errors import CohortError
from sightline.io.files import mark_whole, require_empty
from sightline.io.nifti import write_volume
from sightline.io.progress import open_process_pool
from sightline.structures.frame import FloatArray

# of every twenty subjects; three in a row hold each split
_CYCLE = ("training", "test", "validation", "training", "training", "test", "training", "training", "training", "test",
          "training", "training", "validation", "training", "test", "training", "training", "test", "validation",
          "training")  # fmt: skip


@dataclass(frozen=True)
class WrittenSubject:
    """What was written of one subject: rows of the grading table, and what is true, by series."""

    rows: list[dict[str, Any]]
    truth: dict[str, Any]


def write_spines(
    destination: Path,
    *,
    subjects: int = 60,
    seed: int = 0,
    spacing: float | None = None,
    prevalence: float = 0.08,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Draw spines and write them as VerSe is published.

    Args:
        destination: a new or empty folder.
        subjects: how many people; the first n of a larger phantom are those of a phantom of n.
        seed: of everything; same arguments, same bytes.
        spacing: millimetres of isotropic voxels; None for spacings as scanners give, another for every series.
        prevalence: expected share of deformed vertebrae (grade 1 to 3) among T4 to L5, 0 to 0.6.
        workers: processes that draw; the files do not depend on it.
        progress: called with (subjects written, subjects in all).

    Returns:
        What is true, as written to truth.json.

    Raises:
        CohortError: the folder holds something, or an argument out of range.
    """
    destination = Path(destination)
    if subjects < 1:
        raise CohortError(f"A phantom needs one subject or more; got {subjects}.", "Ask for 60.")
    if not 0.0 <= prevalence <= 0.6:
        raise CohortError(f"The prevalence lies within 0 and 0.6; got {prevalence}.", "About 0.08 is realistic.")
    if spacing is not None and not 0.5 <= spacing <= 4.0:
        raise CohortError(f"Voxels of 0.5 to 4 mm can be drawn; got {spacing}.", "Ask for 1, or leave it out.")
    require_empty(destination)
    write = partial(write_subject, destination, seed=seed, spacing=spacing, prevalence=prevalence)
    rows: list[dict[str, Any]] = []
    truth: dict[str, Any] = {"seed": seed, "prevalence": prevalence, "findings": FINDINGS, "series": {}}
    for number, written in enumerate(_run_each(write, subjects, workers), start=1):
        rows += written.rows
        truth["series"] |= written.truth
        if progress is not None:
            progress(number, subjects)
    with (destination / "fractures.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    (destination / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    mark_whole(destination)
    return truth


def write_subject(
    destination: Path, number: int, *, seed: int, spacing: float | None, prevalence: float
) -> WrittenSubject:
    """Draw and write one subject; depends on nothing but the arguments."""
    person = plan_person(number, seed, prevalence=prevalence)
    column = stack_vertebrae(person)
    archive = destination / f"dataset-phantom{_CYCLE[number % len(_CYCLE)]}"
    rows: list[dict[str, Any]] = []
    truth: dict[str, Any] = {}
    for series in plan_series(person, number, seed, spacing):
        affine = _write_series(archive, person, column, series)
        shown = [one for one in column.vertebrae if one.plan.label in series.labels]
        rows += [_build_row(person, series, one) for one in shown]
        truth[series.name] = {
            "subject": person.name,
            "affine": affine.round(6).tolist(),
            "spacing_mm": series.spacing_mm,
            "orientation": "".join(series.orientation),
            "frailty": round(person.frailty, 4),
            "vertebrae": {LEVELS[one.plan.label]: _describe_truth(one, series) for one in shown},
        }
    return WrittenSubject(rows, truth)


def _write_series(archive: Path, person: PhantomSubject, column: Column, series: Series) -> FloatArray:
    rng, film = (np.random.default_rng([*series.seed, part]) for part in (0, 1))
    grid = series.grid(column)
    drawn = draw_spine(grid, column, person, series.labels, rng)
    ct, masks = simulate_scanner(drawn, grid.spacing_mm, series.groups(), series.noise_hu, series.blur_mm, film)
    arrays: list[NDArray[Any]] = [ct, masks.vertebrae, masks.regions, masks.findings]
    arrays, affine = orient_arrays(arrays, series.affine(grid), series.orientation)
    raw = archive / "rawdata" / f"sub-{person.name}"
    derived = archive / "derivatives" / f"sub-{person.name}"
    write_volume(raw / f"sub-{series.name}_ct.nii.gz", arrays[0], affine)
    for array, what in zip(arrays[1:], ("vert", "subreg", "finding"), strict=True):
        write_volume(derived / f"sub-{series.name}_seg-{what}_msk.nii.gz", array, affine)
    picture = draw_preview(ct, masks.vertebrae, series.spacing_mm)
    (derived / f"sub-{series.name}_seg-vert_snp.png").write_bytes(picture)
    entries = _build_centroids(column, series, affine, arrays[0].shape, film)
    (derived / f"sub-{series.name}_seg-subreg_ctd.json").write_text(json.dumps(entries), encoding="utf-8")
    return affine


def _build_centroids(
    column: Column, series: Series, affine: FloatArray, shape: tuple[int, ...], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The centroid file: voxel indices of body centres, as an unsteady hand sets them; cut vertebrae have none."""
    entries: list[dict[str, Any]] = [{"direction": list(series.orientation)}]
    named = sorted((one for one in column.vertebrae if RANKS[one.plan.label] >= RANKS[8]), key=_get_rank)
    inverse = np.linalg.inv(affine)
    ranks = [RANKS[label] for label in series.labels]
    for one in named:
        if one.plan.label in series.labels:
            hand = rng.normal(0.0, 0.4, 3)
            place = inverse[:3, :3] @ (series.world() @ (one.centre + hand)) + inverse[:3, 3]
            x, y, z = (round(float(v), 1) for v in np.clip(place, 0.0, np.array(shape) - 1.0))
            entries.append({"label": one.plan.label, "X": x, "Y": y, "Z": z})
        elif RANKS[one.plan.label] in (min(ranks) - 1, max(ranks) + 1) and rng.random() < 0.25:
            # in the picture, but cut: named and not placed
            entries.append({"label": one.plan.label, "X": math.nan, "Y": math.nan, "Z": math.nan})
    return entries


def _get_rank(one: PlacedVertebra) -> int:
    return RANKS[one.plan.label]


def _build_row(person: PhantomSubject, series: Series, one: PlacedVertebra) -> dict[str, Any]:
    plan = one.plan
    return {
        "subject": person.name,
        "series": series.name,
        "label": plan.label,
        "grade": plan.grade,
        "deformity": plan.deformity,
        "foreign": int(plan.cement or plan.screws),
        "excluded": int(plan.screws),
    }


def _describe_truth(one: PlacedVertebra, series: Series) -> dict[str, Any]:
    plan, world = one.plan, series.world()
    return {
        "label": plan.label,
        "grade": plan.grade,
        "deformity": plan.deformity,
        "loss": round(plan.loss, 4),
        "fresh": round(plan.fresh, 3),
        "centre_mm": (world @ one.centre).round(3).tolist(),
        "origin_mm": (world @ one.pose.origin).round(3).tolist(),
        "axes": (world @ one.pose.turn).round(6).tolist(),
        "depth_mm": round(one.body.depth, 3),
        "width_mm": round(one.body.width, 3),
        "heights_mm": [round(h, 3) for h in plan.body.heights],
        "expected_mm": [round(h, 3) for h in plan.body.normal],
        "looks_alike": _list_mimics(one),
    }


def _list_mimics(one: PlacedVertebra) -> list[str]:
    """What a body shows that is no fracture."""
    plan, body = one.plan, one.plan.body
    found = {
        "Schmorl's node": bool(body.dents),
        "osteophytes": bool(body.spurs),
        "limbus": body.limbus_mm > 0.0,
        "narrow disc": plan.worn > 0.6,
        "gas in the disc": plan.gas,
        "haemangioma": plan.fat,
        "bone island": plan.island,
        "mild wedging": plan.grade == 0 and 1.0 - body.heights[0] / body.heights[2] > 0.12,
        "hollow endplates": plan.grade == 0 and 1.0 - body.heights[1] / body.heights[2] > 0.13,
    }
    return [name for name, there in found.items() if there]


def _run_each(write: Callable[[int], WrittenSubject], subjects: int, workers: int) -> Iterator[WrittenSubject]:
    if workers < 2:
        yield from map(write, range(subjects))
        return
    # a fresh interpreter each: forking a process that runs torch's threads can hang
    with open_process_pool(workers) as pool:
        yield from pool.map(write, range(subjects))


_WINDOW = (-300.0, 1000.0)
_COLOURS = np.array([(230, 80, 70), (240, 180, 60), (120, 200, 90), (70, 170, 220), (160, 110, 220)], dtype=np.float64)


def draw_preview(ct: NDArray[Any], labels: NDArray[Any], spacing_mm: tuple[float, float, float]) -> bytes:
    """PNG of a sagittal and a coronal slice, labels in colour.

    Args:
        ct: Hounsfield units [x, y, z], x to the right, y to the front, z to the head.
        labels: VerSe's numbers on the same grid.
        spacing_mm: of its voxels.
    """
    inside = np.argwhere(labels > 0)
    x, y = np.median(inside[:, 0]).astype(int), int(np.percentile(inside[:, 1], 70))
    shown = [
        _draw_panel(ct[x], labels[x], (spacing_mm[1], spacing_mm[2])),
        _draw_panel(ct[:, y], labels[:, y], (spacing_mm[0], spacing_mm[2])),
    ]
    file = BytesIO()
    Image.fromarray(np.concatenate(shown, axis=1)).save(file, format="PNG")
    return file.getvalue()


def _draw_panel(slab: NDArray[Any], labels: NDArray[Any], spacing_mm: tuple[float, float]) -> NDArray[np.uint8]:
    """One slice [across, up] as a picture [rows, columns, 3], a pixel a millimetre, the head at the top."""
    low, high = _WINDOW
    grey = np.clip((slab.astype(np.float64) - low) / (high - low), 0.0, 1.0)[..., None] * np.full(3, 255.0)
    tinted = np.where(labels[..., None] > 0, 0.6 * grey + 0.4 * _COLOURS[labels % len(_COLOURS)], grey)
    rows, columns = (round(n * mm) for n, mm in zip(slab.shape[::-1], spacing_mm[::-1], strict=True))
    picture = Image.fromarray(np.ascontiguousarray(tinted.transpose(1, 0, 2)[::-1]).astype(np.uint8))
    return np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR))
