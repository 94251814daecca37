"""Do two methods call the same cases right? McNemar's test, exact, or over patients with several cases."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom, norm

from sightline.errors import RunError, count_noun
from sightline.metrics.classification.scores import predict_positive
from sightline.metrics.decision.influence import compute_reach, linearise_share
from sightline.metrics.estimate import BoolArray, Comparison
from sightline.metrics.predictions import Predictions, align


def mark_right_calls(
    predictions: Predictions, threshold: float | None = None, positive: str | None = None
) -> BoolArray:
    """Whether each case is called right, bool [n]: positive against the rest from a threshold on, or the top class."""
    if threshold is None:
        return np.asarray(predictions.probabilities.argmax(axis=1) == predictions.labels)
    index = predictions.class_index(positive)
    return np.asarray(predict_positive(predictions.probabilities, index, threshold) == (predictions.labels == index))


def mcnemar(
    predictions_a: Predictions,
    predictions_b: Predictions,
    *,
    thresholds: tuple[float | None, float | None] = (None, None),
    positive: str | None = None,
    among: str | None = None,
) -> Comparison:
    """The difference of the shares of right calls, from the cases on which the methods disagree.

    With one case a patient the p-value is exact (McNemar 1947 with the binomial distribution); with several, discordant
    cases of a patient are put together (Durkalski et al. 2003), normal approximation. The interval is over patients.
    That p is of the mean over patients, so it may be below 1 where the difference, of all cases, is 0.

    Args:
        predictions_a: of method a.
        predictions_b: of method b, on the same cases.
        thresholds: from which probability of `positive` on each method calls a case; None: its most probable class.
        positive: class of the thresholds; None: the last one.
        among: compare on the cases of this class alone: sensitivity for the positive class, specificity for the other.

    Raises:
        RunError: the tables are not over the same cases, or no case of `among`.
        CohortError: no such class.
    """
    a, b = align([predictions_a, predictions_b])
    right_a, right_b = mark_right_calls(a, thresholds[0], positive), mark_right_calls(b, thresholds[1], positive)
    where = np.ones(len(a), dtype=bool) if among is None else a.labels == a.class_index(among)
    if not where.any():
        raise RunError(f"No case of {among!r} is left to compare calls on.", "Compare on cases of both classes.")
    name = "share of right calls" if among is None else f"share of {among} called right"
    n = {**a.counts(), "cases": int(where.sum())}
    only_a, only_b = where & right_a & ~right_b, where & right_b & ~right_a
    n |= {"right_in_a_only": int(only_a.sum()), "right_in_b_only": int(only_b.sum())}
    difference = linearise_share(right_a.astype(np.float64) - right_b.astype(np.float64), where, a.patient_ids)
    value_a, value_b = float(right_a[where].mean()), float(right_b[where].mean())
    names, patient = np.unique(np.asarray(a.patient_ids, dtype=str), return_inverse=True)
    cases = np.bincount(patient[where], minlength=names.size)
    if not (only_a.any() or only_b.any()):
        why = "no p: both methods call the same cases right"
        return Comparison(name, value_a, value_b, 0.0, n=n, method="McNemar", why=why)
    if cases.max() == 1:
        k, m = int(min(only_a.sum(), only_b.sum())), int(only_a.sum() + only_b.sum())
        p_value = float(min(1.0, 2.0 * binom.cdf(k, m, 0.5)))
        method = "McNemar, exact"
    else:
        of_patient = np.bincount(patient, weights=only_a.astype(float) - only_b, minlength=names.size)
        pull = np.divide(of_patient, cases, out=np.zeros(names.size), where=cases > 0)
        p_value = 1.0
        if (pull**2).sum() > 0:
            p_value = float(2.0 * norm.sf(abs(pull.sum()) / np.sqrt((pull**2).sum())))
        method = "McNemar over patients (Durkalski 2003): p weighs patients alike, the difference cases"
    if not difference.defined:
        why = f"no interval: {count_noun(difference.patients, 'patient')}"
        return Comparison(name, value_a, value_b, difference.value, p_value=p_value, n=n, method=method, why=why)
    half = compute_reach(difference.error(a.patient_ids), difference.freedom)
    low, high = max(-1.0, difference.value - half), min(1.0, difference.value + half)
    return Comparison(name, value_a, value_b, difference.value, low, high, p_value, n, method)
