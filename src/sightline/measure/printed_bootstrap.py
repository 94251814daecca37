"""The bootstrap and the test that Watanabe 2022 prints, under their own name, to stand beside the honest ones.

The paper draws 55 to 60 of its 102 test images with replacement, 30 times, and prints the 2.5, 50 and 97.5 percentiles
of the scores. Its p-values, down to 5e-79, can only come from a test over those 30 numbers. Neither is an interval or
a test of the score on the whole set: draws of half the images vary more, and a test over resamples counts resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sightline.errors import RunError
from sightline.measure.classification import FloatArray, Score
from sightline.measure.comparison import welch
from sightline.measure.estimate import Comparison, Estimate
from sightline.measure.intervals import bootstrap, why_undefined
from sightline.measure.predictions import Predictions, align

MOST_REDRAWN = 10_000
RESAMPLES_WARNING = (
    "as printed: this p-value measures the number of resamples (more draws make it as small as one likes), not the "
    "chance of other patients or trainings; quote the paired bootstrap"
)


@dataclass(frozen=True)
class PrintedDraws:
    """How the paper resamples.

    Attributes:
        draws: number of resamples.
        fewest: smallest size of a resample, in rows of the table (images, patients are not kept together).
        most: largest size; sizes between are equally likely.
        seed: of the draws.
    """

    draws: int = 30
    fewest: int = 55
    most: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that draw nothing."""
        if self.draws < 1 or not 1 <= self.fewest <= self.most:
            raise RunError(
                f"Cannot make {self.draws} draws of {self.fewest} to {self.most} images; expected at least one draw "
                "and sizes from 1, the smaller first."
            )

    def words(self) -> str:
        """The method's words."""
        sizes = str(self.fewest) if self.fewest == self.most else f"{self.fewest} to {self.most}"
        return f"printed: {self.draws} draws of {sizes}"

    def weights(self, predictions: Predictions, *, stream: int = 0) -> tuple[FloatArray, int]:
        """How often each row is in each resample [draws, n], and how many draws were made again for a missing class.

        Args:
            predictions: the table.
            stream: another number gives other draws of the same seed.

        Raises:
            RunError: draws that hold every class cannot be had: a class is not in the table, or is too rare.
        """
        n, k = len(predictions), len(predictions.classes)
        truth = (predictions.labels[:, None] == np.arange(k)).astype(np.float64)
        if not truth.any(axis=0).all():
            raise RunError(f"The printed bootstrap redraws until every class is there; {why_undefined(predictions)}.")
        random = np.random.default_rng([self.seed, stream])
        kept: list[FloatArray] = []
        redrawn = 0
        while len(kept) < self.draws:
            size = int(random.integers(self.fewest, self.most + 1))
            drawn = np.bincount(random.integers(0, n, size), minlength=n).astype(np.float64)
            if (drawn @ truth > 0).all():
                kept.append(drawn)
            elif (redrawn := redrawn + 1) > MOST_REDRAWN:
                raise RunError(
                    f"{MOST_REDRAWN} draws of {self.fewest} to {self.most} of {n} images lacked a class.",
                    "Draw more images at once, or use the bootstrap over patients.",
                )
        return np.stack(kept), redrawn


def printed_bootstrap(score: Score, predictions: Predictions, draws: PrintedDraws | None = None) -> Estimate:
    """A score as Watanabe 2022 prints it: 50th percentile of the draws, with their 2.5th and 97.5th.

    The value is the median of draws, not the score of the table. A class that no draw can hold gives no value, and why.
    """
    how = draws or PrintedDraws()
    try:
        weights, redrawn = how.weights(predictions)
    except RunError as error:
        return Estimate(score.name, None, n=predictions.counts(), method=how.words(), why=error.message)
    values = score(predictions.labels, predictions.probabilities, weights)
    defined = values[np.isfinite(values)]
    method = f"{how.words()}, {redrawn} redrawn for a missing class, seed {how.seed}; median and percentiles of draws"
    if defined.size == 0:
        why = f"{score.name} is not defined in any draw"
        return Estimate(score.name, None, n=predictions.counts(), method=method, why=why)
    method += f", {values.size - defined.size} undefined" if defined.size < values.size else ""
    low, middle, high = (float(q) for q in np.quantile(defined, (0.025, 0.5, 0.975)))
    return Estimate(score.name, middle, low, high, predictions.counts(), method)


def printed_and_honest(
    score: Score, predictions: Predictions, draws: PrintedDraws | None = None, *, replicates: int = 2000
) -> tuple[Estimate, Estimate]:
    """The printed numbers, and the score of the whole table with its interval over patients."""
    seed = (draws or PrintedDraws()).seed
    printed = printed_bootstrap(score, predictions, draws)
    honest = bootstrap(score, predictions, replicates=replicates, seed=seed)
    return replace(printed, name=f"{score.name}, as printed"), honest


def welch_over_bootstrap(
    predictions_a: Predictions, predictions_b: Predictions, score: Score, draws: PrintedDraws | None = None
) -> Comparison:
    """Welch's t-test over the draws of two methods, each drawn anew: what printed p-values as 5e-79 can come from.

    The paper does not name its test. `why` always carries the warning; use `comparison.paired_bootstrap` to decide.

    Raises:
        RunError: the tables are not over the same cases, or hold a class too rare to draw.
    """
    how = draws or PrintedDraws()
    tables = align([predictions_a, predictions_b])
    drawn = []
    for stream, table in enumerate(tables):
        values = score(table.labels, table.probabilities, how.weights(table, stream=stream)[0])
        drawn.append([float(value) for value in values if math.isfinite(value)])
    if not all(drawn):
        why = f"{score.name} is not defined in any draw"
        return Comparison(score.name, None, None, None, n=tables[0].counts(), method="no test", why=why)
    found = welch(*drawn, name=score.name)
    n = {**tables[0].counts(), "draws": how.draws}
    why = "; ".join(part for part in (found.why, RESAMPLES_WARNING) if part)
    return replace(found, n=n, method=f"Welch's t over bootstrap draws, {how.words()}, seed {how.seed}", why=why)
