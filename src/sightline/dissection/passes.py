"""The two passes of a dissection, thresholds and readings, kept in its folder and reused where nothing changed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sightline.data.loader import CohortItems, iterate_test_batches
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import CohortError, RunError, count_noun
from sightline.explainers.units.layer import UnitLayer
from sightline.explainers.units.readings import Readings, read_units
from sightline.explainers.units.thresholds import Thresholds, compute_unit_thresholds
from sightline.io.files import LOCK_NAME, read_json, write_text
from sightline.io.progress import show_progress
from sightline.structures.case import Case, Cohort
from sightline.structures.evidence import Batch, compute_probabilities
from sightline.structures.gaze import Gaze
from sightline.structures.regions import Box, Mask, Polygon, Region, Scribble
from sightline.training.engine import Engine

# raised whenever saved readings would come out differently
READING = 1
STAMP = "stamp.json"
PICTURE_BYTES = 256 * 1024**2
WINDOWED = (
    "This network looks at a part of the picture that it chooses itself; agreement with marks on the whole picture is "
    "not measured."
)
UNMARKED = "Nothing is marked on these cases, so that agreement with masks cannot be measured."
# the closest kind of mark that a case has under a name stands for it
_CLOSENESS: tuple[type[Any], ...] = (Mask, Polygon, Box, Scribble)


@dataclass(frozen=True, eq=False)
class Passes:
    """What two passes through a cohort found.

    Attributes:
        thresholds: of every unit.
        readings: every unit on every case.
        without_masks: why agreement was not measured; empty where it was.
        batch_size: cases at a time.
    """

    thresholds: Thresholds
    readings: Readings
    without_masks: str
    batch_size: int

    def probabilities(self, *, independent: bool) -> NDArray[np.float64]:
        """Class probabilities, float64 [n, k]."""
        return compute_probabilities(torch.from_numpy(np.array(self.readings.logits)), independent=independent)


def read_cohort_units(
    layer: UnitLayer,
    cohort: Cohort,
    view: View | VolumeView,
    out: Path,
    stamp: Mapping[str, str],
    *,
    batch_size: int,
    top: float,
    engine: Engine,
) -> Passes:
    """Thresholds and readings of a cohort, from the folder `out/readings` where they lie already.

    Args:
        layer: of a network on its device.
        cohort: the cases.
        view: the run's.
        out: folder of the dissection.
        stamp: what the readings depend on, by name.
        batch_size: cases at a time.
        top: share of places above the threshold.
        engine: workers and progress.

    Raises:
        RunError: `out` holds another dissection, or no dissection but files.
        CohortError: too few cases for such a share.
    """
    folder = out / "readings"
    wanted = {**stamp, "reading": str(READING), "batch_size": str(batch_size)}
    if _is_finished(out, wanted):
        why = str(read_json(folder / STAMP, "Delete the folder and dissect again.").get("without_masks", ""))
        return Passes(_read_thresholds(folder), Readings.read(folder), why, batch_size)
    # volumes are read again in the second pass: memory must not grow with the cohort
    items = CohortItems(cohort, view, cache_bytes=1 if isinstance(view, VolumeView) else PICTURE_BYTES)

    def iterate_batches() -> Iterator[Batch]:
        return iterate_test_batches(items, batch_size=batch_size, workers=engine.workers)

    looks_at_a_window = _probe_layer(layer, next(iterate_batches()), len(cohort), top)
    out.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    write_text(folder / "asked.json", json.dumps(wanted, indent=1) + "\n")
    with show_progress("thresholds", len(cohort), quiet=engine.quiet) as advance:
        thresholds = compute_unit_thresholds(layer, iterate_batches, top=top, cases=len(cohort), advance=advance)
    masks, why = choose_masks(cohort), ""
    if masks is None:
        why = UNMARKED
    elif looks_at_a_window:
        masks, why = None, WINDOWED
    with show_progress("readings", len(cohort), quiet=engine.quiet) as advance:
        readings = read_units(layer, iterate_batches(), thresholds, masks=masks, folder=folder, advance=advance)
    _write_thresholds(folder, thresholds)
    write_text(folder / STAMP, json.dumps({**wanted, "without_masks": why}, indent=1) + "\n")
    return Passes(thresholds, readings, why, batch_size)


def choose_masks(cohort: Cohort) -> Callable[[Batch], Mapping[str, Tensor]] | None:
    """What gives the masks of a batch by name, bool [b, *s]; None where no case of the cohort has a mark.

    A mark's name is what it shows, else its role. Of several marks of one name the closest kind counts: masks, then
    polygons, boxes, scribbles.
    """
    cases = {case.case_id: case for case in cohort if any(not isinstance(r, Gaze) for r in case.regions)}
    if not cases:
        return None

    def rasterise_masks(batch: Batch) -> Mapping[str, Tensor]:
        shape = tuple(int(n) for n in batch.images.shape[2:])
        found: dict[str, Tensor] = {}
        for b, (case_id, frame) in enumerate(zip(batch.case_ids, batch.frames, strict=True)):
            for name, regions in group_marks_by_name(cases[case_id]).items() if case_id in cases else ():
                drawn = found.setdefault(name, torch.zeros(len(batch), *shape, dtype=torch.bool))
                for region in regions:
                    drawn[b] |= torch.from_numpy(region.draw(frame) > 0)
        return found

    return rasterise_masks


def group_marks_by_name(case: Case) -> dict[str, list[Region]]:
    """A case's marks by name, of each name the closest kind alone."""
    every: dict[str, list[Region]] = {}
    for region in case.regions:
        if not isinstance(region, Gaze):
            every.setdefault(region.tag.name or region.tag.role, []).append(region)
    return {name: _keep_closest(regions) for name, regions in every.items()}


