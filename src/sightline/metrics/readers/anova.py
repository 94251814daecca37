"""Are two modalities read alike? The analysis of Obuchowski & Rockette 1995 with the degrees of freedom of Hillis 2007.

Which chance counts is stated by `inference`: other readers and other cases (the usual claim), other cases with these
very readers, or other readers with these very cases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, f, norm
from scipy.stats import t as student

from sightline.errors import RunError
from sightline.metrics.estimate import Comparison, Estimate
from sightline.metrics.readers.study import ReaderStudy
from sightline.metrics.readers.variance import (
    Covariance,
    ErrorCovariances,
    Figure,
    compute_figures,
    estimate_error_covariances,
)

FloatArray = NDArray[np.float64]
Inference = Literal["readers and cases", "cases", "readers"]
INFERENCES: tuple[Inference, ...] = ("readers and cases", "cases", "readers")
# beyond it the denominator is made of rounding errors
MOST_STATISTIC = 1e12
LEAST_VARIANCE = 1e-24
NO_TEST = "no test: readers and cases leave no variation"
_WORDS = {
    "readers and cases": "random readers, random cases",
    "cases": "fixed readers, random cases",
    "readers": "random readers, fixed cases",
}


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares of the figures of merit: modality, reader, and both together; and of readers in each modality."""

    modality: float
    reader: float
    both: float
    reader_of: FloatArray


def compute_mean_squares(values: FloatArray) -> MeanSquares:
    """Two-way analysis of variance of figures of merit [t, r] without replication.

    Raises:
        RunError: fewer than two readers or modalities.
    """
    t, r = values.shape
    if t < 2 or r < 2:
        raise RunError(
            f"A comparison of modalities needs two modalities and two readers; got {t} and {r}.",
            "How far readers differ is not known from one; `sightline compare` compares two networks instead.",
        )
    grand = values.mean()
    of_t, of_r = values.mean(axis=1), values.mean(axis=0)
    rest = values - of_t[:, None] - of_r[None, :] + grand
    return MeanSquares(
        modality=float(r * ((of_t - grand) ** 2).sum() / (t - 1)),
        reader=float(t * ((of_r - grand) ** 2).sum() / (r - 1)),
        both=float((rest**2).sum() / ((t - 1) * (r - 1))),
        reader_of=values.var(axis=1, ddof=1),
    )


@dataclass(frozen=True)
class ReaderAnalysis:
    """The analysis of a reader study.

    Attributes:
        study: what was read.
        figure: what is compared.
        inference: which chance counts.
        values: [t, r], figure of merit of each reader in each modality.
        squares: mean squares.
        covariances: over cases.
        statistic: F, or chi-squared for `cases`.
        df: degrees of freedom of numerator and denominator (infinite for `cases`).
        p_value: of "all modalities are read alike".
        reader_variance, both_variance: of readers, and of readers within modalities, beyond the chance of cases.
    """

    study: ReaderStudy
    figure: Figure
    inference: Inference
    values: FloatArray
    squares: MeanSquares
    covariances: ErrorCovariances
    statistic: float
    df: tuple[float, float]
    p_value: float
    reader_variance: float
    both_variance: float

    @property
    def denominator(self) -> float:
        """What the modalities' mean square is divided by."""
        return _compute_denominator(self.inference, self.squares, self.covariances, self.values.shape[1])

    def differences(self) -> list[Comparison]:
        """Every pair of modalities: difference of the readers' mean figures, interval and p, not corrected."""
        r = self.values.shape[1]
        error = math.sqrt(max(0.0, 2.0 * self.denominator / r))
        means = self.values.mean(axis=1)
        method = f"Obuchowski-Rockette (Hillis 2007), {_WORDS[self.inference]}"
        found = []
        for i, j in combinations(range(len(means)), 2):
            name = f"{self.figure}: {self.study.modalities[i]} less {self.study.modalities[j]}"
            difference = float(means[i] - means[j])
            a, b = float(means[i]), float(means[j])
            if error <= 1e-12:
                why = "no p: readers and cases leave no variation"
                found.append(Comparison(name, a, b, difference, n=self.study.counts(), method=method, why=why))
                continue
            reach = _compute_quantile(self.df[1]) * error
            p_value = float(2.0 * _compute_tail(abs(difference) / error, self.df[1]))
            low, high = max(-1.0, difference - reach), min(1.0, difference + reach)
            found.append(Comparison(name, a, b, difference, low, high, p_value, self.study.counts(), method))
        return found

    def means(self) -> list[Estimate]:
        """Each modality's mean over readers with its interval, from its data alone (Hillis 2007, eq. 25)."""
        r = self.values.shape[1]
        found = []
        for i, modality in enumerate(self.study.modalities):
            square, cov2 = float(self.squares.reader_of[i]), float(self.covariances.cov2_of[i])
            if self.inference == "cases":
                variance = (float(self.covariances.error_of[i]) + (r - 1) * max(cov2, 0.0)) / r
                freedom = math.inf
            else:
                inflated = square + (r * max(cov2, 0.0) if self.inference == "readers and cases" else 0.0)
                variance = inflated / r
                freedom = (r - 1) * (inflated / square) ** 2 if square > 0 else math.inf
            value = float(self.values[i].mean())
            reach = _compute_quantile(freedom) * math.sqrt(max(0.0, variance))
            name = f"{self.figure} of {modality}, mean of {r} readers"
            method = f"Obuchowski-Rockette, {_WORDS[self.inference]}"
            if reach > 0:
                # figures are shares: what lies beyond them is no value that they can have
                low, high = max(0.0, value - reach), min(1.0, value + reach)
                found.append(Estimate(name, value, low, high, self.study.counts(), method))
            else:
                why = "no interval: readers and cases leave no variation"
                found.append(Estimate(name, value, n=self.study.counts(), method=method, why=why))
        return found

    def text(self) -> str:
        """The test as a sentence."""
        return describe_test(self.statistic, self.df, self.p_value, self.denominator)


