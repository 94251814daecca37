"""All scores of a table of predictions, and how they are printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from sightline.errors import RunError, count_words
from sightline.metrics.classification.estimates import IntervalKind, estimate_score, simulate_perfect_calibration
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
from sightline.metrics.estimate import Comparison, Estimate, Score, format_p_text
from sightline.metrics.predictions import Predictions, align
from sightline.metrics.statistics.bootstrap import Resample, score_point
from sightline.metrics.statistics.comparison import holm


def list_standard_scores(classes: Sequence[str], positive: int) -> list[Score]:
    """The scores every report holds.

    Two classes: those of the positive class. More: the multi-class means, and each class against the rest.
    """
    scores: list[Score] = [Accuracy(), BalancedAccuracy()]
    if len(classes) == 2:
        scores += [
            AUC(positive),
            AveragePrecision(positive),
            F1("positive", positive, name=f"F1 of {classes[positive]}"),
            Sensitivity(positive),
            Specificity(positive),
            Precision(positive),
            Prevalence(positive),
        ]
    else:
        scores += [OneVsRestAUC(), HandTillAUC(), AveragePrecision(name="average precision, mean over classes")]
        for i, name in enumerate(classes):
            scores += [AUC(i, f"AUC of {name}"), Sensitivity(i, name=f"sensitivity for {name}")]
            scores += [Specificity(i, name=f"specificity for {name}"), F1("positive", i, name=f"F1 of {name}")]
    scores += [F1("macro", name="F1 macro"), F1("weighted", name="F1 weighted by support")]
    return [*scores, Brier(), CalibrationError()]


def compute_classification_report(
    predictions: Predictions,
    *,
    positive: str | None = None,
    kind: IntervalKind = "score",
    replicates: int = 2000,
    seed: int = 0,
) -> list[Estimate]:
    """Every standard score, image-wise and (mean probability over a study's views) study-wise.

    Names end in `, image-wise` and `, study-wise`; both carry the number of images, studies and patients, and of
    patients of each class. Beside the calibration error stands what a perfectly calibrated model would print.

    Args:
        predictions: image-wise.
        positive: the positive class of two; None: the last one.
        kind: of the intervals: `score`, or the `percentile` bootstrap over patients.
        replicates: bootstrap samples of the percentile interval, and draws of a perfectly calibrated model.
        seed: of the draws.

    Raises:
        CohortError: no such class, or a study whose images disagree on the label.
    """
    scores = list_standard_scores(predictions.classes, predictions.class_index(positive))
    views = [("study-wise", predictions)] if predictions.unit == "study" else []
    views = views or [("image-wise", predictions), ("study-wise", predictions.study_wise())]
    report = []
    for wise, table in views:
        for score in scores:
            n = predictions.counts()
            found = estimate_score([table], score, kind=kind, replicates=replicates, seed=seed, n=n)
            report.append(replace(found, name=f"{score.name}, {wise}", why=_explain_value(score, table) or found.why))
            if isinstance(score, CalibrationError):
                perfect = simulate_perfect_calibration(table, score, draws=replicates, seed=seed)
                report.append(replace(perfect, name=f"{perfect.name}, {wise}", n=report[-1].n))
    return report


def to_markdown(estimates: Sequence[Estimate], *, digits: int = 3) -> str:
    """A table of estimates: name, number with interval, what was counted, how, and notes where something is missing."""
    rows = [[e.name, e.text(digits), format_counts(e.n), e.method, e.why] for e in estimates]
    return _format_table(["measure", "value (95% interval)", "n", "method", "note"], rows)


def format_comparisons(comparisons: Sequence[Comparison], *, digits: int = 3) -> str:
    """A table of comparisons, with p-values as they are and corrected for reading all rows (Holm 1979)."""
    corrected = holm([c.p_value for c in comparisons])
    rows = []
    for c, p_corrected in zip(comparisons, corrected, strict=True):
        values = ["undefined" if v is None else f"{v:.{digits}f}" for v in (c.value_a, c.value_b)]
        difference = c.text(digits).rpartition(", ")[0] or "undefined"
        numbers = [difference, format_p_text(c.p_value), format_p_text(p_corrected)]
        rows.append([c.name, *values, *numbers, format_counts(c.n), c.method, c.why])
    head = ["measure", "a", "b", "a − b (95% interval)", "p", "p (Holm)", "n", "method", "note"]
    return _format_table(head, rows)


def format_counts(n: Mapping[str, int]) -> str:
    """Counts in words: `450 images, 150 studies, 148 patients`."""
    return count_words(n)


def _format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; a last column that is empty throughout is left out."""
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    lines = [head, ["---"] * len(head), *rows]
    # a class name may hold the character that separates cells
    cells = (" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in cells)


def list_multi_class_scores(classes: Sequence[str]) -> list[Score]:
    """Both mean AUCs with all their parts, and precision and recall of every class."""
    scores: list[Score] = [HandTillAUC()]
    scores += [PairAUC(i, j, f"AUC of {classes[i]} or {classes[j]}") for i, j in combinations(range(len(classes)), 2)]
    scores += [OneVsRestAUC(), *(AUC(i, f"AUC of {name} against the rest") for i, name in enumerate(classes))]
    for i, name in enumerate(classes):
        scores += [Precision(i, name=f"precision for {name}"), Sensitivity(i, name=f"recall for {name}")]
    return scores


def compute_multi_class_report(
    predictions: Predictions, *, kind: IntervalKind = "score", replicates: int = 2000, seed: int = 0
) -> list[Estimate]:
    """Every multi-class score with its interval over patients.

    Where some replicates of a percentile interval have no score, the method's words name the classes that were not
    drawn and how often.
    """
    resample = Resample.draw(predictions.patient_ids, replicates, seed)
    undrawn = ", ".join(f"no {name} in {n}" for name, n in count_missing_classes(predictions, resample).items() if n)
    report = []
    for score in list_multi_class_scores(predictions.classes):
        found = estimate_score([predictions], score, kind=kind, replicates=replicates, seed=seed)
        if why := _explain_value(score, predictions):
            found = replace(found, why=why)
        elif "undefined" in found.method and undrawn:
            found = replace(found, method=f"{found.method} ({undrawn})")
        report.append(found)
    return report


def _explain_value(score: Score, predictions: Predictions) -> str:
    """Why a precision has no value, though there are cases of every class; else nothing."""
    if not isinstance(score, Precision):
        return ""
    called = predict_positive(predictions.probabilities, score.positive, score.threshold).any()
    return "" if called else f"not defined: no case is called {predictions.classes[score.positive]}"


def count_missing_classes(predictions: Predictions, resample: Resample) -> dict[str, int]:
    """In how many replicates each class was not drawn at all."""
    present = predictions.labels[:, None] == np.arange(len(predictions.classes))
    held = np.zeros((resample.patients, len(predictions.classes)), dtype=np.int64)
    np.add.at(held, resample.patient, present)
    missing = ((resample.counts @ held) == 0).sum(axis=0)
    return dict(zip(predictions.classes, missing.tolist(), strict=True))


@dataclass(frozen=True)
class RunSummary:
    """One score over several trainings, as Zhu 2022 prints its table 2: median ± standard deviation (ddof 1).

    It says how far trainings differ on these cases, nothing about other patients: no interval.

    Attributes:
        name: of the score.
        values: one a training; None where it is not defined.
        median: of the defined values, or None.
        std: their standard deviation, or None with fewer than two.
        why: what is missing.
    """

    name: str
    values: tuple[float | None, ...]
    median: float | None
    std: float | None
    why: str = ""

    @classmethod
    def from_values(cls, name: str, values: Sequence[float | None]) -> RunSummary:
        """Median and spread of results, of which some may be None or NaN.

        Raises:
            RunError: no results.
        """
        if not values:
            raise RunError(f"There are no runs to take the median {name} of; expected at least one.")
        kept = tuple(None if value is None or math.isnan(value) else float(value) for value in values)
        defined = [value for value in kept if value is not None]
        lost = len(kept) - len(defined)
        why = [f"not defined in {lost} of {len(kept)} runs"] if lost else []
        why += ["one run has no spread"] if len(defined) == 1 else []
        median = float(np.median(defined)) if defined else None
        std = float(np.std(defined, ddof=1)) if len(defined) > 1 else None
        return cls(name, kept, median, std, "; ".join(why))

    def text(self, digits: int = 3) -> str:
        """`0.776 ± 0.012`, or `undefined`."""
        if self.median is None:
            return "undefined"
        return f"{self.median:.{digits}f}" + ("" if self.std is None else f" ± {self.std:.{digits}f}")


def summarise_runs(runs: Sequence[Predictions], scores: Sequence[Score] | None = None) -> list[RunSummary]:
    """Every score's median ± standard deviation over trainings on the same cases.

    Args:
        runs: one table a training.
        scores: None takes `list_multi_class_scores`.

    Raises:
        RunError: no runs, or runs over different cases.
    """
    aligned = align(runs)
    chosen = list_multi_class_scores(aligned[0].classes) if scores is None else scores
    return [RunSummary.from_values(score.name, [score_point(score, run) for run in aligned]) for score in chosen]
