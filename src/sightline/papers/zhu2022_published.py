"""The values Zhu et al. 2022 print: provenance beside our rows, never asserted.

Medians of five trainings; precision and recall of Table 2 with their standard deviations, the AUC (Hand and Till) of
section 4.3 without. The class the paper calls cardiomegaly is EGD-CXR's CHF. Recalls are multiples of 1/72 or 1/73,
the whole test split of 20%. Figure 3's interpretability is a box plot without numbers.
"""

from __future__ import annotations

from sightline.lab.table import Published

Cells = dict[str, dict[str, Published]]
Pair = tuple[float, float]
CLASSES = ("Normal", "CHF", "pneumonia")
HAND_TILL = "image-wise AUC Hand & Till"


def precision_of(name: str) -> str:
    """What tables call the precision of a class."""
    return f"image-wise precision for {name}"


def recall_of(name: str) -> str:
    """What tables call the recall of a class."""
    return f"image-wise recall for {name}"


def _row(auc: float, *scores: tuple[Pair, Pair]) -> dict[str, Published]:
    cells = {f"{HAND_TILL}, test": Published(auc)}
    for name, (precision, recall) in zip(CLASSES, scores, strict=True):
        cells[f"{precision_of(name)}, test"] = Published(*precision)
        cells[f"{recall_of(name)}, test"] = Published(*recall)
    return cells


TABLE2: Cells = {
    "EffNet+GG-CAM": _row(
        0.801,
        ((0.649, 0.042), (0.611, 0.080)),
        ((0.660, 0.015), (0.699, 0.136)),
        ((0.500, 0.042), (0.486, 0.086)),
    ),
    "ResNet+GG-CAM": _row(
        0.776,
        ((0.633, 0.024), (0.556, 0.040)),
        ((0.658, 0.023), (0.699, 0.054)),
        ((0.450, 0.026), (0.500, 0.054)),
    ),
    "EffNet": _row(
        0.723,
        ((0.569, 0.035), (0.611, 0.147)),
        ((0.654, 0.065), (0.699, 0.053)),
        ((0.418, 0.065), (0.389, 0.178)),
    ),
    "ResNet": _row(
        0.721,
        ((0.586, 0.043), (0.528, 0.153)),
        ((0.540, 0.048), (0.712, 0.228)),
        ((0.375, 0.028), (0.389, 0.122)),
    ),
}
