"""A box of a given size at a random place: all places inside the image are equally likely.

Overlaps along an axis are piecewise linear in the place, so integrals over places are taken piece by piece with
Gauss-Legendre nodes; nothing is drawn. With one finding the expectations are exact but for some 1e-6 of smooth
quotients; where the best of several findings changes inside a piece, the error stays below 1e-3.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from sightline.measure.boxes import FloatArray


def places(
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
        axes.append(_axis_nodes(image_shape[axis] - side, [*kinks, *(middle - side / 2)], nodes))
    (rows, row_weights), (columns, column_weights) = axes
    corner = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.concatenate([corner, corner + np.asarray(sides)], axis=1), np.outer(row_weights, column_weights).ravel()


def share_above(threshold: float, sides: tuple[float, float], truth: FloatArray, image_shape: tuple[int, int]) -> float:
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
    rows, weights = _axis_nodes(row_room, kinks, 16)
    overlap = np.minimum(rows[:, None] + height, stop) - np.maximum(rows[:, None], start)
    reached = overlap > least
    columns = need / np.where(reached, overlap, 1.0)  # columns that must overlap
    low, high = truth[:, 1] - width + columns, truth[:, 3] - columns
    if column_room <= 0.0:
        return float(weights @ (reached & (low < 0.0) & (high > 0.0)).any(axis=1))
    low, high = low.clip(0.0, column_room), high.clip(0.0, column_room)
    low, high = np.where(reached, low, 0.0), np.where(reached, high, 0.0)
    return float(weights @ _union_length(low, high) / column_room)


def _axis_nodes(room: float, kinks: Iterable[float], nodes: int) -> tuple[FloatArray, FloatArray]:
    """Places from 0 to `room` along one axis and their weights; pieces end at the kinks."""
    if room <= 0.0:
        return np.zeros(1), np.ones(1)
    ends = np.unique(np.clip([0.0, room, *kinks], 0.0, room))
    position, weight = _gauss(nodes)
    half = np.diff(ends) / 2
    places = (ends[:-1] + half)[:, None] + half[:, None] * position
    return places.ravel(), (half[:, None] * weight / room).ravel()


@lru_cache(maxsize=8)
def _gauss(nodes: int) -> tuple[FloatArray, FloatArray]:
    position, weight = np.polynomial.legendre.leggauss(nodes)
    return np.asarray(position), np.asarray(weight)


def _union_length(low: FloatArray, high: FloatArray) -> FloatArray:
    """Length [n] of the union of intervals low..high, both [n, t]; one that ends before it starts is empty."""
    high = np.maximum(low, high)
    order = np.argsort(low, axis=1)
    low, high = np.take_along_axis(low, order, 1), np.take_along_axis(high, order, 1)
    reached = np.maximum.accumulate(high, axis=1)
    before = np.concatenate([low[:, :1], reached[:, :-1]], axis=1)
    return np.asarray((high - np.maximum(low, before)).clip(min=0.0).sum(axis=1))
