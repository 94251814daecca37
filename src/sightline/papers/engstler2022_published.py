"""The values Engstler et al. 2022 print: provenance beside our rows, never asserted.

Table 1: percent, mean and deviation over five trainings. The column `Acc.` is very
likely recall of fractured vertebrae: the released code asks torchmetrics for a macro accuracy over one class, which is
that; and read as accuracy, F1 and it together force a share of 27 to 56% fractured vertebrae where the data have 6.5%
and 11.7%. It is therefore printed beside our recall, and never beside our accuracy.
"""

from __future__ import annotations

from sightline.lab.table import Published

F1, RECALL = "image-wise F1 of fractured", "image-wise recall for fractured"
AUC, PRECISION = "image-wise AUC", "image-wise average precision"


def _row(*cells: tuple[float, float]) -> dict[str, Published]:
    """F1, "Acc.", AUC, AP; each mean and deviation over five trainings, in percent."""
    return {
        f"{metric}, test": Published(mean, std)
        for metric, (mean, std) in zip((F1, RECALL, AUC, PRECISION), cells, strict=True)
    }


TABLE1: dict[str, dict[str, Published]] = {
    "VerSe -> VerSe": _row((71.2, 10.8), (78.2, 12.0), (84.5, 9.1), (76.4, 14.5)),
    "all -> VerSe": _row((86.1, 2.6), (90.9, 1.6), (96.2, 0.9), (94.1, 1.6)),
    "all -> all": _row((88.0, 0.7), (88.0, 0.4), (94.7, 0.5), (95.0, 0.4)),
}

# Table 2: units of the paper's network (released numbering; its text exchanges 22 and 424) and what experts named them
RANKS_OF_RELEASE = (88, 156, 113, 382, 127, 213, 265, 429, 479, 223)