def _keep_closest(regions: list[Region]) -> list[Region]:
    for kind in _CLOSENESS:
        chosen = [region for region in regions if isinstance(region, kind)]
        if chosen:
            return chosen
    return regions


def _is_finished(out: Path, wanted: Mapping[str, str]) -> bool:
    """Whether finished readings with this stamp lie in a folder; one that holds something else is refused."""
    folder = out / "readings"
    there = [path for path in out.iterdir() if path.name not in ("concepts.yaml", LOCK_NAME)] if out.is_dir() else []
    if there and not (folder / "asked.json").is_file():
        raise RunError(f"{out} is not empty and holds no dissection.", "Choose an empty or new folder for --out.")
    if not there:
        return False
    asked = read_json(folder / "asked.json", "Delete the folder and dissect again.")
    changed = [name for name in wanted if asked.get(name) != wanted[name]]
    if changed:
        changes = "; ".join(f"{name} {asked.get(name)}, now {wanted[name]}" for name in changed[:3])
        raise RunError(f"{out} holds another dissection: {changes}.", "Choose another --out, or delete the folder.")
    return (folder / STAMP).is_file()


def _probe_layer(layer: UnitLayer, batch: Batch, cases: int, top: float) -> bool:
    """Refuse a quantile that no place exceeds, and say whether the network cuts out a window of the picture."""
    evidence, activations = layer(batch.images[:1])
    places = cases * math.prod(activations.shape[2:])
    if places * top < 1.0:
        raise CohortError(
            f"{count_noun(cases, 'case has', 'cases have')} {places} places in layer {layer.name}; "
            f"a threshold that a share of {top:g} exceeds "
            f"needs at least {math.ceil(1 / top)}.",
            "Use more cases (--split all), an earlier layer, or a larger --top.",
        )
    return evidence.window is not None


def _write_thresholds(folder: Path, thresholds: Thresholds) -> None:
    partial = folder / "thresholds.partial.npz"
    np.savez_compressed(partial, **{f.name: np.asarray(getattr(thresholds, f.name)) for f in fields(Thresholds)})  # type: ignore[arg-type]
    partial.replace(folder / "thresholds.npz")


def _read_thresholds(folder: Path) -> Thresholds:
    path = folder / "thresholds.npz"
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {f.name: data[f.name] for f in fields(Thresholds)}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(f"{path} is damaged ({error}).", "Delete the folder and dissect again.") from None
    plain = {name: array.item() for name, array in arrays.items() if array.ndim == 0}
    return Thresholds(**{**arrays, **plain, "cells": tuple(int(n) for n in arrays["cells"])})
