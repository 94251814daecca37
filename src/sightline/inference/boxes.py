"""Boxes of a run in source pixels: those the network says itself, or those read off its class maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sightline.data.views.frames import find_case_frame, find_source_frame
from sightline.data.views.image_view import View
from sightline.explainers.localisation.boxes import find_boxes_of_maps
from sightline.explainers.localisation.points import upsample_maps
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.inference.network_output import Maps, NetworkOutput
from sightline.structures.case import Cohort, is_normal
from sightline.structures.frame import Frame

FloatArray = NDArray[np.float64]


def list_finding_classes(classes: Sequence[str]) -> list[int]:
    """Positions of the classes that are findings: all but the normal one."""
    return [k for k, name in enumerate(classes) if not is_normal(name)] or list(range(len(classes)))


def read_boxes(
    output: NetworkOutput, cohort: Cohort, view: View, protocol: MapBoxes
) -> list[tuple[FloatArray, FloatArray]]:
    """For every case the corners [f, 4] in source pixels and the scores [f] of what a network found."""
    sources, views = [find_source_frame(case) for case in cohort], [find_case_frame(case, view) for case in cohort]
    return read_boxes_on_pictures(output, sources, views, protocol)


def choose_top_finding(classes: Sequence[str], probabilities: FloatArray) -> int:
    """The most probable finding of a picture with probabilities [k]: whose box is asked for, whatever is predicted."""
    findings = list_finding_classes(classes)
    return findings[int(probabilities[findings].argmax())]


def read_boxes_on_pictures(
    output: NetworkOutput, sources: Sequence[Frame], views: Sequence[Frame], protocol: MapBoxes
) -> list[tuple[FloatArray, FloatArray]]:
    """For every picture the corners [f, 4] in source pixels and the scores [f] of what a network found.

    Args:
        output: by a network of the pictures.
        sources: frames of the pictures.
        views: frames of what the network saw of them.
        protocol: how boxes are read off maps.
    """
    classes = output.predictions.classes
    named = np.array([choose_top_finding(classes, row) for row in output.predictions.of_pictures], dtype=np.int64)
    sure = output.predictions.of_pictures[np.arange(len(named)), named]
    if output.boxes is not None:
        corners = [view.map_points(_place_corners(box, view)) for box, view in zip(output.boxes, views, strict=True)]
        boxes = [np.concatenate([points.min(axis=0), points.max(axis=0)])[None] for points in corners]
        scores = [np.array([p]) for p in sure]
    else:
        assert output.maps is not None
        boxes, scores = read_map_boxes(output.maps, named, views, protocol)
        scores = [s * p for s, p in zip(scores, sure, strict=True)]
    return [_clip_to_picture(box, score, source) for box, score, source in zip(boxes, scores, sources, strict=True)]


def read_map_boxes(
    maps: Maps, named: NDArray[np.int64], frames: Sequence[Frame], protocol: MapBoxes
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Boxes and scores read off one class's map of every case, in source pixels.

    Args:
        maps: of the cases.
        named: int [n], the class whose map is read.
        frames: of the views.
        protocol: how.
    """
    grids = _enlarge_maps(maps, named, frames)
    found = find_boxes_of_maps(grids, protocol)
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


def _enlarge_maps(maps: Maps, named: NDArray[np.int64], frames: Sequence[Frame]) -> NDArray[np.float32]:
    """The named class's map of every case on the grid of its view, float32 [n, h, w]."""
    places = [maps.of_class(row, int(k)) for row, k in enumerate(named)]
    # a class whose map was not kept: the predicted class's map stands first
    chosen = maps.maps[np.arange(len(named)), [0 if place is None else place for place in places]]
    return upsample_maps(chosen, (frames[0].shape[0], frames[0].shape[1]))


def _place_corners(box: FloatArray, frame: Frame) -> FloatArray:
    """The four corners [4, 2] on the view's grid of a box of centre and sides in fractions."""
    centre, half = box[:2], box[2:] / 2.0
    signs = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    return np.asarray((centre + signs * half) * np.array(frame.shape))


def _clip_to_picture(boxes: FloatArray, scores: FloatArray, source: Frame) -> tuple[FloatArray, FloatArray]:
    """Boxes cut to the picture; those wholly outside it are left out."""
    limit = np.array([*source.shape, *source.shape], dtype=np.float64)
    cut = np.clip(boxes, 0.0, limit)
    kept = ((cut[:, 2:] - cut[:, :2]) > 0).all(axis=1)
    return cut[kept], scores[kept]
