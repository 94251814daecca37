"""Boxes of a run in source pixels: those the network says itself, or those read off its class maps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sightline.case import Case, Cohort
from sightline.cohorts.task import is_normal
from sightline.cohorts.transforms import View
from sightline.explain.found_boxes import boxes_of_maps
from sightline.explain.locate import upsampled
from sightline.explain.map_boxes import MapBoxes
from sightline.explain.tuning import candidates, tune
from sightline.frame import Frame
from sightline.lab.plain import Catalogue, to_plain
from sightline.lab.predict import Maps, Said
from sightline.lab.run import Run, write_text
from sightline.lab.views import case_frame, source_frame
from sightline.measure.box_scores import BoxCase, BoxScores
from sightline.region import corners_of

FloatArray = NDArray[np.float64]


def true_corners(case: Case) -> FloatArray:
    """The boxes around a case's findings, [t, 4] in source pixels.

    Where findings are given both as boxes and as outlines, the boxes count: they are the same findings.
    """
    findings = [region for region in case.regions if region.tag.role == "finding"]
    boxes = [region for region in findings if hasattr(region, "start")]
    return np.array([corners_of(region) for region in boxes or findings], dtype=np.float64).reshape(-1, 4)


def finding_classes(classes: Sequence[str]) -> list[int]:
    """Positions of the classes that are findings: all but the normal one."""
    return [k for k, name in enumerate(classes) if not is_normal(name)] or list(range(len(classes)))


def box_scores(said: Said, cohort: Cohort, view: View, protocol: MapBoxes) -> BoxScores | None:
    """A network's boxes beside the experts', one entry an image; None where nothing is marked or nothing located.

    The box of an image is that of its most probable finding, whatever the truth is: the network says a box itself, or
    it is read off that class's map, enlarged to the view (bilinear, Wang 2017). Its score is the probability of the
    class, times the box's share of the map's range where there are several.
    """
    truths = [true_corners(case) for case in cohort]
    if not any(len(t) for t in truths) or (said.boxes is None and said.maps is None):
        return None
    found = found_boxes(said, cohort, view, protocol)
    cases = []
    for case, truth, (corners, scores) in zip(cohort, truths, found, strict=True):
        shape = source_frame(case).shape
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
    return BoxScores(tuple(cases), "boxes of the network" if said.boxes is not None else "boxes read off class maps")


def found_boxes(said: Said, cohort: Cohort, view: View, protocol: MapBoxes) -> list[tuple[FloatArray, FloatArray]]:
    """For every case the corners [f, 4] in source pixels and the scores [f] of what a network found."""
    sources, views = [source_frame(case) for case in cohort], [case_frame(case, view) for case in cohort]
    return boxes_on_pictures(said, sources, views, protocol)


def finding_named(classes: Sequence[str], probabilities: FloatArray) -> int:
    """The most probable finding of a picture with probabilities [k]: whose box is asked for, whatever is predicted."""
    findings = finding_classes(classes)
    return findings[int(probabilities[findings].argmax())]


def boxes_on_pictures(
    said: Said, sources: Sequence[Frame], views: Sequence[Frame], protocol: MapBoxes
) -> list[tuple[FloatArray, FloatArray]]:
    """For every picture the corners [f, 4] in source pixels and the scores [f] of what a network found.

    Args:
        said: by a network of the pictures.
        sources: frames of the pictures.
        views: frames of what the network saw of them.
        protocol: how boxes are read off maps.
    """
    classes = said.predictions.classes
    named = np.array([finding_named(classes, row) for row in said.predictions.probabilities], dtype=np.int64)
    sure = said.predictions.probabilities[np.arange(len(named)), named]
    if said.boxes is not None:
        corners = [view.map_points(_grid_corners(box, view)) for box, view in zip(said.boxes, views, strict=True)]
        boxes = [np.concatenate([points.min(axis=0), points.max(axis=0)])[None] for points in corners]
        scores = [np.array([p]) for p in sure]
    else:
        assert said.maps is not None
        boxes, scores = map_boxes(said.maps, named, views, protocol)
        scores = [s * p for s, p in zip(scores, sure, strict=True)]
    return [_inside(box, score, source) for box, score, source in zip(boxes, scores, sources, strict=True)]


def map_boxes(
    maps: Maps, named: NDArray[np.int64], frames: Sequence[Frame], protocol: MapBoxes
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Boxes and scores read off one class's map of every case, in source pixels.

    Args:
        maps: of the cases.
        named: int [n], the class whose map is read.
        frames: of the views.
        protocol: how.
    """
    grids = _enlarged(maps, named, frames)
    found = boxes_of_maps(grids, protocol)
    shape = (grids.shape[1], grids.shape[2])
    boxes, scores = [], []
    for row, view in enumerate(frames):
        mine = found.map_index == row
        frame = maps.frame(row, view, shape)
        low, high = found.corners[mine, :2], found.corners[mine, 2:]
        # all four corners: a turned window does not keep boxes upright
        points = [frame.map_points(np.stack([a, b], axis=-1)) for a in (low[:, 0], high[:, 0])
                  for b in (low[:, 1], high[:, 1])]  # fmt: skip
        stack = np.stack(points) if mine.any() else np.zeros((4, 0, 2))
        boxes.append(np.concatenate([stack.min(axis=0), stack.max(axis=0)], axis=1).reshape(-1, 4))
        scores.append(found.scores[mine])
    return boxes, scores


