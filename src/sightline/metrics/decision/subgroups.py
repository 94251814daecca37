"""For whom do the numbers hold? One score in every group of every fact, its gap to the rest, and what could be seen.

Each group is compared with all other cases (Linearised: patients in both count once). P-values of all groups of all
facts are corrected together (Holm 1979), and the gap that this table could have found in 80% of cases stands beside:
a gap that was not found is no proof that there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from sightline.errors import RunError, counted
from sightline.metrics.classification.scores import AUC, Sensitivity, Specificity
from sightline.metrics.decision.influence import FEWEST_PATIENTS, Linearised, area, reach, share
from sightline.metrics.estimate import Comparison, Estimate, Score
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.bootstrap import bootstrap
from sightline.metrics.statistics.comparison import holm

What = Literal["AUC", "sensitivity", "specificity"]
MOST_VALUES = 8
POWER = 0.8
ALPHA = 0.05


@dataclass(frozen=True)
class Subgroup:
    """One group of one fact.

    Attributes:
        fact: its name, e.g. `sex`.
        value: the group, e.g. `F`, or a range of numbers.
        here: the score in the group, with its interval.
        gap: the score in the group less that in all other cases.
        p_holm: p corrected over the table, or None.
        detectable: gap that the corrected test finds in 80%, given the spread here; None where there is no test.
    """

    fact: str
    value: str
    here: Estimate
    gap: Comparison
    p_holm: float | None
    detectable: float | None

    @property
    def claimed(self) -> bool:
        """Whether a gap is claimed, after correction."""
        return self.p_holm is not None and self.p_holm < ALPHA


def group_values(values: Sequence[str]) -> list[str]:
    """The group of each row: the value itself, or thirds of the numbers where there are many of them; '' where unknown.

    Example:
        >>> group_values(["F", "M", " F "])
        ['F', 'M', 'F']
    """
    plain = [str(value).strip() for value in values]
    known = [value for value in plain if value]
    numbers = [_number(value) for value in known]
    if len(set(known)) <= MOST_VALUES or any(number is None for number in numbers):
        return plain
    each = np.array([number for number in numbers if number is not None])
    low, high = (float(x) for x in np.quantile(each, (1 / 3, 2 / 3)))
    words = (f"up to {low:g}", f"over {low:g} to {high:g}", f"over {high:g}")

    def third(value: str) -> str:
        number = _number(value)
        return "" if number is None else words[int(number > low) + int(number > high)]

    return [third(value) for value in plain]


def subgroup_report(
    predictions: Predictions,
    facts: Mapping[str, Sequence[str]],
    *,
    what: What = "AUC",
    threshold: float | None = None,
    positive: str | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> list[Subgroup]:
    """Every group of every fact that has at least two groups.

    Args:
        predictions: n rows.
        facts: for each fact, n values; empty where unknown. Facts with more than eight values that are no numbers are
            left out; numbers are cut into thirds.
        what: the score.
        threshold: for sensitivity and specificity: a case is called from it on; None: the most probable class.
        positive: the positive class; None: the last one.
        replicates: bootstrap samples of each group's own interval.
        seed: of those.

    Raises:
        RunError: a fact of another length, or an unknown score.
    """
    index = predictions.class_index(positive)
    found: list[tuple[str, str, Estimate, Comparison, float, int]] = []
    for fact, values in facts.items():
        if len(values) != len(predictions):
            raise RunError(f"Fact {fact!r} has {len(values)} values; the predictions have {len(predictions)} rows.")
        group = np.asarray(group_values(values), dtype=object)
        names = sorted({name for name in group.tolist() if name})
        if not 2 <= len(names) <= MOST_VALUES:
            continue
        known = np.asarray(group != "", dtype=bool)
        for name in names:
            inside = np.asarray(group == name, dtype=bool)
            here, rest = (_linear(predictions, index, what, threshold, mask) for mask in (inside, known & ~inside))
            table = predictions.select(inside)
            own = bootstrap(_score(what, index, threshold), table, replicates=replicates, seed=seed)
            gap, error, freedom = _gap(f"{what}, {fact} {name} less the rest", here, rest, predictions)
            found.append((fact, name, own, gap, error, freedom))
    return _corrected(found)


def _corrected(found: Sequence[tuple[str, str, Estimate, Comparison, float, int]]) -> list[Subgroup]:
    """Correct p together; both groups of a fact with two are one test."""
    sizes = {fact: sum(row[0] == fact for row in found) for fact, *_ in found}
    second = [i > 0 and sizes[row[0]] == 2 and found[i - 1][0] == row[0] for i, row in enumerate(found)]
    asked = [None if twice else row[3].p_value for row, twice in zip(found, second, strict=True)]
    corrected = holm(asked)
    tests = sum(p is not None for p in asked)
    report = []
    for i, (fact, name, own, gap, error, freedom) in enumerate(found):
        p_holm = corrected[i - 1] if second[i] else corrected[i]
        seen = None
        if gap.p_value is not None:
            seen = error * float(student.ppf(1 - ALPHA / max(1, tests) / 2, freedom) + norm.ppf(POWER))
        report.append(Subgroup(fact, name, own, gap, p_holm, seen))
    return report


def _gap(name: str, here: Linearised, rest: Linearised, predictions: Predictions) -> tuple[Comparison, float, int]:
    n = {"patients_here": here.patients, "patients_of_the_rest": rest.patients}
    if not (math.isfinite(here.value) and math.isfinite(rest.value)):
        why = "not defined: a class is missing in the group or in the rest"
        return Comparison(name, None, None, None, n=n, method="no test", why=why), 0.0, 1
    difference = here - rest
    error = difference.error(predictions.patient_ids)
    method = "group against the rest, patients' contributions (Obuchowski 1997), t quantile"
    if not difference.defined or error <= 1e-12:
        why = (
            f"no p: {counted(difference.patients, 'patient')} of the smaller class, {FEWEST_PATIENTS} needed"
            if not difference.defined
            else "no p: neither group has an error"
        )
        return Comparison(name, here.value, rest.value, difference.value, n=n, method=method, why=why), 0.0, 1
    half = reach(error, difference.freedom)
    p_value = float(2.0 * student.sf(abs(difference.value) / error, difference.freedom))
    comparison = Comparison(
        name, here.value, rest.value, difference.value, difference.value - half, difference.value + half, p_value, n,
        method,
    )  # fmt: skip
    return comparison, error, difference.freedom


def _linear(
    predictions: Predictions, index: int, what: What, threshold: float | None, where: NDArray[np.bool_]
) -> Linearised:
    truth, ids = predictions.labels == index, predictions.patient_ids
    scores = predictions.probabilities[:, index]
    if what == "AUC":
        return area(scores, truth, where, ids)
    called = predictions.probabilities.argmax(axis=1) == index if threshold is None else scores >= threshold
    if what == "sensitivity":
        return share(called.astype(np.float64), where & truth, ids)
    if what == "specificity":
        return share((~called).astype(np.float64), where & ~truth, ids)
    raise RunError(f"Subgroups have no score {what!r}; expected AUC, sensitivity or specificity.")


def _score(what: What, index: int, threshold: float | None) -> Score:
    if what == "AUC":
        return AUC(index)
    return Sensitivity(index, threshold) if what == "sensitivity" else Specificity(index, threshold)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
