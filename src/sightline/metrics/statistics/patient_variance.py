"""How far a number would move with other patients and trainings: variances from leaving out one patient at a time.

A row of a table has one value a training, all on the same patients. Its mean over trainings moves with the patients
(what they do to all trainings alike) and with the trainings. The sample variance over trainings holds the second and
the part of the first that differs from training to training, so that

    Var(mean) = C + E[s^2] / T,

C the covariance between two trainings that comes from their patients, s^2 the variance over T trainings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.metrics.estimate import FloatArray
from sightline.metrics.statistics.bootstrap import Resample

MOST_LEFT_OUT = 1000  # patients left out one at a time; beyond, groups of them are


@dataclass(frozen=True, eq=False)
class Spread:
    """What is known of a number's variance.

    Attributes:
        value: the mean over trainings.
        patient: variance over patients of one training, the mean over trainings.
        shared: covariance over patients of two trainings, at least 0; equal to `patient` with one training.
        training: sample variance of the value over trainings (ddof 1); 0 with one training.
        trainings: how many.
        informative: (sum I^2)^2 / sum I^4 of the patients' influences I: how many patients the variance rests on.
        patients: patients behind the number, of the smaller side where it has two.
    """

    value: float
    patient: float
    shared: float
    training: float
    trainings: int
    informative: float
    patients: int

    @classmethod
    def from_points(cls, points: FloatArray, covariance: FloatArray, influence: FloatArray, patients: int) -> Spread:
        """From the value of each training, their covariance over patients, and the patients' influence on the mean.

        Args:
            points: [t], value of each training.
            covariance: [t, t], over patients.
            influence: [p], of each patient on the mean over trainings.
            patients: behind the number, of the smaller side where it has two.
        """
        t = len(points)
        patient = float(np.trace(covariance)) / t
        between = covariance[~np.eye(t, dtype=bool)]
        shared = min(max(float(between.mean()), 0.0), patient) if t > 1 else patient
        training = float(np.var(points, ddof=1)) if t > 1 else 0.0
        largest = float(np.abs(influence).max(initial=0.0))
        # scaled first, so that tiny influences to the fourth power do not vanish
        scaled = influence / largest if largest > 0 else influence
        fourth = float((scaled**4).sum())
        informative = float((scaled**2).sum()) ** 2 / fourth if fourth > 0 else 0.0
        return cls(float(np.mean(points)), patient, shared, training, t, informative, patients)

    @property
    def noise(self) -> float:
        """The part of the variance over trainings that comes from patients on whom single trainings differ."""
        return self.patient - self.shared

    @property
    def share(self) -> float:
        """Share of the patients' variance that trainings have in common."""
        return self.shared / self.patient if self.patient > 0 else 1.0


def leave_out_counts(patients: int) -> NDArray[np.int32]:
    """How often each patient counts while one patient, or one group of patients, is left out: int [g, p].

    Example:
        >>> leave_out_counts(3).tolist()
        [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    """
    groups = min(patients, MOST_LEFT_OUT)
    left_out = np.arange(patients) % groups
    return np.asarray(left_out[None] != np.arange(groups)[:, None]).astype(np.int32)


def estimate_spread(
    numbers: Sequence[Callable[[Resample], FloatArray]], patient_ids: Sequence[str], *, patients: int | None = None
) -> Spread | None:
    """The spread of a number of each training, by leaving out patients (jackknife; Tukey 1958, Efron & Stein 1981).

    Args:
        numbers: one a training: patients drawn in r replicates to values [r].
        patient_ids: of the rows, the same for all trainings.
        patients: behind the number, where fewer than all are.

    Returns:
        None where the number is not defined without some patient.
    """
    names, patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    once = Resample.draw_once(patient_ids)
    points = np.array([float(number(once)[0]) for number in numbers])
    without = Resample(leave_out_counts(names.size), patient, 0)
    left_out = np.stack([number(without) for number in numbers])
    if not (np.isfinite(points).all() and np.isfinite(left_out).all()):
        return None
    groups = left_out.shape[1]
    off = left_out.mean(axis=1, keepdims=True) - left_out
    covariance = (groups - 1) / groups * (off @ off.T)
    return Spread.from_points(points, covariance, off.mean(axis=0), names.size if patients is None else patients)
