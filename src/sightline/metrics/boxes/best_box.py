"""How well one box lies on the findings of one image, beside what the same box gets at a random place.

Each score takes the true box that suits it best (largest share, smallest distance), so that an image with several
findings asks for one of them; `box_ranking` asks for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sightline.metrics.boxes.geometry import FloatArray, compute_shares

IOU_THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""The thresholds of Jimenez-Sanchez 2018, section III."""


@dataclass(frozen=True)
class BoxScore:
    """The scores of one box (or their expected values) on an image with findings.

    Attributes:
        iou: intersection over union with the best-matching finding.
        iobb: intersection over the area of the box (Wang 2017).
        covered: intersection over the area of the finding.
        centre_inside: 1 if the box has an area and its centre lies in a finding, else 0: the pointing game of a box.
        distance_px: distance to the centre of the nearest finding, or None without a box.
        distance_mm: the same in mm, or None without a box or without a known spacing.
        above: for each of `IOU_THRESHOLDS`, 1 if the IoU is larger, else 0.
    """

    iou: float = 0.0
    iobb: float = 0.0
    covered: float = 0.0
    centre_inside: float = 0.0
    distance_px: float | None = None
    distance_mm: float | None = None
    above: tuple[float, ...] = (0.0,) * len(IOU_THRESHOLDS)

    @property
    def printed_map(self) -> float:
        """Mean of `above`: the image's part in the mAP that Jimenez-Sanchez 2018 prints."""
        return float(np.mean(self.above))


def score_box(box: FloatArray | None, truth: FloatArray, spacing_mm: tuple[float, float] | None = None) -> BoxScore:
    """Score one box [4] against the findings [t, 4] of its image, t >= 1; no box scores 0 and has no distance."""
    if box is None:
        return BoxScore()
    shares = {name: float(v[0]) for name, v in _score_best(box[None], truth, spacing_mm).items()}
    above = tuple(float(shares["iou"] > threshold) for threshold in IOU_THRESHOLDS)
    return BoxScore(
        iou=shares["iou"],
        iobb=shares["iobb"],
        covered=shares["covered"],
        centre_inside=shares["centre_inside"],
        distance_px=shares["distance_px"],
        distance_mm=shares.get("distance_mm"),
        above=above,
    )


def expect_chance_score(
    box: FloatArray | None,
    truth: FloatArray,
    image_shape: tuple[int, int],
    spacing_mm: tuple[float, float] | None = None,
) -> BoxScore:
    """Chance: the expected scores of a box of the same size, put anywhere inside the image with equal chance.

    It is computed, not drawn (`box_place`). A box as large as the image has one place, and its own scores as chance.
    """
    if box is None:
        return BoxScore()
    sides = (float(box[2] - box[0]), float(box[3] - box[1]))
    moved, weights = integrate_places(sides, truth, image_shape)
    shares = {name: float(weights @ v) for name, v in _score_best(moved, truth, spacing_mm).items()}
    above = tuple(compute_share_above(threshold, sides, truth, image_shape) for threshold in IOU_THRESHOLDS)
    return BoxScore(
        iou=shares["iou"],
        iobb=shares["iobb"],
        covered=shares["covered"],
        centre_inside=shares["centre_inside"],
        distance_px=shares["distance_px"],
        distance_mm=shares.get("distance_mm"),
        above=above,
    )


def _score_best(boxes: FloatArray, truth: FloatArray, spacing_mm: tuple[float, float] | None) -> dict[str, FloatArray]:
    """Every score of boxes [n, 4], each [n] at the finding that suits it best."""
    shares = compute_shares(boxes, truth)
    found = {
        "iou": shares.iou.max(axis=1),
        "iobb": shares.iobb.max(axis=1),
        "covered": shares.covered.max(axis=1),
        "centre_inside": shares.centre_inside.any(axis=1).astype(np.float64),
        "distance_px": np.hypot(shares.step[..., 0], shares.step[..., 1]).min(axis=1),
    }
    if spacing_mm is not None:
        step = shares.step * np.asarray(spacing_mm)
        found["distance_mm"] = np.hypot(step[..., 0], step[..., 1]).min(axis=1)
    return found


