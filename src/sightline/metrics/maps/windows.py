"""How far a spatial transformer moved its window from the whole image (Jaderberg 2015).

A network that starts at the whole image and never leaves it has a shift of 0, a scale of 1 and no rotation: its box
then says nothing about its learning (Jimenez-Sanchez 2018, table V, prints the same 0.32 nine times).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError
from sightline.metrics.estimate import Estimate
from sightline.metrics.statistics.comparison import average_resampled, estimate_over_patients

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WindowDisplacement:
    """Where the windows of n images lie, in fractions of the image grid.

    Attributes:
        row_shift: [n], centre of the window minus the centre of the image, downwards.
        column_shift: [n], the same to the right.
        centre_shift: [n], length of the shift.
        scale: [n], square root of the share of the image's area that the window has; 1 is the whole image, less is a
            closer look.
        rotation_deg: [n], -180 to 180, of the rotation nearest to the window's axes (polar decomposition), positive
            is counter-clockwise on a square image as shown on a screen; a mirrored window is unmirrored first.
        mirrored: bool [n].
    """

    row_shift: FloatArray
    column_shift: FloatArray
    centre_shift: FloatArray
    scale: FloatArray
    rotation_deg: FloatArray
    mirrored: NDArray[np.bool_]

    def columns(self) -> dict[str, FloatArray]:
        """Every number of every image by its name in tables."""
        return {
            "centre shift (fraction)": self.centre_shift,
            "row shift (fraction)": self.row_shift,
            "column shift (fraction)": self.column_shift,
            "window scale": self.scale,
            "rotation in degrees": self.rotation_deg,
        }

    def summary(self) -> dict[str, tuple[float, float | None]]:
        """Mean and standard deviation (ddof 1; None with one image) over images of each of `columns`."""
        return {
            name: (float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else None)
            for name, values in self.columns().items()
        }

    def estimates(
        self,
        patient_ids: Sequence[str],
        *,
        counts: Mapping[str, int] | None = None,
    ) -> list[Estimate]:
        """The mean of each of `columns` with its interval over patients; the method tells the standard deviation.

        Raises:
            GeometryError: not one patient a window.
        """
        if len(patient_ids) != len(self.scale):
            raise GeometryError(f"There are {len(self.scale)} windows and {len(patient_ids)} patient ids.")
        n = {"images": len(patient_ids), "patients": len(set(patient_ids))} if counts is None else counts
        found = []
        for name, (_, spread) in self.summary().items():
            what = "mean over images" + ("" if spread is None else f" (sd {spread:.3f})")
            number = average_resampled(self.columns()[name])
            found.append(estimate_over_patients(name, number, patient_ids, n, what=what))
        return found


def measure_window_displacement(windows: ArrayLike) -> WindowDisplacement:
    """The displacement of windows [n, 2, 3], affine from map fractions to image fractions, (row, column).

    Raises:
        GeometryError: no window, another shape, or numbers that are not finite.
    """
    affine = np.asarray(windows, dtype=np.float64)
    if affine.ndim != 3 or affine.shape[1:] != (2, 3) or not len(affine) or not np.isfinite(affine).all():
        raise GeometryError(f"Windows must be finite [n, 2, 3] with n >= 1; got shape {affine.shape}.")
    linear, start = affine[..., :2], affine[..., 2]
    shift = start + linear.sum(axis=-1) / 2 - 0.5
    determinant = np.linalg.det(linear)
    mirrored = determinant < 0
    # the second map axis turned round: what is left is a rotation and a stretch
    upright = linear * np.where(mirrored[:, None, None], np.array([1.0, -1.0]), 1.0)
    sine, cosine = upright[:, 1, 0] - upright[:, 0, 1], upright[:, 0, 0] + upright[:, 1, 1]
    return WindowDisplacement(
        row_shift=shift[:, 0],
        column_shift=shift[:, 1],
        centre_shift=np.hypot(shift[:, 0], shift[:, 1]),
        scale=np.sqrt(np.abs(determinant)),
        rotation_deg=np.arctan2(sine, cosine) * (180.0 / math.pi),
        mirrored=mirrored,
    )
