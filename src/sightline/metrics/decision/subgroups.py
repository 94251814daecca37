"""For whom do the numbers hold? One score in every group of every fact, its gap to the rest, and what could be seen.

Each group is compared with all other cases (patients in both count once). P-values of all groups of all facts are
corrected together (max-T), and the gap that this table could have found in 80% of cases stands beside: a gap that was
not found is no proof that there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.errors import RunError, count_noun
from sightline.metrics.classification.estimates import estimate_score
from sightline.metrics.classification.scores import AUC, Sensitivity, Specificity
from sightline.metrics.decision.gaps import CONFIDENT, Gap, GroupScore, compute_gap, correct_gaps
from sightline.metrics.decision.influence import FEWEST_PATIENTS, Linearisation, linearise_area, linearise_share
from sightline.metrics.estimate import Comparison, Estimate, Score
from sightline.metrics.predictions import Predictions
from sightline.metrics.statistics.auc_intervals import compute_auc_spread, fit_binormal_model
from sightline.metrics.statistics.patient_variance import Spread
from sightline.metrics.statistics.score_intervals import build_proportion_model
from sightline.structures.identifiers import blank_placeholders

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
        p_corrected: p corrected over the table (step-down max-T), or None.
        detectable: gap that the corrected test finds in 80%, given the spread here; None where there is no test.
        unknown: rows whose fact is not known: they are in no group of it, nor in the rest.
    """

    fact: str
    value: str
    here: Estimate
    gap: Comparison
    p_corrected: float | None
    detectable: float | None
    unknown: int = 0

    @property
    def claimed(self) -> bool:
        """Whether a gap is claimed, after correction."""
        return self.p_corrected is not None and self.p_corrected < ALPHA


def bin_values(values: Sequence[str]) -> list[str]:
    """The group of each row: the value itself, or thirds of the numbers where there are many of them; '' where unknown
    (an empty cell, or what programs and people write for one: NaN, N/A, unknown).

    Example:
        >>> bin_values(["F", "M", " F ", "NaN"])
        ['F', 'M', 'F', '']
    """
    plain = blank_placeholders(values)
    known = [value for value in plain if value]
    numbers = [_parse_number(value) for value in known]
    if len(set(known)) <= MOST_VALUES or any(number is None for number in numbers):
        return plain
    each = np.array([number for number in numbers if number is not None])
    low, high = (float(x) for x in np.quantile(each, (1 / 3, 2 / 3)))
    words = (f"up to {low:g}", f"over {low:g} to {high:g}", f"over {high:g}")

    def name_third(value: str) -> str:
        number = _parse_number(value)
        return "" if number is None else words[int(number > low) + int(number > high)]

    return [name_third(value) for value in plain]


def compute_subgroup_report(
    predictions: Predictions,
    facts: Mapping[str, Sequence[str]],
    *,
    what: What = "AUC",
    threshold: float | None = None,
    positive: str | None = None,
) -> list[Subgroup]:
    """Every group of every fact that has at least two groups.

    Args:
        predictions: n rows.
        facts: for each fact, n values; empty where unknown. Facts with more than eight values that are no numbers are
            left out; numbers are cut into thirds.
        what: the score.
        threshold: for sensitivity and specificity: a case is called from it on; None: the most probable class.
        positive: the positive class; None: the last one.

    Raises:
        RunError: a fact of another length, or an unknown score.
    """
    index = predictions.class_index(positive)
    found: list[tuple[str, str, Estimate, _Sides]] = []
    unknown: dict[str, int] = {}
    for fact, values in facts.items():
        if len(values) != len(predictions):
            raise RunError(
                f"Fact {fact!r} has {count_noun(len(values), 'value')}; the predictions have "
                f"{count_noun(len(predictions), 'row')}."
            )
        group = np.asarray(bin_values(values), dtype=object)
        names = sorted({name for name in group.tolist() if name})
        if not 2 <= len(names) <= MOST_VALUES:
            continue
        known = np.asarray(group != "", dtype=bool)
        unknown[fact] = int((~known).sum())
        for name in names:
            inside = np.asarray(group == name, dtype=bool)
            own = estimate_score([predictions.select(inside)], _choose_score(what, index, threshold))
            title = f"{what}, {fact} {name} minus the rest"
            found.append(
                (fact, name, own, _compute_gap(title, predictions, index, what, threshold, inside, known & ~inside))
            )
    return [replace(group, unknown=unknown[group.fact]) for group in _correct_together(found, predictions)]


def describe_unknown(groups: Sequence[Subgroup], unit: str = "image") -> str:
    """How many rows are in no group because a fact of theirs is not known; empty where there are none."""
    counts = {group.fact: group.unknown for group in groups if group.unknown}
    each = ", ".join(f"{fact} of {count_noun(number, unit)}" for fact, number in counts.items())
    return f"Not known, and so in no group: {each}." if each else ""