def integrate_places(
    sides: tuple[float, float], truth: FloatArray, image_shape: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Boxes [n, 4] of one size at the nodes of the integral over places, and their weights [n], which sum to 1.

    Args:
        sides: height and width, at most the image's.
        truth: [t, 4] findings, where the scores have their kinks.
        image_shape: (rows, columns).
    """
    nodes = 8 if len(truth) <= 2 else 4
    axes = []
    for axis, side in enumerate(sides):
        start, stop = truth[:, axis], truth[:, axis + 2]
        middle = (start + stop) / 2
        kinks = np.concatenate([start - side, start, stop - side, stop, start - side / 2, stop - side / 2])
        axes.append(_build_axis_nodes(image_shape[axis] - side, [*kinks, *(middle - side / 2)], nodes))
    (rows, row_weights), (columns, column_weights) = axes
    corner = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.concatenate([corner, corner + np.asarray(sides)], axis=1), np.outer(row_weights, column_weights).ravel()


def compute_share_above(
    threshold: float, sides: tuple[float, float], truth: FloatArray, image_shape: tuple[int, int]
) -> float:
    """Share of places at which the box has an IoU of more than the threshold with any finding.

    IoU > T means intersection > T (A + B) / (1 + T). At a given row the columns that reach it are an interval, so the
    inner integral is the length of a union of intervals, and only the outer one is a sum over nodes.
    """
    height, width = sides
    row_room, column_room = image_shape[0] - height, image_shape[1] - width
    heights, widths = truth[:, 2] - truth[:, 0], truth[:, 3] - truth[:, 1]
    need = threshold * (height * width + heights * widths) / (1.0 + threshold)
    possible = need < np.minimum(height, heights) * np.minimum(width, widths)
    if not possible.any():
        return 0.0
    truth, need, widths = truth[possible], need[possible], widths[possible]
    start, stop = truth[:, 0], truth[:, 2]
    least = need / np.minimum(width, widths)  # rows that must overlap
    kinks = np.concatenate([start - height, start, stop - height, stop, start - height + least, stop - least])
    rows, weights = _build_axis_nodes(row_room, kinks, 16)
    overlap = np.minimum(rows[:, None] + height, stop) - np.maximum(rows[:, None], start)
    reached = overlap > least
    columns = need / np.where(reached, overlap, 1.0)  # columns that must overlap
    low, high = truth[:, 1] - width + columns, truth[:, 3] - columns
    if column_room <= 0.0:
        return float(weights @ (reached & (low < 0.0) & (high > 0.0)).any(axis=1))
    low, high = low.clip(0.0, column_room), high.clip(0.0, column_room)
    low, high = np.where(reached, low, 0.0), np.where(reached, high, 0.0)
    return float(weights @ _compute_union_length(low, high) / column_room)


def _build_axis_nodes(room: float, kinks: Iterable[float], nodes: int) -> tuple[FloatArray, FloatArray]:
    """Places from 0 to `room` along one axis and their weights; pieces end at the kinks."""
    if room <= 0.0:
        return np.zeros(1), np.ones(1)
    ends = np.unique(np.clip([0.0, room, *kinks], 0.0, room))
    position, weight = _compute_gauss_nodes(nodes)
    half = np.diff(ends) / 2
    places = (ends[:-1] + half)[:, None] + half[:, None] * position
    return places.ravel(), (half[:, None] * weight / room).ravel()


@lru_cache(maxsize=8)
def _compute_gauss_nodes(nodes: int) -> tuple[FloatArray, FloatArray]:
    position, weight = np.polynomial.legendre.leggauss(nodes)
    return np.asarray(position), np.asarray(weight)


def _compute_union_length(low: FloatArray, high: FloatArray) -> FloatArray:
    """Length [n] of the union of intervals low..high, both [n, t]; one that ends before it starts is empty."""
    high = np.maximum(low, high)
    order = np.argsort(low, axis=1)
    low, high = np.take_along_axis(low, order, 1), np.take_along_axis(high, order, 1)
    reached = np.maximum.accumulate(high, axis=1)
    before = np.concatenate([low[:, :1], reached[:, :-1]], axis=1)
    return np.asarray((high - np.maximum(low, before)).clip(min=0.0).sum(axis=1))
