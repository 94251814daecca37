"""Noisy linear imputation: pixels taken out of an image are put back from their neighbours (Rong 2022, section 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from sightline.errors import GeometryError
from sightline.measure.classification import FloatArray

# neighbours beside count twice those across a corner, and all sum to one (Rong 2022, figure 6)
_NEIGHBOURS = tuple(
    (row, column, 1.0 / 6.0 if row * column == 0 else 1.0 / 12.0)
    for row in (-1, 0, 1)
    for column in (-1, 0, 1)
    if (row, column) != (0, 0)
)


def impute(image: ArrayLike, removed: ArrayLike, *, noise: float = 0.01, seed: int = 0) -> FloatArray:
    """Every removed pixel becomes the weighted mean of its neighbours, removed ones included, plus Gaussian noise.

    The means are solved for together. What was taken out leaves no edge that a network could read. An image of which
    nothing is left becomes its mean.

    Args:
        image: float [c, h, w].
        removed: bool [h, w].
        noise: standard deviation of the noise, in units of the image (of an image in 0 to 1: 0.01, as published).
        seed: of the noise.

    Raises:
        GeometryError: shapes that do not fit.
    """
    pixels, gone = np.asarray(image, dtype=np.float64), np.asarray(removed) > 0
    if pixels.ndim != 3 or pixels.shape[1:] != gone.shape:
        raise GeometryError(f"An image of shape {pixels.shape} has no pixels of a mask of shape {gone.shape}.")
    filled = pixels.copy()
    count = int(gone.sum())
    if count == 0:
        return filled
    if gone.all():
        solved = np.repeat(pixels.mean(axis=(1, 2))[None], count, axis=0)
    else:
        solved = _solve(pixels, gone)
    filled[:, gone] = solved.T
    if noise > 0:
        filled[:, gone] += noise * np.random.default_rng(seed).standard_normal((len(pixels), count))
    return filled


def _solve(pixels: FloatArray, gone: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> FloatArray:
    """Values of the removed pixels [count, c] from one sparse system."""
    height, width = gone.shape
    number = np.full(gone.shape, -1)
    where_row, where_column = np.nonzero(gone)
    count = len(where_row)
    number[where_row, where_column] = np.arange(count)
    total, known = np.zeros(count), np.zeros((count, len(pixels)))
    rows, columns, values = [], [], []
    for down, right, weight in _NEIGHBOURS:
        row, column = where_row + down, where_column + right
        on_image = (row >= 0) & (column >= 0) & (row < height) & (column < width)
        total += weight * on_image
        equation = np.flatnonzero(on_image)
        unknown = number[row[equation], column[equation]]
        open_, given = equation[unknown >= 0], equation[unknown < 0]
        rows.append(open_)
        columns.append(unknown[unknown >= 0])
        values.append(np.full(len(open_), -weight))
        known[given] += weight * pixels[:, row[given], column[given]].T
    rows.append(np.arange(count))
    columns.append(np.arange(count))
    values.append(total)
    system = csc_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (count, count))
    # neighbours are mutual and the diagonal dominates: no pivoting, else the factors of a large image fill up
    factors = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    solved: FloatArray = factors.solve(known)
    return solved