def _correct_together(found: Sequence[tuple[str, str, Estimate, _Sides]], predictions: Predictions) -> list[Subgroup]:
    """Correct p together; both groups of a fact with two are one test."""
    sizes = {fact: sum(row[0] == fact for row in found) for fact, *_ in found}
    second = [i > 0 and sizes[row[0]] == 2 and found[i - 1][0] == row[0] for i, row in enumerate(found)]
    asked = [i for i, row in enumerate(found) if row[3].gap is not None and not second[i]]
    gaps = [gap for i in asked if (gap := found[i][3].gap) is not None]
    p_of: dict[int, float] = {}
    critical = CONFIDENT
    if gaps:
        corrected = correct_gaps(gaps, predictions.patient_ids, alpha=ALPHA)
        p_of, critical = dict(zip(asked, corrected.p_values.tolist(), strict=True)), corrected.critical
    report = []
    for i, (fact, name, own, sides) in enumerate(found):
        p_corrected = p_of.get(i - 1 if second[i] else i)
        seen = None if sides.gap is None else sides.gap.detectable(critical, POWER)
        report.append(Subgroup(fact, name, own, sides.comparison, p_corrected, seen))
    return report


@dataclass(frozen=True, eq=False)
class _Sides:
    """A group against the rest: in words and numbers, and the gap where there is a test."""

    comparison: Comparison
    gap: Gap | None = None


def _compute_gap(
    name: str,
    predictions: Predictions,
    index: int,
    what: What,
    threshold: float | None,
    inside: NDArray[np.bool_],
    outside: NDArray[np.bool_],
) -> _Sides:
    here, rest = (_linearise(predictions, index, what, threshold, mask) for mask in (inside, outside))
    n = {"patients_here": here.patients, "patients_of_the_rest": rest.patients}
    if not (math.isfinite(here.value) and math.isfinite(rest.value)):
        why = "not defined: a class is missing in the group or in the rest"
        return _Sides(Comparison(name, None, None, None, n=n, method="no test", why=why))
    method = "group against the rest, score intervals of both put together (MOVER), over patients"
    fewest = min(here.patients, rest.patients)
    if fewest < FEWEST_PATIENTS:
        why = f"no p: {count_noun(fewest, 'patient')} of the smaller class, {FEWEST_PATIENTS} needed"
        gap = here.value - rest.value
        return _Sides(Comparison(name, here.value, rest.value, gap, n=n, method=method, why=why))
    scores = [
        _compute_group_score(predictions, index, what, threshold, side, mask)
        for side, mask in ((here, inside), (rest, outside))
    ]
    found = compute_gap(scores[0], scores[1], predictions.patient_ids)
    comparison = Comparison(
        name, here.value, rest.value, found.difference, found.low, found.high, found.p_value, n, method
    )
    return _Sides(comparison, found)


def _compute_group_score(
    predictions: Predictions,
    index: int,
    what: What,
    threshold: float | None,
    linear: Linearisation,
    where: NDArray[np.bool_],
) -> GroupScore:
    """One side with its score intervals."""
    truth = predictions.labels == index
    scores = predictions.probabilities[:, index]
    if what == "AUC":
        patient = np.unique(np.asarray(predictions.patient_ids, dtype=str)[where], return_inverse=True)[1]
        sides = scores[where], truth[where], patient
        spread = compute_auc_spread(sides[0][None], sides[1], sides[2])
        return GroupScore.from_linear(linear, spread, fit_binormal_model(sides[0][None], sides[1], sides[2]))
    asked = where & (truth if what == "sensitivity" else ~truth)
    patient = np.unique(np.asarray(predictions.patient_ids, dtype=str)[asked], return_inverse=True)[1]
    influence = np.bincount(patient, weights=linear.pull[asked]).astype(np.float64)
    variance = influence.size / (influence.size - 1) * float((influence**2).sum())
    spread = Spread.from_points(np.array([linear.value]), np.array([[variance]]), influence, influence.size)
    return GroupScore.from_linear(linear, spread, build_proportion_model(np.bincount(patient).astype(np.float64)))


def _linearise(
    predictions: Predictions, index: int, what: What, threshold: float | None, where: NDArray[np.bool_]
) -> Linearisation:
    truth, ids = predictions.labels == index, predictions.patient_ids
    scores = predictions.probabilities[:, index]
    if what == "AUC":
        return linearise_area(scores, truth, where, ids)
    called = predictions.probabilities.argmax(axis=1) == index if threshold is None else scores >= threshold
    if what == "sensitivity":
        return linearise_share(called.astype(np.float64), where & truth, ids)
    if what == "specificity":
        return linearise_share((~called).astype(np.float64), where & ~truth, ids)
    raise RunError(f"Subgroups have no score {what!r}; expected AUC, sensitivity or specificity.")


def _choose_score(what: What, index: int, threshold: float | None) -> Score:
    if what == "AUC":
        return AUC(index)
    return Sensitivity(index, threshold) if what == "sensitivity" else Specificity(index, threshold)


def _parse_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
