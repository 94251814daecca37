"""The values Watanabe et al. 2022 print: provenance beside our rows, never asserted.

AUC with what the paper calls 95% intervals, the 2.5th and 97.5th percentiles of 30 draws of 55 to 60 of about 102 test
images, and p against the U-Net, whose test is not named. Printed as they stand, with what cannot be right: p of 5e-79
is no statement about models that 30 draws could make; in Table 4 the p of `normal` (0.921 against 0.923: 2e-16) and of
CHF (0.962 against 0.916: 0.684) look exchanged; and the epoch reported was chosen on the test split.
"""

from __future__ import annotations

from sightline.lab.table import Published

Cells = dict[str, dict[str, Published]]
Cell = tuple[float, float, float] | tuple[float, float, float, float]
CLASSES = ("Normal", "CHF", "pneumonia")
MEAN_AUC = "image-wise AUC one-vs-rest"


def auc_of(name: str) -> str:
    """What tables call the AUC of a class against the others."""
    return f"image-wise AUC of {name}"


def _row(*cells: Cell) -> dict[str, Published]:
    """Average, normal, CHF, pneumonia; each value, low, high and, but for the U-Net, p."""
    metrics = (MEAN_AUC, *(auc_of(name) for name in CLASSES))
    return {
        f"{metric}, test": Published(cell[0], low=cell[1], high=cell[2], p=cell[3] if len(cell) == 4 else None)
        for metric, cell in zip(metrics, cells, strict=True)
    }


ROWS: Cells = {
    "U-Net": _row((0.872, 0.840, 0.897), (0.923, 0.895, 0.945), (0.916, 0.871, 0.938), (0.781, 0.713, 0.851)),
    "no segmentation": _row(
        (0.873, 0.838, 0.908, 0.128),
        (0.878, 0.836, 0.918, 7.068e-14),
        (0.934, 0.898, 0.975, 4.774e-3),
        (0.805, 0.763, 0.886, 0.273),
    ),
    "set 1 guided": _row(
        (0.891, 0.847, 0.939, 3.210e-2),
        (0.896, 0.854, 0.945, 1.086e-3),
        (0.946, 0.891, 0.979, 1.417e-4),
        (0.831, 0.763, 0.923, 4.471e-4),
    ),
    "set 1 deconvolution": _row(
        (0.884, 0.843, 0.935, 0.874),
        (0.916, 0.884, 0.943, 8.061e-6),
        (0.935, 0.905, 0.959, 8.855e-4),
        (0.806, 0.715, 0.918, 0.707),
    ),
    "set 2 guided": _row(
        (0.897, 0.848, 0.921, 1.410e-3),
        (0.907, 0.863, 0.946, 3.732e-2),
        (0.922, 0.888, 0.956, 0.103),
        (0.850, 0.792, 0.900, 8.989e-9),
    ),
    "set 2 deconvolution": _row(
        (0.881, 0.828, 0.907, 0.776),
        (0.885, 0.836, 0.928, 2.932e-11),
        (0.922, 0.890, 0.952, 0.412),
        (0.827, 0.732, 0.901, 6.953e-3),
    ),
    "set 3 guided": _row(
        (0.913, 0.860, 0.966, 1.281e-6),
        (0.921, 0.866, 0.968, 1.981e-16),
        (0.962, 0.933, 0.989, 0.684),
        (0.859, 0.732, 0.957, 5.144e-79),
    ),
    "set 3 deconvolution": _row(
        (0.860, 0.806, 0.907, 0.213),
        (0.907, 0.856, 0.962, 3.928e-4),
        (0.934, 0.891, 0.974, 5.039e-7),
        (0.741, 0.643, 0.840, 5.239e-2),
    ),
}
