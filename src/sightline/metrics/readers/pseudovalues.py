"""The analysis of Dorfman, Berbaum & Metz 1992: an analysis of variance of jackknife pseudovalues.

With Hillis' denominator and degrees of freedom (Hillis, Berbaum & Metz 2008) it is the Obuchowski-Rockette analysis
whose covariances are jackknifed; both are here because reviewers ask for either by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f

from sightline.errors import RunError
from sightline.metrics.readers.anova import INFERENCES, LEAST_VARIANCE, Inference, compute_mean_squares, describe_test
from sightline.metrics.readers.study import ReaderStudy
from sightline.metrics.readers.variance import Figure, compute_figures, jackknife

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PseudovalueAnalysis:
    """F test of a DBM analysis.

    Attributes:
        values: [t, r], figures of merit.
        squares: mean squares by effect: T, R, C, TR, TC, RC, TRC.
        statistic: F.
        df: degrees of freedom of numerator and denominator.
        p_value: of "all modalities are read alike".
        denominator: what the modalities' mean square is divided by.
    """

    values: FloatArray
    squares: dict[str, float]
    statistic: float
    df: tuple[float, float]
    p_value: float
    denominator: float

    def text(self) -> str:
        """The test as a sentence."""
        # with infinitely many degrees of freedom in the denominator, F stays what it is called
        return describe_test(self.statistic, (self.df[0], min(self.df[1], 1e9)), self.p_value, self.denominator)


def compute_pseudovalues(study: ReaderStudy, figure: Figure = "auc") -> FloatArray:
    """K θ less (K - 1) θ without the case, [t, r, K]; their mean over cases is close to θ."""
    k = study.ratings.shape[-1]
    return np.asarray(k * compute_figures(study, figure)[..., None] - (k - 1) * jackknife(study, figure))


def analyse_pseudovalues(
    study: ReaderStudy, *, figure: Figure = "auc", inference: Inference = "readers and cases"
) -> PseudovalueAnalysis:
    """The DBM analysis.

    Args:
        study: two or more modalities and readers, fully crossed.
        figure: what is compared.
        inference: to whom the claim extends.

    Raises:
        RunError: fewer than two readers or modalities, or an unknown inference.

    Source:
        Dorfman, Berbaum & Metz 1992; Hillis, Berbaum & Metz 2008, eq. 8 to 11.
    """
    if inference not in INFERENCES:
        raise RunError(f"There is no inference to {inference!r}; expected one of {', '.join(INFERENCES)}.")
    values = compute_figures(study, figure)
    # refuses too few readers or modalities
    compute_mean_squares(values)
    y = compute_pseudovalues(study, figure)
    t, r, k = y.shape
    squares = _compute_mean_squares(y)
    rest = (t - 1) * (r - 1)
    if inference == "readers and cases":
        denominator = squares["TR"] + max(squares["TC"] - squares["TRC"], 0.0)
        freedom = rest * (denominator / squares["TR"]) ** 2 if squares["TR"] > 0 else math.inf
    elif inference == "cases":
        denominator, freedom = squares["TC"], float((t - 1) * (k - 1))
    else:
        denominator, freedom = squares["TR"], float(rest)
    statistic = squares["T"] / denominator if denominator > 0 else math.inf
    if squares["T"] <= LEAST_VARIANCE:
        statistic, p_value = 0.0, 1.0
    else:
        p_value = float(f.sf(statistic, t - 1, min(freedom, 1e9)))
    return PseudovalueAnalysis(values, squares, statistic, (float(t - 1), freedom), p_value, denominator)


def _compute_mean_squares(y: FloatArray) -> dict[str, float]:
    """Mean squares of a three-way layout [t, r, c] without replication."""
    axes = {"T": 0, "R": 1, "C": 2}
    found: dict[str, float] = {}
    # by inclusion and exclusion: the part of an effect is its cell means less all smaller parts
    parts: dict[str, FloatArray] = {"": np.full((1, 1, 1), y.mean())}
    for effect in ("T", "R", "C", "TR", "TC", "RC", "TRC"):
        others = tuple(axis for name, axis in axes.items() if name not in effect)
        part = y.mean(axis=others, keepdims=True) if others else y
        for smaller, value in parts.items():
            if set(smaller) < set(effect):
                part = part - value
        parts[effect] = part
        times = math.prod(y.shape[axis] for axis in others)
        freedom = math.prod(y.shape[axes[name]] - 1 for name in effect)
        found[effect] = float(times * (part**2).sum() / freedom)
    return found
