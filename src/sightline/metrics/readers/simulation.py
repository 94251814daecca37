"""Reader studies from the model of Roe & Metz 1997, and how many readers and cases a study needs.

A rating is the sum of a mean, which positive cases have shifted, and normal effects of reader, case and their products
with the modality: `x = mu t + R + TR + C + TC + RC + E`. Variances of C, TC, RC and E sum to 1, so that a reader's AUC
is close to `Phi(mu / sqrt(2))`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import f, ncf, norm

from sightline.errors import RunError
from sightline.metrics.readers.anova import ReaderAnalysis
from sightline.metrics.readers.study import ReaderStudy


@dataclass(frozen=True)
class RoeMetz:
    """Parameters of the model; the defaults are structure HL of Roe & Metz 1997, table 1, at AUC .855.

    Attributes:
        separation: mean of positive less negative cases, of each modality.
        reader: variance of R, and of TR, in positive and in negative cases each.
        case: variance of C.
        modality_case: variance of TC.
        reader_case: variance of RC.
        noise: variance of E.

    Raises:
        RunError: a negative variance.
    """

    separation: tuple[float, ...] = (1.5, 1.5)
    reader: float = 0.0055
    case: float = 0.3
    modality_case: float = 0.3
    reader_case: float = 0.2
    noise: float = 0.2

    def __post_init__(self) -> None:
        """Refuse negative variances."""
        variances = (self.reader, self.case, self.modality_case, self.reader_case, self.noise)
        if min(variances) < 0 or not self.separation:
            raise RunError(f"A Roe-Metz model has variances of at least 0 and a separation a modality; got {self}.")

    def areas(self) -> tuple[float, ...]:
        """The true AUC of each modality, over readers and cases."""
        total = 1.0 + 2.0 * self.reader - 1.0 + self.case + self.modality_case + self.reader_case + self.noise
        return tuple(float(norm.cdf(mu / math.sqrt(2.0 * total))) for mu in self.separation)

    def draw(self, random: np.random.Generator, *, readers: int, negative: int, positive: int) -> ReaderStudy:
        """A study of so many readers and cases."""
        t, k = len(self.separation), negative + positive
        truth = np.arange(k) >= negative

        def draw_effect(variance: float, *shape: int) -> np.ndarray:
            return random.normal(0.0, math.sqrt(variance), shape)

        side = truth.astype(np.int64)
        x = np.asarray(self.separation)[:, None, None] * truth
        x = x + draw_effect(self.reader, 1, readers, 2)[..., side] + draw_effect(self.reader, t, readers, 2)[..., side]
        x = x + draw_effect(self.case, 1, 1, k) + draw_effect(self.modality_case, t, 1, k)
        x = x + draw_effect(self.reader_case, 1, readers, k) + draw_effect(self.noise, t, readers, k)
        names = tuple(f"m{i + 1}" for i in range(t)), tuple(f"r{i + 1}" for i in range(readers))
        return ReaderStudy(*names, tuple(f"c{i + 1}" for i in range(k)), truth, x)


@dataclass(frozen=True)
class ReaderPower:
    """Power of a planned study.

    Attributes:
        readers: planned number.
        cases: planned number, positive and negative together.
        difference: true difference of the two modalities' figures.
        power: chance that the two-sided test at .05 finds it.
        noncentrality: of the F distribution.
        df: degrees of freedom of its denominator.
    """

    readers: int
    cases: int
    difference: float
    power: float
    noncentrality: float
    df: float


def compute_reader_power(
    pilot: ReaderAnalysis, difference: float, *, readers: int, cases: int, alpha: float = 0.05
) -> ReaderPower:
    """Power of a study of other size with the variances of a pilot study.

    Args:
        pilot: an analysis of two modalities; its share of positive cases is kept.
        difference: the true difference to be found, not 0.
        readers: planned number.
        cases: planned number, positive and negative together.
        alpha: level of the two-sided test.

    Raises:
        RunError: fewer than two readers or four cases, or no difference to find.

    Source:
        Hillis, Obuchowski & Berbaum 2011, eq. 9 to 12 (random readers and cases).
    """
    if readers < 2 or cases < 4 or not 0.0 < abs(difference) <= 1.0:
        raise RunError(
            f"A planned study needs two readers, four cases and a difference above 0 up to 1; got {readers}, {cases}, "
            f"{difference:g}."
        )
    c = pilot.covariances
    scale = len(pilot.study.cases) / cases
    shared = max(c.cov2 - c.cov3, 0.0)
    both = max(pilot.both_variance, 0.0)
    square = both + scale * max(c.error - c.cov1 - shared, 0.0)
    denominator = both + scale * max(c.error - c.cov1 + (readers - 1) * shared, 0.0)
    if denominator <= 0:
        raise RunError("The pilot study's readers and cases leave no variation to plan with.", "Use a larger pilot.")
    df = (readers - 1) * (denominator / square) ** 2 if square > 0 else 1e6
    noncentrality = readers * difference**2 / 2.0 / denominator
    limit = float(f.ppf(1.0 - alpha, 1, min(df, 1e6)))
    power = float(ncf.sf(limit, 1, min(df, 1e6), noncentrality))
    return ReaderPower(readers, cases, difference, power, noncentrality, df)


def find_cases_needed(
    pilot: ReaderAnalysis, difference: float, *, readers: int, power: float = 0.8, most: int = 100_000
) -> ReaderPower | None:
    """The smallest number of cases with which so many readers have the power asked for; None where none is enough.

    More cases do not help where readers differ too much: then more readers are needed.

    Raises:
        RunError: as `reader_power`, or a power that is no share between 0 and 1.
    """
    if not 0.0 < power < 1.0:
        raise RunError(f"A power lies between 0 and 1; got {power}.", "Try 0.8.")
    low, high = 4, most
    if compute_reader_power(pilot, difference, readers=readers, cases=high).power < power:
        return None
    while low < high:
        middle = (low + high) // 2
        if compute_reader_power(pilot, difference, readers=readers, cases=middle).power >= power:
            high = middle
        else:
            low = middle + 1
    return compute_reader_power(pilot, difference, readers=readers, cases=low)
