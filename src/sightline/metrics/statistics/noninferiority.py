"""Is a at most a stated margin worse than b? The verdict reads the interval of the difference (Piaggio et al. 2012)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy.stats import norm

from sightline.errors import RunError
from sightline.metrics.estimate import Comparison, format_p_text

Verdict = Literal["superior", "non-inferior", "inferior", "not shown"]


@dataclass(frozen=True)
class NonInferiority:
    """A comparison read against a margin that was stated before the data were seen.

    Attributes:
        comparison: difference a less b of a score where more is better, with its two-sided 95% interval.
        margin: the largest loss that is accepted, more than 0.
        verdict: `superior`, the interval lies above 0; `non-inferior`, above the margin's loss; `inferior`, below it;
            else `not shown`, as where the interval rests on too few patients (`is_decided_by_few`).
        p_value: one-sided, of "a is worse than b by the margin or more", from the interval on the normal scale; None
            without an interval.
    """

    comparison: Comparison
    margin: float
    verdict: Verdict
    p_value: float | None

    def text(self, digits: int = 3) -> str:
        """The verdict as a sentence.

        Example:
            >>> c = Comparison("AUC", 0.81, 0.80, 0.01, -0.02, 0.04, 0.5)
            >>> assess_noninferiority(c, 0.05).text()
            'non-inferior at a margin of 0.05: AUC +0.010 (-0.020–+0.040), one-sided p < 0.001'
        """
        numbers = self.comparison.text(digits).rpartition(", ")[0] or "undefined"
        p = "" if self.p_value is None else f", one-sided {format_p_text(self.p_value)}"
        word = "non-inferiority not shown" if self.verdict == "not shown" else self.verdict
        few = " (the methods differ on too few patients)" if is_decided_by_few(self.comparison) else ""
        return f"{word} at a margin of {self.margin:g}{few}: {self.comparison.name} {numbers}{p}"


def is_decided_by_few(comparison: Comparison) -> bool:
    """Whether an interval ends at exactly 0 because so few patients differ that no swap of them gives less.

    Fewer than six do, all in one direction, and p is 0.05 or more. How far they reach is not how far others would.
    """
    low, high, p_value = comparison.low, comparison.high, comparison.p_value
    if low is None or high is None or p_value is None or not comparison.difference:
        return False
    return p_value >= 0.05 and min(abs(low), abs(high)) < 1e-9


def assess_noninferiority(comparison: Comparison, margin: float) -> NonInferiority:
    """Read a comparison against a margin.

    The claim rests on the lower end of the two-sided 95% interval, a one-sided test at 2.5%. Where fewer than six
    patients differ there is none: of 45 patients it would come in 27 of 100 studies in which a is worse by the margin.

    Raises:
        RunError: a margin that is not a number above 0.
    """
    if not math.isfinite(margin) or margin <= 0:
        raise RunError(
            f"A margin of non-inferiority is a number above 0; got {margin}.",
            "State the largest loss that would be accepted, in the score's own unit, before looking at the data.",
        )
    low, high, difference = comparison.low, comparison.high, comparison.difference
    if low is None or high is None or difference is None or is_decided_by_few(comparison):
        return NonInferiority(comparison, margin, "not shown", None)
    verdict: Verdict = "not shown"
    if low > 0:
        verdict = "superior"
    elif low > -margin:
        verdict = "non-inferior"
    elif high < -margin:
        verdict = "inferior"
    error = (high - low) / (2.0 * float(norm.ppf(0.975)))
    p_value = float(norm.sf((difference + margin) / error)) if error > 0 else float(difference <= -margin)
    return NonInferiority(comparison, margin, verdict, p_value)
