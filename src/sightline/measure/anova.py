"""One-way analysis of variance over runs, as Zhu 2022 compares its networks (figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import f_oneway

from sightline.errors import RunError
from sightline.measure.estimate import p_text

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
        return f"F({self.df_between}, {self.df_within}) = {self.f:.2f}, {p_text(self.p_value)}, {effect}"


def one_way(groups: Mapping[str, Sequence[float]], *, name: str = "score") -> Anova:
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
