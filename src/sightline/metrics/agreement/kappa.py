"""Agreement on labels: Cohen's kappa (plain and weighted), Fleiss' kappa, Krippendorff's alpha.

Every function takes weights of rows, so that a bootstrap over patients is a matter of counting them more than once.
A number that is not defined (all readers say the same everywhere, so that chance alone gives full agreement) is NaN.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError
from sightline.metrics.estimate import FloatArray

Weighting = Literal["none", "linear", "quadratic"]
Level = Literal["nominal", "ordinal", "interval", "ratio"]


def cohen_kappa(
    first: ArrayLike,
    second: ArrayLike,
    classes: int,
    *,
    weighting: Weighting = "none",
    weights: ArrayLike | None = None,
) -> float:
    """Cohen's kappa of two readers (Cohen 1960; weighted: Cohen 1968).

    Args:
        first: [n] class indices of one reader.
        second: [n] of the other.
        classes: how many classes there are.
        weighting: of disagreements: all alike, by distance, or by its square.
        weights: [n] of the rows; None counts each once.

    Returns:
        1 for full agreement, 0 for that of chance; NaN where chance alone agrees fully.

    Raises:
        GeometryError: vectors of other lengths, or indices that are no classes.

    Example:
        >>> round(cohen_kappa([0, 0, 1, 1], [0, 1, 1, 1], 2), 3)
        0.5
    """
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if a.shape != b.shape or a.ndim != 1:
        raise GeometryError(f"Two readers' labels must pair up; got shapes {a.shape} and {b.shape}.")
    if a.size and not (min(a.min(), b.min()) >= 0 and max(a.max(), b.max()) < classes):
        raise GeometryError(f"Labels must be class indices from 0 to {classes - 1}.")
    w = np.ones(a.size) if weights is None else np.asarray(weights, dtype=np.float64)
    table = np.bincount(a * classes + b, weights=w, minlength=classes * classes).reshape(classes, classes)
    total = table.sum()
    if total <= 0.0:
        return float("nan")
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    apart = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes))).astype(np.float64)
    cost = (apart > 0).astype(np.float64) if weighting == "none" else apart if weighting == "linear" else apart**2
    expected = float((cost * chance).sum())
    return float("nan") if expected == 0.0 else 1.0 - float((cost * table).sum()) / expected


def fleiss_kappa(counts: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Fleiss' kappa of many readers (Fleiss 1971).

    Args:
        counts: [n, k], how many readers put subject i into class j; every row sums to the same number of readers.
        weights: [n] of the rows.

    Raises:
        GeometryError: rows of other sums, or fewer than two readers.

    Example:
        >>> fleiss_kappa([[2, 0], [0, 2]])
        1.0
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] == 0:
        raise GeometryError(f"Fleiss' kappa needs counts [subjects, classes]; got shape {table.shape}.")
    readers = table.sum(axis=1)
    if (readers != readers[0]).any() or readers[0] < 2:
        raise GeometryError(
            "Fleiss' kappa needs the same number of readers, two or more, for every subject.",
            "Use Krippendorff's alpha where some did not read all.",
        )
    m, w = readers[0], np.ones(len(table)) if weights is None else np.asarray(weights, dtype=np.float64)
    agreed = ((table**2).sum(axis=1) - m) / (m * (m - 1.0))
    share = (w[:, None] * table).sum(axis=0) / (w.sum() * m)
    chance = float((share**2).sum())
    if chance >= 1.0 - 1e-15:
        return float("nan")
    return float(((w * agreed).sum() / w.sum() - chance) / (1.0 - chance))


def krippendorff_alpha(values: ArrayLike, *, level: Level = "nominal", weights: ArrayLike | None = None) -> float:
    """Krippendorff's alpha (2011, "Computing Krippendorff's alpha-reliability"): any number of readers, gaps allowed.

    Args:
        values: [readers, units]; NaN where a reader did not read. Classes as numbers at the nominal level.
        level: what differences mean.
        weights: [units].

    Returns:
        1 for full agreement, 0 for chance; NaN where no unit was read twice or all values are one.

    Example:
        >>> krippendorff_alpha([[1, 2, 3], [1, 2, 3]])
        1.0
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise GeometryError(f"Krippendorff's alpha needs values [readers, units]; got shape {table.shape}.")
    w = np.ones(table.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    present = np.isfinite(table)
    names, index = np.unique(table[present], return_inverse=True)
    each = np.zeros((table.shape[1], len(names)))
    np.add.at(each, (np.nonzero(present)[1], index), 1.0)
    pairable = each.sum(axis=1) >= 2
    each, w = each[pairable], w[pairable]
    if each.size == 0 or w.sum() <= 0:
        return float("nan")
    scaled = each * (w / (each.sum(axis=1) - 1.0))[:, None]
    coincidences = scaled.T @ each - np.diag((scaled).sum(axis=0))
    totals = coincidences.sum(axis=1)
    distance = _compute_distance(names, totals, level)
    n = totals.sum()
    expected = float((distance * np.outer(totals, totals)).sum()) / (n - 1.0) if n > 1 else 0.0
    return float("nan") if expected <= 0.0 else 1.0 - float((distance * coincidences).sum()) / expected


def _compute_distance(names: FloatArray, totals: FloatArray, level: Level) -> NDArray[np.float64]:
    """Squared differences between values."""
    if level == "nominal":
        return (names[:, None] != names[None, :]).astype(np.float64)
    if level == "ordinal":
        # how many values lie between two, their own counted half
        upto = np.cumsum(totals) - totals / 2.0
        return np.asarray((upto[:, None] - upto[None, :]) ** 2)
    if level == "interval":
        return np.asarray((names[:, None] - names[None, :]) ** 2)
    total = np.abs(names[:, None] + names[None, :])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(((names[:, None] - names[None, :]) / total) ** 2)