def tune_boxes(run: Run, said: Said, cohort: Cohort, catalogue: Catalogue) -> Run:
    """Choose on validation cases how boxes are read off a run's maps; kept in the run's `boxes.json`.

    Left as the recipe says where the network says its boxes itself, or fewer than two validation images are marked.

    Args:
        run: a finished run.
        said: what it says of the validation cases.
        cohort: those cases, as the recipe sees them.
        catalogue: words of recipes.
    """
    truths = [true_corners(case) for case in cohort]
    rows = [row for row, truth in enumerate(truths) if len(truth)]
    if said.boxes is not None or said.maps is None or len(rows) < 2:
        return run
    frames = [case_frame(cohort[row], run.recipe.view) for row in rows]
    findings = finding_classes(said.predictions.classes)
    named = np.array(findings)[said.predictions.probabilities[np.ix_(rows, findings)].argmax(axis=1)]
    maps = said.maps.take(rows)
    grids = _enlarged(maps, named, frames)
    on_grid = []
    for i, row in enumerate(rows):
        frame = maps.frame(i, frames[i], (grids.shape[1], grids.shape[2]))
        corners = truths[row].reshape(-1, 2, 2)
        both = frame.unmap_points(np.concatenate([corners, np.stack([corners[:, 0], corners[:, 1]], 1)[:, ::-1]], 1))
        on_grid.append(np.concatenate([both.min(axis=1), both.max(axis=1)], axis=1))
    best = tune(grids, on_grid, candidates(run.recipe.boxes))
    write_text(run.folder / "boxes.json", json.dumps(to_plain(best, catalogue), indent=1) + "\n")
    return replace(run, boxes=best)


def _enlarged(maps: Maps, named: NDArray[np.int64], frames: Sequence[Frame]) -> NDArray[np.float32]:
    """The named class's map of every case on the grid of its view, float32 [n, h, w]."""
    places = [maps.of_class(row, int(k)) for row, k in enumerate(named)]
    # a class whose map was not kept: the predicted class's map stands first
    chosen = maps.maps[np.arange(len(named)), [0 if place is None else place for place in places]]
    return upsampled(chosen, (frames[0].shape[0], frames[0].shape[1]))


def _grid_corners(box: FloatArray, frame: Frame) -> FloatArray:
    """The four corners [4, 2] on the view's grid of a box of centre and sides in fractions."""
    centre, half = box[:2], box[2:] / 2.0
    signs = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    return np.asarray((centre + signs * half) * np.array(frame.shape))


def _inside(boxes: FloatArray, scores: FloatArray, source: Frame) -> tuple[FloatArray, FloatArray]:
    """Boxes cut to the picture; those wholly outside it are left out."""
    limit = np.array([*source.shape, *source.shape], dtype=np.float64)
    cut = np.clip(boxes, 0.0, limit)
    kept = ((cut[:, 2:] - cut[:, :2]) > 0).all(axis=1)
    return cut[kept], scores[kept]
