"""Does the network use what its map marks? Pixels are taken away, or put back, in the map's order.

Each number stands beside what a random order of the map's own cells gets, and the order of a centred Gaussian. They
are about the network, not about the disease: a map that is faithful to a network that looks at the wrong place is good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from sightline.errors import RunError
from sightline.metrics.estimate import Estimate, FloatArray
from sightline.metrics.faithfulness.perturbation import Picture, PixelRemoval, Predict, Subject, impute
from sightline.metrics.maps.score_table import describe_left_out
from sightline.metrics.statistics.comparison import average_resampled, estimate_over_patients

Baseline = Literal["mean", "blur", "black"]
SHARES = tuple(round(0.1 * i, 1) for i in range(1, 10))
BLUR = 5.0 / 224.0  # standard deviation over the shorter side: Petsiuk 2018 blurs 224 px with 5 px


@dataclass(frozen=True)
class Faithfulness:
    """One map's number beside those of orders that know nothing.

    Attributes:
        name: what was done.
        value: area under the curve over the share of pixels (deletion, insertion), or mean over shares (ROAD).
        chance: the mean of the same over random orders of the map's cells.
        centre: the same for a Gaussian at the centre.
        shares: share of the pixels taken away or put back at each point.
        values: what the network says of the class there.
        lower_is_better: whether a good map has a small value.
        untrained: the same for another map, that of a network with random weights, or None where none was given.
    """

    name: str
    value: float
    chance: float
    centre: float
    shares: tuple[float, ...]
    values: tuple[float, ...]
    lower_is_better: bool
    untrained: float | None = None

    @property
    def gain(self) -> float:
        """How much better than a random order; negative is worse."""
        return self._compute_gain(self.chance)

    @property
    def centre_gain(self) -> float:
        """How much better than a Gaussian at the centre; negative is worse."""
        return self._compute_gain(self.centre)

    @property
    def untrained_gain(self) -> float | None:
        """How much better than the untrained network's map, where it was given; negative is worse."""
        return None if self.untrained is None else self._compute_gain(self.untrained)

    def _compute_gain(self, other: float) -> float:
        return other - self.value if self.lower_is_better else self.value - other


def deletion(
    predict: Predict,
    image: ArrayLike,
    map: ArrayLike,
    class_index: int,
    *,
    steps: int = 32,
    baseline: Baseline = "mean",
    valid: ArrayLike | None = None,
    taking: PixelRemoval | None = None,
    untrained: ArrayLike | None = None,
) -> Faithfulness:
    """Pixels go, the most relevant first; a good map makes the network lose the class soon (Petsiuk 2018, algorithm 1).

    Args:
        predict: the network; with probabilities the area lies from 0 to 1.
        image: float [c, h, w], as the network takes it.
        map: float [a, b], of the same extent; resampled by area to the image where the shapes differ.
        class_index: whose probability is followed.
        steps: number of equal steps from the whole image to none of it.
        baseline: what goes in: the channel's mean, the blurred image, or 0.
        valid: bool [h, w]: pixels that belong to the image; only those are taken. None means all.
        taking: how orders are drawn; of several images, each by its own (`PixelRemoval.seed_case`).
        untrained: a map of a network with random weights, measured on `predict` too.

    Raises:
        GeometryError: shapes that do not fit, or a map or image that is not finite.
        RunError: no step, or predictions that are not [n, k] finite numbers.
    """
    subject = Subject.from_image(predict, image, map, class_index, valid, taking, untrained)
    away = fill_value(subject.image, baseline, subject.valid)

    def remove_pixels(gone: NDArray[np.bool_], _: int) -> FloatArray:
        return np.where(gone, away, subject.image)

    return _compare_with_chance("deletion", subject, _space_steps(steps), remove_pixels, lower_is_better=True)


def insertion(
    predict: Predict,
    image: ArrayLike,
    map: ArrayLike,
    class_index: int,
    *,
    steps: int = 32,
    baseline: Baseline = "blur",
    valid: ArrayLike | None = None,
    taking: PixelRemoval | None = None,
    untrained: ArrayLike | None = None,
) -> Faithfulness:
    """Pixels come into a blurred image, the most relevant first; a good map brings the class soon (Petsiuk 2018).

    Args and errors as in `deletion`.
    """
    subject = Subject.from_image(predict, image, map, class_index, valid, taking, untrained)
    start = fill_value(subject.image, baseline, subject.valid)

    def insert_pixels(here: NDArray[np.bool_], _: int) -> FloatArray:
        return np.where(here | ~subject.valid, subject.image, start)

    return _compare_with_chance("insertion", subject, _space_steps(steps), insert_pixels, lower_is_better=False)