def describe_test(statistic: float, df: tuple[float, float], p_value: float, denominator: float) -> str:
    """A test of modalities as a sentence; none where nothing varies that a difference could be held against.

    Example:
        >>> describe_test(4.4563, (1.0, 15.2597), 0.05166, 0.0011)
        'F(1, 15.3) = 4.456, p = 0.0517'
    """
    if statistic > MOST_STATISTIC or denominator <= LEAST_VARIANCE:
        return NO_TEST
    p = f"p = {p_value:.4f}" if p_value >= 5e-5 else "p < 0.0001"
    if math.isinf(df[1]):
        return f"chi-squared({df[0]:g}) = {statistic:.3f}, {p}"
    # readers that differ alike in all modalities leave a denominator of rounding errors
    freedom = f"{df[1]:.1f}" if df[1] < 1e6 else "∞"
    return f"F({df[0]:g}, {freedom}) = {statistic:.3f}, {p}"


def analyse_readers(
    study: ReaderStudy,
    *,
    figure: Figure = "auc",
    inference: Inference = "readers and cases",
    method: Covariance = "delong",
) -> ReaderAnalysis:
    """The Obuchowski-Rockette analysis.

    Args:
        study: two or more modalities and readers, fully crossed.
        figure: `auc`, or of calls `sensitivity` or `specificity`.
        inference: to whom the claim extends.
        method: how covariances over cases are estimated.

    Raises:
        RunError: fewer than two readers or modalities; ratings that are no calls where a share is asked for.

    Source:
        Obuchowski & Rockette 1995; Hillis, Obuchowski, Schartz & Berbaum 2005; Hillis 2007, eq. 18 and 19.
    """
    if inference not in INFERENCES:
        raise RunError(f"There is no inference to {inference!r}; expected one of {', '.join(INFERENCES)}.")
    values = compute_figures(study, figure)
    squares = compute_mean_squares(values)
    covariances = estimate_error_covariances(study, figure, method)
    t, r = values.shape
    denominator = _compute_denominator(inference, squares, covariances, r)
    if inference == "cases":
        df = (float(t - 1), math.inf)
        statistic = (t - 1) * squares.modality / denominator if denominator > 0 else math.inf
        p_value = float(chi2.sf(statistic, t - 1))
    else:
        rest = (t - 1) * (r - 1)
        freedom = rest * (denominator / squares.both) ** 2 if squares.both > 0 else math.inf
        df = (float(t - 1), freedom if inference == "readers and cases" else float(rest))
        statistic = squares.modality / denominator if denominator > 0 else math.inf
        p_value = float(f.sf(statistic, *df)) if math.isfinite(df[1]) else float(chi2.sf(statistic * (t - 1), t - 1))
    if squares.modality <= LEAST_VARIANCE:
        statistic, p_value = 0.0, 1.0
    c = covariances
    return ReaderAnalysis(
        study, figure, inference, values, squares, covariances, statistic, df, p_value,
        reader_variance=(squares.reader - squares.both) / t - c.cov1 + c.cov3,
        both_variance=squares.both - c.error + c.cov1 + max(c.cov2 - c.cov3, 0.0),
    )  # fmt: skip


def _compute_denominator(inference: Inference, squares: MeanSquares, c: ErrorCovariances, r: int) -> float:
    shared = max(c.cov2 - c.cov3, 0.0)
    if inference == "cases":
        return c.error - c.cov1 + (r - 1) * shared
    return squares.both + (r * shared if inference == "readers and cases" else 0.0)


def _compute_quantile(freedom: float) -> float:
    return float(norm.ppf(0.975) if math.isinf(freedom) else student.ppf(0.975, freedom))


def _compute_tail(value: float, freedom: float) -> float:
    return float(norm.sf(value) if math.isinf(freedom) else student.sf(value, freedom))
