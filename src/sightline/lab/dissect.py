"""What the units of a layer respond to: thresholds, scores, galleries, files for a viewer, and a page (Engstler 2022).

Two passes over the cohort give thresholds and readings, which are kept; everything after that is computed from them, so
that a second call with other `over` or more units takes no further pass.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, fields, replace
from datetime import UTC, datetime
from pathlib import Path

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
from sightline.lab.dissection import EXAMPLES, By, Dissection, UnitRow, named, open_dissection, write_table, write_units
from sightline.lab.dissection_numbers import agreement_of, agreement_rows, call_rows, null_band, score, unit_rows
from sightline.lab.dissection_report import write_dissection_report
from sightline.lab.dissection_words import Found, over_words
from sightline.lab.engine import Engine
from sightline.lab.gallery import safe_name
from sightline.lab.predict import laid_out, same_classes
from sightline.lab.progress import progress
from sightline.lab.run import Run, environment
from sightline.lab.unit_cases import Called, CaseReader, Cells, activations_of, top_cases
from sightline.lab.unit_figures import AgreementRow
from sightline.lab.unit_gallery import STRONGEST, GalleryHead, draw_collage, draw_strongest, thumbnail
from sightline.lab.unit_nifti import picture_of, source_response, write_overlay, write_unit_nifti
from sightline.lab.unit_passes import Passes, pass_through
from sightline.lab.views import case_frame
from sightline.measure.unit_scores import Over

TOP = 0.005
UNITS = 10
LEAST_CASES = 2
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
    by: By = "c",
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
        units: how many units get a gallery.
        by: which ones: the first ranks by `c`, the largest `contrast`, or the largest `auc` of r_k.
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
    passes = pass_through(reader, cohort, view, out, stamp, batch_size=PASSES_BATCH[type(view)], top=top, engine=engine)
    called = _called(cohort, passes.probabilities(independent=run.recipe.independent), name)
    among = _among(called, over, cohort, split)
    scores = score(passes.readings, called, over, cohort)
    rows = unit_rows(scores, passes.thresholds)
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
    chosen = first_units(found, by, units)
    shown = [row.unit for row in chosen]
    concepts = keep_concepts(
        out / "concepts.yaml",
        run=run.identity,
        weights=stamp["weights"],
        layer=reader.name,
        units=[(row.unit, row.standing) for row in chosen],
    )
    found = replace(found, concepts=named(concepts))
    agreement = agreement_rows(agreement_of(passes.readings, out / "readings"))
    calls = call_rows(scores)
    write_table(
        out / "agreement.csv",
        [f.name for f in fields(AgreementRow)],
        [astuple(row) for row in agreement],
    )
    write_table(
        out / "calls.csv",
        ("unit", "true_calls", "false_alarms", "difference", "p"),
        [(r.unit, r.true_calls, r.false_alarms, r.difference, r.p) for r in calls],
    )
    _pictures(found, shown, passes, called, among, cohort, view, reader, engine)
    write_dissection_report(
        out / "report.html",
        found,
        Found(
            band=null_band(passes.readings, called, over, cohort),
            agreement=agreement,
            without_agreement=passes.without_masks,
            calls=calls,
            true_calls=int(called.group("true_positives").sum()),
            false_alarms=int(called.group("false_positives").sum()),
            shown=tuple(shown),
            by=by,
            n_against=0 if scores.contrast is None else scores.contrast.n_against,
            notes=_notes(network, view, cohort),
        ),
    )
    # last: its presence says that all the rest is there
    write_units(out, found)
    return open_dissection(out)


def first_units(found: Dissection, by: By, most: int) -> list[UnitRow]:
    """The units that get a gallery: the first by a score; by rank where the score is not known or equal."""
    if by == "c":
        return list(found.ranked[:most])
    return sorted(found.ranked, key=lambda row: -(getattr(row, by) or 0.0))[:most]


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


def _called(cohort: Cohort, probabilities: NDArray[np.float64], name: str) -> Called:
    index = cohort.classes.index(name)
    truth = np.array([case.label == name for case in cohort])
    return Called(name, truth, probabilities.argmax(axis=1) == index, probabilities[:, index])


def _among(called: Called, over: Over, cohort: Cohort, split: str) -> NDArray[np.int64]:
    """The rows that c is a share of."""
    if not called.truth.any():
        raise CohortError(
            f"None of the {len(cohort)} cases in {split} is of the class {called.positive!r}.",
            f"Choose another --split, or --positive; there are {cohort.counts()}.",
        )
    rows = np.flatnonzero(called.group(over))
    if len(rows) < LEAST_CASES:
        words = {"positives": "case", "true_positives": "true call", "false_positives": "false alarm"}[over]
        raise CohortError(
            f"Only {len(rows)} {words} of {called.positive!r} among {len(cohort)} cases in {split}; units are ranked "
            f"by a share of at least {LEAST_CASES}.",
            "Use more cases (--split all), or another --over.",
        )
    return rows


def _pictures(
    found: Dissection,
    shown: list[int],
    passes: Passes,
    called: Called,
    among: NDArray[np.int64],
    cohort: Cohort,
    view: View | VolumeView,
    layer: UnitLayer,
    engine: Engine,
) -> None:
    """Galleries, examples, and NIfTI files or overlays of the units shown."""
    readings = passes.readings
    rows = {unit: top_cases(readings.strength[:, unit], readings.mean[:, unit], among) for unit in shown}
    distinct = len({row for each in rows.values() for row in each})
    with progress("read galleries", distinct, quiet=engine.quiet) as advance:
        cells = activations_of(
            layer, cohort, view, rows, batch_size=passes.batch_size, workers=engine.workers, advance=advance
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
