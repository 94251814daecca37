"""All scores of a table of predictions, and how they are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sightline.measure.classification import (
    AUC,
    F1,
    Accuracy,
    AveragePrecision,
    BalancedAccuracy,
    Brier,
    CalibrationError,
    HandTillAUC,
    OneVsRestAUC,
    Precision,
    Prevalence,
    Score,
    Sensitivity,
    Specificity,
)
from sightline.measure.comparison import holm
from sightline.measure.estimate import Comparison, Estimate, p_text
from sightline.measure.intervals import bootstrap
from sightline.measure.predictions import Predictions


def standard_scores(classes: Sequence[str], positive: int) -> list[Score]:
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


def classification_report(
    predictions: Predictions, *, positive: str | None = None, replicates: int = 2000, seed: int = 0
) -> list[Estimate]:
    """Every standard score, image-wise and (mean probability over a study's views) study-wise.

    Names end in `, image-wise` and `, study-wise`; both carry the number of images, studies and patients.

    Args:
        predictions: image-wise.
        positive: the positive class of two; None: the last one.
        replicates: bootstrap samples over patients.
        seed: of the bootstrap.

    Raises:
        CohortError: no such class, or a study whose images disagree on the label.
    """
    scores = standard_scores(predictions.classes, predictions.class_index(positive))
    views = [("study-wise", predictions)] if predictions.unit == "study" else []
    views = views or [("image-wise", predictions), ("study-wise", predictions.study_wise())]
    report = []
    for wise, table in views:
        for score in scores:
            found = bootstrap(score, table, replicates=replicates, seed=seed, n=predictions.counts())
            report.append(replace(found, name=f"{score.name}, {wise}"))
    return report


def to_markdown(estimates: Sequence[Estimate], *, digits: int = 3) -> str:
    """A table of estimates: name, number with interval, what was counted, how, and notes where something is missing."""
    rows = [[e.name, e.text(digits), counts_text(e.n), e.method, e.why] for e in estimates]
    return _table(["measure", "value (95% interval)", "n", "method", "note"], rows)


def comparisons_to_markdown(comparisons: Sequence[Comparison], *, digits: int = 3) -> str:
    """A table of comparisons, with p-values as they are and corrected for reading all rows (Holm 1979)."""
    corrected = holm([c.p_value for c in comparisons])
    rows = []
    for c, p_corrected in zip(comparisons, corrected, strict=True):
        values = ["undefined" if v is None else f"{v:.{digits}f}" for v in (c.value_a, c.value_b)]
        difference = c.text(digits).rpartition(", ")[0] or "undefined"
        numbers = [difference, p_text(c.p_value), p_text(p_corrected)]
        rows.append([c.name, *values, *numbers, counts_text(c.n), c.method, c.why])
    head = ["measure", "a", "b", "a − b (95% interval)", "p", "p (Holm)", "n", "method", "note"]
    return _table(head, rows)


def counts_text(n: Mapping[str, int]) -> str:
    """Counts in words: `450 images, 150 studies, 148 patients`."""
    return ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in n.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; a last column that is empty throughout is left out."""
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    lines = [head, ["---"] * len(head), *rows]
    # a class name may hold the character that separates cells
    cells = (" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in cells)
