"""When to hand a case to a reader: a confidence below a threshold that is fixed on validation.

Three confidences: the largest probability; DOCTOR (Granese et al. 2021), the sum of squared probabilities, in the order
of its rejection rule; energy (Liu et al. 2020), log sum exp of the logits, which needs the network's logits and knows
how far a picture is from what was trained on. With two classes the first two order cases alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from sightline.errors import RunError
from sightline.metrics.classification.estimates import estimate_score
from sightline.metrics.classification.scores import Accuracy
from sightline.metrics.classification.selective_prediction import compute_confidence
from sightline.metrics.estimate import BoolArray, Estimate, FloatArray
from sightline.metrics.predictions import Predictions
from sightline.structures.notation import Notation, write_fields

Kind = Literal["doctor", "top", "energy"]
KINDS: tuple[Kind, ...] = ("doctor", "top", "energy")
# what single precision leaves of the logarithm of a sum of 1
NO_ENERGY = 1e-5


@dataclass(frozen=True)
class Abstention:
    """A confidence below which no answer is given.

    Attributes:
        kind: `doctor`, `top` or `energy`.
        threshold: cases from this confidence on are answered.
        coverage: share of validation cases that were to be answered.
        chosen_on: what it was chosen on, and what was reached there.

    Raises:
        RunError: an unknown kind, or a threshold that is no number.
    """

    kind: Kind
    threshold: float
    coverage: float
    chosen_on: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be applied."""
        if self.kind not in KINDS or not math.isfinite(self.threshold):
            raise RunError(f"There is no abstention by {self.kind!r} at {self.threshold}; kinds: {', '.join(KINDS)}.")

    def answers(self, probabilities: FloatArray, energies: FloatArray | None = None) -> BoolArray:
        """Which cases are answered, bool [n], of probabilities [n, k] (and energies [n] for that kind).

        Raises:
            RunError: an energy is asked for and not given.
        """
        return np.asarray(compute_sureness(probabilities, self.kind, energies) >= self.threshold)

    def notation(self) -> Notation:
        """What the UIDs of results hold of it."""
        return write_fields(
            "Abstention", kind=self.kind, threshold=self.threshold, coverage=self.coverage, chosen_on=self.chosen_on
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON."""
        return {**asdict(self), "chosen_on": dict(self.chosen_on)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Abstention:
        """What `to_dict` gave.

        Raises:
            RunError: fields that are no abstention.
        """
        try:
            return cls(**fields)
        except TypeError as error:
            raise RunError(f"This is no saved abstention ({error}).", "Calibrate the run again.") from None


def compute_sureness(probabilities: FloatArray, kind: Kind, energies: FloatArray | None = None) -> FloatArray:
    """How sure a network is of each case, [n]; larger is surer.

    Raises:
        RunError: an energy is asked for and not given.
    """
    if kind == "energy":
        if energies is None:
            raise RunError(
                "Abstaining by energy needs the network's logits, which these predictions do not have.",
                "Predict again with this version, or abstain by doctor or top.",
            )
        return np.asarray(energies, dtype=np.float64)
    return compute_confidence(probabilities, kind)


def average_study_energies(predictions: Predictions, energies: FloatArray) -> FloatArray:
    """The mean energy over a study's images, in the order of `Predictions.study_wise`."""
    studies = list(dict.fromkeys(predictions.study_ids))
    place = {study: i for i, study in enumerate(studies)}
    index = np.array([place[study] for study in predictions.study_ids])
    total = np.bincount(index, weights=np.asarray(energies, dtype=np.float64))
    return np.asarray(total / np.bincount(index))


def choose_abstention(
    validation: Predictions,
    coverage: float,
    kind: Kind = "doctor",
    *,
    energies: FloatArray | None = None,
    where: str = "val",
) -> Abstention:
    """The threshold that answers at least a share of the validation cases.

    Args:
        validation: where it is chosen.
        coverage: share of the cases to be answered, more than 0 up to 1.
        kind: how sureness is measured.
        energies: [n], for `energy`.
        where: name of the validation set.

    Raises:
        RunError: a coverage that is no share, an energy that is not there, or energies that are all 0.
    """
    if not 0.0 < coverage <= 1.0:
        raise RunError(f"A coverage is more than 0 and at most 1; got {coverage}.")
    sure = np.sort(compute_sureness(validation.probabilities, kind, energies))[::-1]
    if kind == "energy" and np.abs(sure).max() < NO_ENERGY:
        raise RunError(
            "Every energy is 0: the logits are logarithms of probabilities (as those of an ensemble), which sum to 1.",
            "Abstain by doctor or top.",
        )
    threshold = float(sure[max(0, math.ceil(coverage * len(sure) - 1e-9) - 1)])
    kept = compute_sureness(validation.probabilities, kind, energies) >= threshold
    right = validation.probabilities.argmax(axis=1) == validation.labels
    reached = {"split": where, "unit": validation.unit, **validation.counts(), "answered": float(kept.mean())}
    reached["accuracy_of_the_answered"] = float(right[kept].mean())
    return Abstention(kind, threshold, coverage, reached)


def compute_abstention_estimates(
    predictions: Predictions,
    abstention: Abstention,
    *,
    energies: FloatArray | None = None,
) -> list[Estimate]:
    """How many cases are answered elsewhere, and how often right: the answered and the others.

    Raises:
        RunError: an energy is asked for and not given.
    """
    # who predicts does without
    from sightline.metrics.statistics.comparison import average_resampled, estimate_over_patients

    kept = abstention.answers(predictions.probabilities, energies)
    how = f"abstaining by {abstention.kind} below {abstention.threshold:.4g}"
    n = {**predictions.counts(), "answered": int(kept.sum())}
    answered = average_resampled(kept.astype(np.float64))
    found = [
        estimate_over_patients(
            f"share of cases answered, {how}",
            answered,
            predictions.patient_ids,
            n,
            what="fixed on validation",
            bounds=(0.0, 1.0),
        )
    ]
    for where, words in ((kept, "answered"), (~kept, "abstained")):
        name = f"accuracy of the {words}, {how}"
        if not where.any():
            found.append(Estimate(name, None, n=n, method="no accuracy", why=f"not defined: no case is {words}"))
            continue
        found.append(estimate_score([predictions.select(where)], Accuracy(name)))
    return found