def road(
    predict: Predict,
    image: ArrayLike,
    map: ArrayLike,
    class_index: int,
    *,
    order: Literal["MoRF", "LeRF"] = "MoRF",
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    valid: ArrayLike | None = None,
    taking: PixelRemoval | None = None,
    untrained: ArrayLike | None = None,
) -> Faithfulness:
    """Remove and debias (ROAD, Rong 2022): removed pixels are imputed from their neighbours, with noise.

    The value is the network's mean output over the shares. Most relevant first (MoRF): small is good; least relevant
    first (LeRF): large is good. (LeRF - MoRF) / 2 is the combined number of the `grad-cam` package.

    Args as in `deletion`, and:
        order: which pixels go first.
        shares: shares of the pixels to remove, each more than 0 and less than 1.
        noise: standard deviation of the noise, in units of the image.

    Raises:
        GeometryError, RunError: as in `deletion`; a share that is none.
    """
    if not shares or any(not 0.0 < share < 1.0 for share in shares):
        raise RunError(f"ROAD removes shares between 0 and 1; got {list(shares)}.")
    subject = Subject.from_image(predict, image, map, class_index, valid, taking, untrained)

    def impute_pixels(gone: NDArray[np.bool_], number: int) -> FloatArray:
        return impute(subject.image, gone, noise=noise, seed=subject.taking.seed + number)

    least = order == "LeRF"
    return _compare_with_chance(
        f"ROAD {order}", subject, tuple(shares), impute_pixels, lower_is_better=not least, reverse=least, area=False
    )


def fill_value(image: FloatArray, baseline: Baseline, valid: NDArray[np.bool_] | None = None) -> FloatArray:
    """What an image [c, h, w] is replaced with: its mean over the valid pixels, its blur, or 0.

    Raises:
        RunError: an unknown baseline.
    """
    if baseline == "black":
        return np.zeros_like(image)
    if baseline == "mean":
        inside = np.ones(image.shape[1:], dtype=bool) if valid is None else valid
        return np.broadcast_to(image[:, inside].mean(axis=1)[:, None, None], image.shape)
    if baseline == "blur":
        sigma = BLUR * min(image.shape[1:])
        return np.asarray(gaussian_filter(image, (0.0, sigma, sigma)))
    raise RunError(f"There is no baseline {baseline!r}; expected one of mean, blur, black.")


def _compare_with_chance(
    name: str,
    subject: Subject,
    shares: tuple[float, ...],
    picture: Picture,
    *,
    lower_is_better: bool,
    reverse: bool = False,
    area: bool = True,
) -> Faithfulness:
    """The map's number beside those of orders that know nothing: areas under the curves, or means of their points."""
    curves = subject.curves(shares, picture, reverse=reverse)
    numbers = [float(np.trapezoid(c, shares) if area else c.mean()) for c in curves]
    untrained = None if subject.untrained is None else numbers.pop()
    own, centre, *chance = numbers
    values = tuple(curves[0].tolist())
    return Faithfulness(name, own, float(np.mean(chance)), centre, shares, values, lower_is_better, untrained)


def _space_steps(steps: int) -> tuple[float, ...]:
    if steps < 1:
        raise RunError(f"A curve needs at least one step; got {steps}.")
    return tuple(i / steps for i in range(steps + 1))


@dataclass(frozen=True)
class FaithfulnessRow:
    """One map's faithfulness on one case.

    Attributes:
        case_id: the image.
        study_id: its study.
        patient_id: its patient.
        found: the number and its chance.
    """

    case_id: str
    study_id: str
    patient_id: str
    found: Faithfulness


def compute_faithfulness_report(rows: Sequence[FaithfulnessRow]) -> list[Estimate]:
    """Mean value of every measure and of its baselines, and the gain over each, with intervals over patients.

    Raises:
        RunError: no row.
    """
    if not rows:
        raise RunError("There is no faithfulness to report; expected at least one row.")
    report = []
    for name in dict.fromkeys(row.found.name for row in rows):
        kept = [row for row in rows if row.found.name == name]
        for label, column in (
            (name, "value"),
            (f"{name}, random order", "chance"),
            (f"{name}, centred Gaussian", "centre"),
            (f"{name}, untrained network", "untrained"),
            (f"{name}, better than a random order by", "gain"),
            (f"{name}, better than a centred Gaussian by", "centre_gain"),
            (f"{name}, better than an untrained network by", "untrained_gain"),
        ):
            having = [row for row in kept if (value := getattr(row.found, column)) is not None and isfinite(value)]
            if not having:
                if all(getattr(row.found, column) is None for row in kept):
                    continue  # nobody asked for it
                why = "not defined on any map: the network says no finite number"
                report.append(Estimate(label, None, n=_count_counts(kept), method="no interval", why=why))
                continue
            values = np.array([getattr(row.found, column) for row in having], dtype=np.float64)
            ids = [row.patient_id for row in having]
            what = describe_left_out(len(kept) - len(having))
            report.append(
                estimate_over_patients(label, average_resampled(values), ids, _count_counts(having), what=what)
            )
    return report


def _count_counts(rows: Sequence[FaithfulnessRow]) -> dict[str, int]:
    images, studies, patients = ({getattr(r, key) for r in rows} for key in ("case_id", "study_id", "patient_id"))
    return {"maps": len(rows), "images": len(images), "studies": len(studies), "patients": len(patients)}
