"""The values Engstler et al. 2022 print: provenance beside our rows, never asserted.

Table 1, percent over five trainings; only the first row prints deviations, and of F1 alone. The column `Acc.` is very
likely recall of fractured vertebrae: the released code asks torchmetrics for a macro accuracy over one class, which is
that; and read as accuracy, F1 and it together force a share of 27 to 56% fractured vertebrae where the data have 6.5%
and 11.7%. It is therefore printed beside our recall, and never beside our accuracy.
"""

from __future__ import annotations

from sightline.lab.table import Published

F1, RECALL = "image-wise F1 of fractured", "image-wise recall for fractured"
AUC, PRECISION = "image-wise AUC", "image-wise average precision"


def _row(f1: float, acc: float, auc: float, ap: float, f1_std: float | None = None) -> dict[str, Published]:
    values = {F1: Published(f1, f1_std), RECALL: Published(acc), AUC: Published(auc), PRECISION: Published(ap)}
    return {f"{metric}, test": value for metric, value in values.items()}


TABLE1: dict[str, dict[str, Published]] = {
    "VerSe -> VerSe": _row(71.2, 78.2, 84.5, 76.4, f1_std=10.8),
    "all -> VerSe": _row(86.1, 90.9, 96.2, 94.1),
    "all -> all": _row(88.0, 88.0, 94.7, 95.0),
}

# Table 2: units of the paper's network (released numbering; its text exchanges 22 and 424) and what experts named them
RANKS_OF_RELEASE = (88, 156, 113, 382, 127, 213, 265, 429, 479, 223)
