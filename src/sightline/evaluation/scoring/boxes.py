"""A network's boxes against the expert's."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from sightline.data.views.crops import list_boxes
from sightline.data.views.frames import find_case_frame, find_source_frame
from sightline.data.views.image_view import View
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.explainers.localisation.tuning import list_candidates, tune
from sightline.inference.boxes import FloatArray, _enlarge_maps, list_finding_classes, read_boxes
from sightline.inference.network_output import NetworkOutput
from sightline.io.files import write_text
from sightline.metrics.boxes.table import BoxCase, BoxScores
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.training.run import Run
from sightline.training.serialization import Catalogue, to_plain


def list_true_corners(case: Case) -> FloatArray:
    """The boxes around a case's findings (`list_boxes`), [t, 4] in source pixels."""
    return np.array(list_boxes(case), dtype=np.float64).reshape(-1, 4)


def score_boxes(output: NetworkOutput, cohort: Cohort, view: View, protocol: MapBoxes) -> BoxScores | None:
    """A network's boxes beside the experts', one entry an image; None where nothing is marked or nothing located.

    The box of an image is that of its most probable finding, whatever the truth is: the network says a box itself, or
    it is read off that class's map, enlarged to the view (bilinear, Wang 2017). Its score is the probability of the
    class, times the box's share of the map's range where there are several.
    """
    truths = [list_true_corners(case) for case in cohort]
    if not any(len(t) for t in truths) or (output.boxes is None and output.maps is None):
        return None
    found = read_boxes(output, cohort, view, protocol)
    cases = []
    for case, truth, (corners, scores) in zip(cohort, truths, found, strict=True):
        shape = find_source_frame(case).shape
        corners, scores = _drop_ignored(case, corners, scores)
        cases.append(
            BoxCase(
                case_id=case.case_id,
                study_id=case.study_id,
                patient_id=case.patient_id,
                label=case.label,
                truth=truth,
                found=corners,
                scores=scores,
                image_shape=(shape[0], shape[1]),
                spacing_mm=None if case.spacing_mm is None else (case.spacing_mm[0], case.spacing_mm[1]),
            )
        )
    return BoxScores(tuple(cases), "boxes of the network" if output.boxes is not None else "boxes read off class maps")


def _drop_ignored(case: Case, corners: FloatArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The boxes that do not lie in regions to ignore: half in one or more is neither found nor missed (as COCO)."""
    ignored = [region for region in case.regions if region.tag.role == "ignore"]
    boxes = np.asarray(corners, dtype=np.float64).reshape(-1, 4)
    if not ignored or not len(boxes):
        return corners, scores
    kept = []
    for r0, c0, r1, c1 in boxes:
        # the box on a grid of its own
        height, width = max(r1 - r0, 1e-6), max(c1 - c0, 1e-6)
        frame = Frame((16, 16), np.array([[height / 16, 0.0, r0], [0.0, width / 16, c0], [0.0, 0.0, 1.0]]))
        kept.append(bool(np.max([region.draw(frame) for region in ignored], axis=0).mean() < 0.5))
    chosen = np.array(kept)
    return boxes[chosen], np.asarray(scores)[chosen]


def tune_boxes(run: Run, output: NetworkOutput, cohort: Cohort, catalogue: Catalogue) -> Run:
    """Choose on validation cases how boxes are read off a run's maps; kept in the run's `boxes.json`.

    Left as the recipe says where the network says its boxes itself, or fewer than two validation images are marked.

    Args:
        run: a finished run.
        output: what it says of the validation cases.
        cohort: those cases, as the recipe sees them.
        catalogue: words of recipes.
    """
    truths = [list_true_corners(case) for case in cohort]
    rows = [row for row, truth in enumerate(truths) if len(truth)]
    if output.boxes is not None or output.maps is None or len(rows) < 2:
        return run
    frames = [find_case_frame(cohort[row], run.recipe.view) for row in rows]
    findings = list_finding_classes(output.predictions.classes)
    named = np.array(findings)[output.predictions.of_pictures[np.ix_(rows, findings)].argmax(axis=1)]
    maps = output.maps.take(rows)
    grids = _enlarge_maps(maps, named, frames)
    on_grid = []
    for i, row in enumerate(rows):
        frame = maps.frame(i, frames[i], (grids.shape[1], grids.shape[2]))
        corners = truths[row].reshape(-1, 2, 2)
        both = frame.unmap_points(np.concatenate([corners, np.stack([corners[:, 0], corners[:, 1]], 1)[:, ::-1]], 1))
        on_grid.append(np.concatenate([both.min(axis=1), both.max(axis=1)], axis=1))
    best = tune(grids, on_grid, list_candidates(run.recipe.boxes))
    write_text(run.folder / "boxes.json", json.dumps(to_plain(best, catalogue), indent=1) + "\n")
    return replace(run, boxes=best)
