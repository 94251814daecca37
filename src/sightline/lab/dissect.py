"""What the units of a layer respond to: thresholds, scores, galleries, files for a viewer, and a page (Engstler 2022).

Two passes over the cohort give thresholds and readings, which are kept; everything after that is computed from them, so
that a second call with other `over` or more units takes no further pass.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from sightline.case import Cohort
from sightline.cohorts.transforms import View, refuse_unmarked
from sightline.cohorts.volume_view import VolumeView
from sightline.errors import CohortError, RecipeError, RunError
from sightline.explain.unit_layer import UnitLayer, default_layer, mixes_images
from sightline.lab.concepts import keep_concepts, read_concepts
from sightline.lab.dissection import EXAMPLES, Dissection, named, open_dissection, write_table, write_units
from sightline.lab.dissection_numbers import Numbers, agreement_rows, call_rows, null_band, numbers_of, unit_rows
from sightline.lab.dissection_report import Found, over_words, write_dissection_report
from sightline.lab.gallery import safe_name
from sightline.lab.predict import laid_out, same_classes
from sightline.lab.progress import progress
from sightline.lab.run import Run, environment
from sightline.lab.train import Engine
from sightline.lab.unit_cases import Called, CaseReader, Cells, activations_of, top_cases
from sightline.lab.unit_gallery import STRONGEST, GalleryHead, draw_collage, draw_strongest, thumbnail
from sightline.lab.unit_nifti import picture_of, source_response, write_overlay, write_unit_nifti
from sightline.lab.views import case_frame

Over = Literal["positives", "true_positives", "false_positives"]
TOP = 0.005
UNITS = 10
PASSES_BATCH = {View: 16, VolumeView: 8}


def dissect(
    run: Run,
    cohort: Cohort,
    out: Path,
    *,
    layer: str | None = None,
    split: str = "test",
    top: float = TOP,
    over: Over = "positives",
    positive: str | None = None,
    units: int = UNITS,
    engine: Engine | None = None,
) -> Dissection:
    """Dissect a layer of a run on a cohort into a folder; the same call again reuses what was read.

    Args:
        run: a finished run, of pictures or volumes.
        cohort: with the run's classes, also another hospital's.
        out: folder to write.
        layer: any part of the network that gives maps; the network's own choice when None.
        split: `train`, `val`, `test` or `all`.
        top: share of all places on which a unit exceeds its threshold.
        over: the cases that c is a share of: all positives, those called right, or false alarms.
        positive: class whose cases are the positives; the last one when None.
        units: how many of the first units by rank get a gallery.
        engine: device and workers.

    Raises:
        RunError: the run is not finished, or `out` holds another dissection.
        RecipeError: no such layer.
        CohortError: other classes, or too few cases to rank units by.
    """
    engine = engine or Engine()
    if not run.done:
        raise RunError(f"{run.folder} is not finished.", "Run the same train command again: it resumes.")
    if units < 1:
        raise RunError(f"A dissection shows at least one unit; got {units}.", "Give --units 10.")
    cohort = _chosen(run, cohort, split)
    name = _positive(run, positive)
    view = run.recipe.view
    device = engine.fabric("32-true").device
    network = laid_out(run.network().to(device))
    reader = UnitLayer(network, layer or chosen_layer(network))
    stamp = {
        "run": run.identity,
        "weights": _digest(run.folder / "weights.safetensors"),
        "layer": reader.name,
        "cohort": cohort.name,
        "fingerprint": cohort.fingerprint(),
        "cases": str(len(cohort)),
        "split": split,
        "top": repr(top),
    }
    if (out / "concepts.yaml").is_file():
        read_concepts(out / "concepts.yaml")  # a malformed file is told before the passes, not after
    numbers = numbers_of(
        reader, cohort, view, out, stamp, batch_size=PASSES_BATCH[type(view)], engine=engine,
        independent=run.recipe.independent,
    )  # fmt: skip
    called = _called(cohort, numbers, name)
    among = _among(called, over, cohort, split)
    rows = unit_rows(numbers, among, ~called.truth if over != "false_positives" else _rejected(called), cohort)
    about = {
        "title": run.recipe.title,
        **stamp,
        "positive": name,
        "over": over,
        "command": environment()["command"],
        "date": datetime.now(UTC).date().isoformat(),
        "sightline": environment()["sightline"],
        "torch": environment()["packages"]["torch"],
        "numpy": environment()["packages"]["numpy"],
    }
    found = Dissection(out, reader.name, name, over, rows, about)
    shown = [row.unit for row in found.ranked[:units]]
    concepts = keep_concepts(
        out / "concepts.yaml",
        run=run.identity,
        weights=stamp["weights"],
        layer=reader.name,
        units=[(row.unit, row.standing) for row in found.ranked[:units]],
    )
    found = replace(found, concepts=named(concepts))
    agreement = agreement_rows(numbers, cohort)
    calls = call_rows(numbers, called, cohort)
    low, high = null_band(numbers, among, len(cohort))
    write_table(
        out / "agreement.csv",
        ("unit", "mask", "iou", "null_95", "p", "cases"),
        [(r.unit, r.mask, r.iou, r.null_95, r.p, r.cases) for r in agreement],
    )
    write_table(
        out / "calls.csv",
        ("unit", "true_calls", "false_alarms", "difference", "p"),
        [(r.unit, r.true_calls, r.false_alarms, r.difference, r.p) for r in calls],
    )
    _pictures(found, shown, numbers, called, among, cohort, view, reader, engine)
    write_dissection_report(
        out / "report.html",
        found,
        Found(
            low=low,
            high=high,
            agreement=agreement,
            without_agreement=numbers.without_masks,
            calls=calls,
            true_calls=int((called.truth & called.called).sum()),
            false_alarms=int((~called.truth & called.called).sum()),
            shown=tuple(shown),
            n_negative=int((~called.truth).sum()),
            notes=_notes(network, view, cohort),
        ),
    )
    # last: its presence says that all the rest is there
    write_units(out, found)
    return open_dissection(out)


def chosen_layer(network: nn.Module) -> str:
    """The layer dissected where none is named: what the network says, else the features its maps are made of."""
    prefix, inner = "", network
    if isinstance(getattr(network, "classifier", None), nn.Module):
        # a network that cuts out a window: the part that says the class
        prefix, inner = "classifier.", network.classifier  # type: ignore[assignment]
    if not hasattr(inner, "dissected") and isinstance(getattr(inner, "fusion", None), nn.Module):
        return f"{prefix}fusion"
    return prefix + default_layer(inner)


def _chosen(run: Run, whole: Cohort, split: str) -> Cohort:
    cohort = run.recipe.see(whole if split == "all" else whole.split(split))
    same_classes(run.classes, cohort.classes, f"Cohort {cohort.name!r}")
    if len(cohort) == 0:
        there = ", ".join(f"{name}: {len(whole.split(name))}" for name in ("train", "val", "test"))
        raise CohortError(f"{whole.name!r} has no case in {split} ({there}).", "Choose another --split, or `all`.")
    if isinstance(run.recipe.view, View):
        refuse_unmarked(cohort, run.recipe.view)
    return cohort


def _positive(run: Run, positive: str | None) -> str:
    if positive is None:
        return run.classes[-1]
    if positive not in run.classes:
        raise RecipeError(f"The run has no class {positive!r}.", f"Its classes are {', '.join(run.classes)}.")
    return positive


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _called(cohort: Cohort, numbers: Numbers, name: str) -> Called:
    index = cohort.classes.index(name)
    truth = np.array([case.label == name for case in cohort])
    return Called(name, truth, numbers.probabilities.argmax(axis=1) == index, numbers.probabilities[:, index])


def _among(called: Called, over: Over, cohort: Cohort, split: str) -> NDArray[np.int64]:
    """The rows that c is a share of."""
    sides = {
        "positives": called.truth,
        "true_positives": called.truth & called.called,
        "false_positives": ~called.truth & called.called,
    }
    if not called.truth.any():
        raise CohortError(
            f"None of the {len(cohort)} cases in {split} is of the class {called.positive!r}.",
            f"Choose another --split, or --positive; the cohort has {cohort.counts()}.",
        )
    rows = np.flatnonzero(sides[over])
    if len(rows) < 2:
        words = {"positives": "positive", "true_positives": "true call", "false_positives": "false alarm"}[over]
        raise CohortError(
            f"Only {len(rows)} {words} of {called.positive!r} among {len(cohort)} cases in {split}; units are ranked "
            "by a share of at least 2.",
            "Use more cases (--split all), or another --over.",
        )
    return rows


def _rejected(called: Called) -> NDArray[np.bool_]:
    """False alarms are held against the negatives that were called right."""
    return ~called.truth & ~called.called


def _pictures(
    found: Dissection,
    shown: list[int],
    numbers: Numbers,
    called: Called,
    among: NDArray[np.int64],
    cohort: Cohort,
    view: View | VolumeView,
    layer: UnitLayer,
    engine: Engine,
) -> None:
    """Galleries, examples, and NIfTI files or overlays of the units shown."""
    rows = {unit: top_cases(numbers.mean[:, unit], numbers.above[:, unit] > 0, among) for unit in shown}
    distinct = len({row for each in rows.values() for row in each})
    with progress("read galleries", distinct, quiet=engine.quiet) as advance:
        cells = activations_of(
            layer, cohort, view, rows, batch_size=numbers.batch_size, workers=engine.workers, advance=advance
        )
    reader = CaseReader(cohort, view, called)
    standing = {row.unit: row for row in found.units}
    with progress("draw units", len(shown), quiet=engine.quiet) as advance:
        for unit in shown:
            threshold = standing[unit].threshold
            concept = found.concepts.get(unit)
            head = GalleryHead(unit, standing[unit].standing, concept.text if concept else "", over_words(found))
            cases = reader.gallery(unit, threshold, rows[unit], cells)
            galleries, examples = found.folder / "galleries", found.folder / "examples"
            _write(galleries / f"unit_{unit:03d}.png", draw_collage(head, cases))
            _write(galleries / f"unit_{unit:03d}_strongest.png", draw_strongest(head, cases))
            examples.mkdir(parents=True, exist_ok=True)
            for n, case in enumerate(cases[:EXAMPLES], start=1):
                picture = Image.fromarray(np.round(thumbnail(case) * 255).astype(np.uint8))
                picture.save(examples / f"unit_{unit:03d}_{n}.png")
            _files(found.folder, unit, threshold, rows[unit][:STRONGEST], cells, cohort, view)
            advance(1)


def _files(
    out: Path, unit: int, threshold: float, rows: list[int], cells: Cells, cohort: Cohort, view: View | VolumeView
) -> None:
    for n, row in enumerate(rows, start=1):
        case = cohort[row]
        name = f"{n}_{safe_name(case.case_id)}"
        values, window = cells[unit, row]
        if isinstance(view, VolumeView):
            write_unit_nifti(out / "nifti" / f"unit_{unit:03d}", name, case, view, values, threshold)
        else:
            grey, grid = picture_of(case)
            seen = source_response(values, threshold, case_frame(case, view), grid, window)
            write_overlay(out / "overlays" / f"unit_{unit:03d}" / f"{name}.png", grey, seen)


def _notes(network: nn.Module, view: View | VolumeView, cohort: Cohort) -> tuple[str, ...]:
    notes = []
    if mixes_images(network):
        notes.append(
            "This network normalises each batch by itself, even in use: what a unit says of a case depends on the "
            f"cases beside it. All passes went {PASSES_BATCH[type(view)]} cases at a time; galleries, whose cases "
            "stand beside others, differ a little from the numbers."
        )
    if isinstance(view, VolumeView) and any(case.view == "straightened" for case in cohort):
        notes.append(
            "Patches of this cohort are straightened along the spine: their files lie at the vertebra in the CT, but "
            "away from its centre they are bent against it."
        )
    return tuple(notes)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
