"""Scores of class probabilities with intervals that hold, and the test of two methods that tables quote.

An AUC has the interval of `statistics.auc_intervals`, a share of cases (accuracy, sensitivity, specificity, precision)
that of `statistics.score_intervals`, another score the same with the variance from leaving out patients. All are over
patients, and over trainings where there are several. Fewer than four patients of a class that a score asks for give no
interval and no p, and the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from sightline.errors import RunError, count_noun
from sightline.metrics.classification.scores import (
    AUC,
    F1,
    Accuracy,
    AveragePrecision,
    BalancedAccuracy,
    Brier,
    CalibrationError,
    HandTillAUC,
    OneVsRestAUC,
    PairAUC,
    Precision,
    Prevalence,
    Sensitivity,
    Specificity,
    predict_positive,
)
from sightline.metrics.estimate import BoolArray, Comparison, Estimate, FloatArray, Score
from sightline.metrics.predictions import Predictions, align
from sightline.metrics.statistics.auc_intervals import compute_auc_interval, compute_auc_spread
from sightline.metrics.statistics.bootstrap import (
    FEWEST_OF_A_CLASS,
    FEWEST_PATIENTS,
    Resample,
    explain_undefined,
    score_point,
    seed_bootstrap,
)
from sightline.metrics.statistics.paired_tests import (
    Draws,
    Swap,
    build_auc_swap,
    pair_trainings,
    run_swap_test,
    standardise,
)
from sightline.metrics.statistics.patient_variance import Spread, estimate_spread
from sightline.metrics.statistics.score_intervals import (
    build_proportion_model,
    build_share_model,
    compute_mean_interval,
    compute_score_interval,
)

IntervalKind = Literal["score", "percentile"]
"""`score`: the intervals of this page; `percentile`: the bootstrap's, which is too short near 1 and in few patients."""
_SURELY = 1e-9  # probabilities nearer to 0 or 1 are not told apart
_CELLS_AT_ONCE = 2_000_000


def estimate_score(
    runs: Sequence[Predictions],
    score: Score,
    *,
    kind: IntervalKind = "score",
    replicates: int = 2000,
    seed: int = 0,
    n: Mapping[str, int] | None = None,
) -> Estimate:
    """The mean score of one or several trainings of a method, with its 95% interval over patients and trainings.

    Args:
        runs: predictions of the same cases, one table a training; image-wise or study-wise.
        score: what to compute.
        kind: `score`, or the `percentile` bootstrap over patients and trainings.
        replicates: bootstrap samples of the percentile interval.
        seed: of the bootstrap.
        n: counts to report, where they are known better than from the predictions.

    Raises:
        RunError: no runs, or runs over different cases.
    """
    if kind == "percentile":
        largest = _find_largest(score, runs[0]) if runs else 1.0
        found = seed_bootstrap(runs, score, replicates=replicates, seed=seed, n=n, bounds=(0.0, largest))
        counted = dict(found.n) if len(runs) > 1 else {k: v for k, v in found.n.items() if k != "seeds"}
        return Estimate(found.name, found.value, found.low, found.high, counted, found.method, found.why)
    aligned = align(runs)
    counted = {**(aligned[0].counts() if n is None else n), **count_patients_of_classes(aligned[0])}
    counted |= {"seeds": len(aligned)} if len(aligned) > 1 else {}
    points = np.array([score_point(score, run) for run in aligned])
    if not np.isfinite(points).all():
        return Estimate(score.name, None, n=counted, method="no interval", why=explain_undefined(aligned[0]))
    value = float(points.mean())
    if isinstance(score, CalibrationError):
        why = "no interval: biased upwards; hold it against what a perfectly calibrated model prints at this n"
        return Estimate(score.name, value, n=counted, method="no interval", why=why)
    if why := explain_too_few(score, aligned):
        return Estimate(score.name, value, n=counted, method="no interval", why=why)
    low, high, method = _compute_interval(score, aligned, value)
    if low is None:
        return Estimate(score.name, value, n=counted, method="no interval", why=method)
    return Estimate(score.name, value, low, high, counted, f"{method}{_describe_trainings(len(aligned))}")


def compare_scores(
    runs_a: Sequence[Predictions],
    runs_b: Sequence[Predictions],
    score: Score,
    *,
    swaps: int = 2000,
    seed: int = 0,
) -> Comparison:
    """The difference of two methods' mean scores, its interval and p over patients and trainings (`run_swap_test`).

    Args:
        runs_a: one table a training of method a; image-wise or study-wise.
        runs_b: the same cases by method b; the numbers of trainings may differ.
        score: what to compare.
        swaps: number of random swaps.
        seed: of the swaps.

    Raises:
        RunError: a method without runs, or runs over different cases.
    """
    if not runs_a or not runs_b:
        raise RunError(f"A comparison needs predictions of both methods; got {len(runs_a)} and {len(runs_b)} runs.")
    runs, split = align([*runs_a, *runs_b]), len(runs_a)
    counts = {**runs[0].counts(), **count_patients_of_classes(runs[0])}
    n = {**counts, "seeds_a": split, "seeds_b": len(runs) - split}
    points = np.array([score_point(score, run) for run in runs])
    if not np.isfinite(points).all():
        return Comparison(score.name, None, None, None, n=n, method="no test", why=explain_undefined(runs[0]))
    means = float(points[:split].mean()), float(points[split:].mean())
    why = explain_too_few(score, runs)
    spreads = None if why else (_compute_spread(score, runs[:split]), _compute_spread(score, runs[split:]))
    if spreads is None or spreads[0] is None or spreads[1] is None:
        reason = why.replace("no interval", "no test") or "no test: not defined without some patient"
        return Comparison(score.name, *means, means[0] - means[1], n=n, method="no test", why=reason)
    swap, patients = _build_swap(score, runs[:split], runs[split:]), len(set(runs[0].patient_ids))
    return run_swap_test(score.name, swap, (spreads[0], spreads[1]), patients, counts, Draws(swaps, seed))


