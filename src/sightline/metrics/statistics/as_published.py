"""One-way analysis of variance over runs, as Zhu 2022 compares its networks (figure 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import f_oneway

from sightline.errors import RunError, count_noun
from sightline.metrics.estimate import Comparison, Estimate, FloatArray, Score, format_p_text
from sightline.metrics.predictions import Predictions, align
from sightline.metrics.statistics.bootstrap import bootstrap, explain_undefined
from sightline.metrics.statistics.comparison import welch

FEW_RUNS = 10
RUNS_WARNING = "it compares trainings on these test cases, not on other patients"


@dataclass(frozen=True)
class Anova:
    """Whether the means of several groups of runs differ by more than runs of one group do.

    Attributes:
        name: what was measured.
        f: mean square between groups over mean square within, or None; then `why` says why.
        df_between: groups - 1.
        df_within: runs - groups.
        p_value: chance of a larger F with equal means, normal runs and equal variances; None together with `f`.
        eta_squared: share of the variance between groups, 0 to 1, biased upwards in few runs.
        omega_squared: the same with that bias taken off (Hays 1963); below zero means less than chance gives.
        means: of each group.
        runs: number of runs of each group.
        why: why there is no F, and what to bear in mind.
    """

    name: str
    f: float | None
    df_between: int
    df_within: int
    p_value: float | None
    eta_squared: float | None
    omega_squared: float | None
    means: Mapping[str, float]
    runs: Mapping[str, int]
    why: str

    def text(self, digits: int = 3) -> str:
        """As it stands in a text: `F(1, 8) = 7.21, p = 0.028, η² = 0.474`, or `undefined`."""
        if self.f is None or self.eta_squared is None:
            return "undefined"
        effect = f"η² = {self.eta_squared:.{digits}f}"
        return f"F({self.df_between}, {self.df_within}) = {self.f:.2f}, {format_p_text(self.p_value)}, {effect}"


def compute_one_way_anova(groups: Mapping[str, Sequence[float]], *, name: str = "score") -> Anova:
    """One-way analysis of variance (Fisher 1925); for two groups F is Student's t squared.

    Args:
        groups: results of single trainings, one sequence a network; the numbers of runs may differ.
        name: what was measured.

    Raises:
        RunError: fewer than two groups, an empty one, or results that are not finite.
    """
    values = {group: np.asarray(runs, dtype=np.float64) for group, runs in groups.items()}
    wrong = [group for group, runs in values.items() if runs.ndim != 1 or runs.size == 0 or not np.isfinite(runs).all()]
    if len(values) < 2 or wrong:
        raise RunError(
            f"An analysis of variance of {name!r} needs finite results of two or more groups; got {len(values)} "
            f"groups, without such results: {wrong}.",
            "Leave out runs that diverged, and say how many.",
        )
    counts = {group: int(runs.size) for group, runs in values.items()}
    means = {group: float(runs.mean()) for group, runs in values.items()}
    everything = np.concatenate(list(values.values()))
    between_df, within_df = len(values) - 1, everything.size - len(values)
    between = float(sum(counts[group] * (means[group] - everything.mean()) ** 2 for group in values))
    within = float(sum(((runs - runs.mean()) ** 2).sum() for runs in values.values()))
    notes = [RUNS_WARNING]
    fewest = min(counts.values())
    if fewest < FEW_RUNS:
        notes.append(f"{fewest} runs in the smallest group: too few to see whether runs are normal and equally spread")
    # a spread of rounding errors is none
    floor = 1e-24 * everything.size * max(1.0, float(np.abs(everything).max())) ** 2
    if within_df < 1 or within <= floor:
        why = "one run a group" if within_df < 1 else "no group varies over its runs"
        lacking = "; ".join([f"no test: {why}", *notes])
        return Anova(name, None, between_df, max(within_df, 0), None, None, None, means, counts, lacking)
    result = f_oneway(*values.values())
    error = within / within_df
    eta = between / (between + within)
    omega = (between - between_df * error) / (between + within + error)
    why = "; ".join(notes)
    return Anova(
        name, float(result.statistic), between_df, within_df, float(result.pvalue), eta, omega, means, counts, why
    )


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
            raise RunError(
                f"The printed bootstrap redraws until every class is there; {explain_undefined(predictions)}."
            )
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
                    f"{MOST_REDRAWN} draws of {self.fewest} to {self.most} of {count_noun(n, 'image')} lacked a class.",
                    "Draw more images at once, or use the bootstrap over patients.",
                )
        return np.stack(kept), redrawn


def bootstrap_as_printed(score: Score, predictions: Predictions, draws: PrintedDraws | None = None) -> Estimate:
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


def compare_with_printed(
    score: Score, predictions: Predictions, draws: PrintedDraws | None = None, *, replicates: int = 2000
) -> tuple[Estimate, Estimate]:
    """The printed numbers, and the score of the whole table with its interval over patients."""
    seed = (draws or PrintedDraws()).seed
    printed = bootstrap_as_printed(score, predictions, draws)
    honest = bootstrap(score, predictions, replicates=replicates, seed=seed)
    return replace(printed, name=f"{score.name}, as printed"), honest


def compare_bootstraps_by_welch(
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