def simulate_perfect_calibration(
    predictions: Predictions, score: CalibrationError, *, draws: int = 2000, seed: int = 0
) -> Estimate:
    """What the calibration error of a perfectly calibrated model is on as many cases, said with the same confidences.

    Every case's call is right with the chance that the model says. The value is the mean over draws, the interval holds
    the middle 95% of them: a calibration error inside it is no sign of bad calibration.

    Args:
        predictions: whose confidences are taken.
        score: bins.
        draws: how often the hits are drawn.
        seed: of the draws.
    """
    confidence = predictions.probabilities.max(axis=1)
    bins = score.bin_of(confidence)[:, None] == np.arange(score.bins)
    random, found = np.random.default_rng(seed), []
    step = max(1, _CELLS_AT_ONCE // len(predictions))
    for i in range(0, draws, step):
        hits = random.random((min(step, draws - i), len(predictions))) < confidence
        found.append(np.abs((hits - confidence) @ bins.astype(np.float64)).sum(axis=1) / len(predictions))
    values = np.concatenate(found)
    low, high = (float(q) for q in np.quantile(values, (0.025, 0.975)))
    method = f"{draws} draws of right and wrong calls from the stated confidences, seed {seed}"
    return Estimate(f"{score.name} of a perfectly calibrated model", float(values.mean()), low, high, method=method)


def count_patients_of_classes(predictions: Predictions) -> dict[str, int]:
    """How many patients have a case of each class; of many classes the rarest alone."""
    ids = np.asarray(predictions.patient_ids)
    held = {name: np.unique(ids[predictions.labels == i]).size for i, name in enumerate(predictions.classes)}
    if len(held) > 3:
        rarest = min(held, key=lambda name: held[name])
        held = {rarest: held[rarest]}
    return {f"patients with {name}": count for name, count in held.items()}


def explain_too_few(score: Score, runs: Sequence[Predictions]) -> str:
    """Why there can be no interval: too few patients in all, or on a side that the score needs; else nothing."""
    table, ids = runs[0], np.asarray(runs[0].patient_ids)
    patients = len(set(table.patient_ids))
    if patients < FEWEST_PATIENTS:
        return f"no interval: {count_noun(patients, 'patient')}, at least {FEWEST_PATIENTS} needed"
    for words, rows in _select_sides(score, runs).items():
        count = np.unique(ids[rows]).size
        if count < FEWEST_OF_A_CLASS:
            return f"no interval: {count_noun(count, 'patient')} {words}, at least {FEWEST_OF_A_CLASS} needed"
    return ""


def _select_sides(score: Score, runs: Sequence[Predictions]) -> dict[str, BoolArray]:
    """The rows of each side that a score cannot do without, by words that go after "patients"."""
    table = runs[0]
    if isinstance(score, Sensitivity):
        return {f"with {table.classes[score.positive]}": table.labels == score.positive}
    if isinstance(score, Specificity):
        return {f"without {table.classes[score.positive]}": table.labels != score.positive}
    if isinstance(score, Precision):
        ids = np.asarray(table.patient_ids)
        called = min((_select_called(score, run) for run in runs), key=lambda rows: np.unique(ids[rows]).size)
        return {f"called {table.classes[score.positive]}": called}
    one = score.positive if isinstance(score, AUC | AveragePrecision) else None
    if isinstance(score, F1) and score.average == "positive":
        one = score.positive % len(table.classes)
    if one is not None:
        name = table.classes[one]
        return {f"with {name}": table.labels == one, f"without {name}": table.labels != one}
    several: Sequence[int] = ()
    if isinstance(score, PairAUC):
        several = (score.first, score.second)
    macro = isinstance(score, F1) and score.average == "macro"
    if macro or isinstance(score, BalancedAccuracy | OneVsRestAUC | HandTillAUC | AveragePrecision):
        several = range(len(table.classes))
    return {f"with {table.classes[i]}": table.labels == i for i in several}


def _select_called(score: Precision, run: Predictions) -> BoolArray:
    return predict_positive(run.probabilities, score.positive, score.threshold)


def _select_rows(score: Score, run: Predictions) -> BoolArray | None:
    """The rows among which a score is the share of hits; None where it is no such share."""
    if isinstance(score, Accuracy | Prevalence):
        return np.ones(len(run), dtype=bool)
    if isinstance(score, Sensitivity):
        return np.asarray(run.labels == score.positive)
    if isinstance(score, Specificity):
        return np.asarray(run.labels != score.positive)
    return _select_called(score, run) if isinstance(score, Precision) else None


def _compute_interval(score: Score, runs: Sequence[Predictions], value: float) -> tuple[float | None, float, str]:
    if isinstance(score, AUC):
        low, high = compute_auc_interval(*_gather_ranked(score, runs))
        return low, high, "score interval of an AUC (binormal, clustered by patient)"
    spread = _compute_spread(score, runs)
    if spread is None:
        return None, 0.0, "no interval: not defined without some patient"
    rows = _select_rows(score, runs[0])
    if rows is not None:
        patient = np.unique(np.asarray(runs[0].patient_ids)[rows], return_inverse=True)[1]
        low, high = compute_score_interval(spread, build_proportion_model(np.bincount(patient).astype(np.float64)))
        return low, high, "score interval of a share (Wilson, clustered by patient)"
    if spread.patient <= 1e-24 * max(1.0, value**2):
        # no error happened: nothing says how often one would
        return None, 0.0, f"no interval: leaving out any of the patients gives {value:.3f}"
    if isinstance(score, Brier) or not 0.0 < value < 1.0:
        low, high = compute_mean_interval(spread)
        return max(low, 0.0), min(high, _find_largest(score, runs[0])), "t interval from leaving out patients"
    low, high = compute_score_interval(spread, build_share_model(spread), model_freedom=0.0)
    return low, high, "score interval, variance from leaving out patients"


def _find_largest(score: Score, run: Predictions) -> float:
    """The largest possible value: of three or more classes a Brier score may exceed 1."""
    classes = len(run.classes)
    if not isinstance(score, Brier) or classes == 2:
        return 1.0
    return float(classes) if run.independent else 2.0


def _describe_trainings(trainings: int) -> str:
    return f", over patients and {trainings} seeds" if trainings > 1 else ", over patients (one training)"


def _gather_ranked(score: AUC, runs: Sequence[Predictions]) -> tuple[FloatArray, BoolArray, np.ndarray]:
    """Scores [t, n], truth [n] and patients [n] of an AUC."""
    patient = np.unique(np.asarray(runs[0].patient_ids), return_inverse=True)[1]
    return np.stack([run.probabilities[:, score.positive] for run in runs]), runs[0].labels == score.positive, patient


def _compute_spread(score: Score, runs: Sequence[Predictions]) -> Spread | None:
    if isinstance(score, AUC):
        return compute_auc_spread(*_gather_ranked(score, runs))
    sides = _select_sides(score, runs).values()
    ids = np.asarray(runs[0].patient_ids)
    fewest = min((np.unique(ids[rows]).size for rows in sides), default=np.unique(ids).size)
    numbers = [partial(_resample_score, score, run) for run in runs]
    return estimate_spread(numbers, runs[0].patient_ids, patients=fewest)


def _resample_score(score: Score, run: Predictions, resample: Resample) -> FloatArray:
    return resample.values(score, run)


def _build_swap(score: Score, runs_a: Sequence[Predictions], runs_b: Sequence[Predictions]) -> Swap:
    """How the difference changes where patients change sides between the methods."""
    table = runs_a[0]
    patient = np.unique(np.asarray(table.patient_ids), return_inverse=True)[1]
    if isinstance(score, AUC):
        scores_a, scores_b = (_compute_logits(_gather_ranked(score, runs)[0]) for runs in (runs_a, runs_b))
        return build_auc_swap(scores_a, scores_b, table.labels == score.positive, patient)
    # where only the order of a column counts, its logits are made comparable first
    ranked = isinstance(score, OneVsRestAUC | HandTillAUC | PairAUC | AveragePrecision)
    of_a, of_b = (
        [standardise(_compute_logits(run.probabilities)) if ranked else run.probabilities for run in runs]
        for runs in (runs_a, runs_b)
    )
    pairs = pair_trainings(len(of_a), len(of_b))
    labels = np.concatenate([table.labels, table.labels])
    step = max(1, _CELLS_AT_ONCE // len(labels))

    def swap_predictions(flips: BoolArray) -> FloatArray:
        total = np.zeros(len(flips))
        for i, j in pairs:
            # both tables stacked: weight 1 picks the row of a or of b, so one call scores all mixtures
            both = np.concatenate([of_a[i], of_b[j]])
            for k in range(0, len(flips), step):
                turned = flips[k : k + step][:, patient].astype(np.float64)
                mixed = score(labels, both, np.concatenate([1.0 - turned, turned], axis=1))
                other = score(labels, both, np.concatenate([turned, 1.0 - turned], axis=1))
                total[k : k + step] += (mixed - other) / len(pairs)
        return total

    return swap_predictions


def _compute_logits(probabilities: FloatArray) -> FloatArray:
    kept = probabilities.clip(_SURELY, 1.0 - _SURELY)
    return np.asarray(np.log(kept) - np.log1p(-kept))
