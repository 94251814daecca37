"""Does the network use what its map marks? Pixels are taken away, or put back, in the map's order.

Each number stands beside what a random order of the map's own cells gets, and the order of a centred Gaussian. They
are about the network, not about the disease: a map that is faithful to a network that looks at the wrong place is good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from sightline.errors import GeometryError, RunError
from sightline.measure.classification import FloatArray
from sightline.measure.estimate import Estimate
from sightline.measure.imputation import impute
from sightline.measure.map_agreement import resampled_by_area
from sightline.measure.map_score import centre_prior
from sightline.measure.resampled import mean_of, over_patients

Predict = Callable[[NDArray[np.float32]], ArrayLike]
"""Images float32 [n, c, h, w] to class probabilities (or logits) [n, k]."""

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
    """

    name: str
    value: float
    chance: float
    centre: float
    shares: tuple[float, ...]
    values: tuple[float, ...]
    lower_is_better: bool

    @property
    def gain(self) -> float:
        """How much better than a random order; negative is worse."""
        return self.chance - self.value if self.lower_is_better else self.value - self.chance


@dataclass(frozen=True)
class Taking:
    """How pixels are taken, shared by all measures.

    Attributes:
        orders: number of random orders that chance is the mean of.
        batch: images predicted at once.
        seed: of ties, random orders and noise.

    Raises:
        RunError: no order, or an empty batch.
    """

    orders: int = 3
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers below one."""
        if self.orders < 1 or self.batch < 1:
            raise RunError(f"Faithfulness needs 1 or more random orders and images; got {self.orders}, {self.batch}.")


def deletion(
    predict: Predict,
    image: ArrayLike,
    map: ArrayLike,
    class_index: int,
    *,
    steps: int = 32,
    baseline: Baseline = "mean",
    valid: ArrayLike | None = None,
    taking: Taking | None = None,
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
        taking: how orders are drawn.

    Raises:
        GeometryError: shapes that do not fit, or a map or image that is not finite.
        RunError: no step, or predictions that are not [n, k] finite numbers.
    """
    subject = _Subject.of(predict, image, map, class_index, valid, taking)
    away = filled(subject.image, baseline, subject.valid)

    def without(gone: NDArray[np.bool_], _: int) -> FloatArray:
        return np.where(gone, away, subject.image)

    return subject.measure("deletion", _steps(steps), without, lower_is_better=True)


def insertion(
    predict: Predict,
    image: ArrayLike,
    map: ArrayLike,
    class_index: int,
    *,
    steps: int = 32,
    baseline: Baseline = "blur",
    valid: ArrayLike | None = None,
    taking: Taking | None = None,
) -> Faithfulness:
    """Pixels come into a blurred image, the most relevant first; a good map brings the class soon (Petsiuk 2018).

    Args and errors as in `deletion`.
    """
    subject = _Subject.of(predict, image, map, class_index, valid, taking)
    start = filled(subject.image, baseline, subject.valid)

    def with_(here: NDArray[np.bool_], _: int) -> FloatArray:
        return np.where(here | ~subject.valid, subject.image, start)

    return subject.measure("insertion", _steps(steps), with_, lower_is_better=False)


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
    taking: Taking | None = None,
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
    subject = _Subject.of(predict, image, map, class_index, valid, taking)

    def without(gone: NDArray[np.bool_], number: int) -> FloatArray:
        return impute(subject.image, gone, noise=noise, seed=subject.taking.seed + number)

    least = order == "LeRF"
    return subject.measure(
        f"ROAD {order}", tuple(shares), without, lower_is_better=not least, reverse=least, area=False
    )


def filled(image: FloatArray, baseline: Baseline, valid: NDArray[np.bool_] | None = None) -> FloatArray:
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


def pixel_order(map: ArrayLike, valid: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """Flat indices of the valid pixels, the most relevant first.

    Ties fall by chance, whole cells of the map first: a flat map is a random order of its cells.

    Args:
        map: float [a, b], of the same extent as the image.
        valid: bool [h, w].
        random: breaks ties.
    """
    field = np.asarray(map, dtype=np.float64)
    values = field if field.shape == valid.shape else resampled_by_area(field, valid.shape)
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for old, new in zip(field.shape, valid.shape, strict=True)
    )
    cells = random.random(field.shape)[np.ix_(rows, columns)]
    order = np.lexsort((random.random(valid.size), cells.ravel(), -values.ravel()))
    return np.asarray(order[valid.ravel()[order]])


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


def faithfulness_report(rows: Sequence[FaithfulnessRow], *, replicates: int = 2000, seed: int = 0) -> list[Estimate]:
    """Mean value, chance, centred Gaussian and gain of every measure, with intervals over patients.

    Raises:
        RunError: no row.
    """
    if not rows:
        raise RunError("There is no faithfulness to report; expected at least one row.")
    report = []
    for name in dict.fromkeys(row.found.name for row in rows):
        kept = [row for row in rows if row.found.name == name]
        images, studies, patients = ({getattr(r, key) for r in kept} for key in ("case_id", "study_id", "patient_id"))
        counts = {"maps": len(kept), "images": len(images), "studies": len(studies), "patients": len(patients)}
        for label, column in (
            (name, "value"),
            (f"{name}, random order", "chance"),
            (f"{name}, centred Gaussian", "centre"),
            (f"{name}, better than a random order by", "gain"),
        ):
            values = np.array([getattr(row.found, column) for row in kept], dtype=np.float64)
            ids = [row.patient_id for row in kept]
            found = over_patients(
                label, mean_of(values), ids, counts, replicates=replicates, seed=seed, what="mean over maps"
            )
            report.append(found)
    return report


@dataclass(frozen=True)
class _Subject:
    """One image, one map, one network."""

    predict: Predict
    image: FloatArray
    map: FloatArray
    class_index: int
    valid: NDArray[np.bool_]
    taking: Taking

    @classmethod
    def of(
        cls,
        predict: Predict,
        image: ArrayLike,
        map: ArrayLike,
        class_index: int,
        valid: ArrayLike | None,
        taking: Taking | None,
    ) -> _Subject:
        pixels, field = np.asarray(image, dtype=np.float64), np.asarray(map, dtype=np.float64)
        inside = np.ones(pixels.shape[1:], dtype=bool) if valid is None else np.asarray(valid) > 0
        if pixels.ndim != 3 or field.ndim != 2 or 0 in field.shape or inside.shape != pixels.shape[1:]:
            raise GeometryError(
                f"Faithfulness needs an image [c, h, w] and a map [a, b]; got shapes {pixels.shape} and {field.shape}, "
                f"and an image area of shape {inside.shape}."
            )
        if not np.isfinite(pixels).all() or not np.isfinite(field).all() or not inside.any():
            raise GeometryError("An image or map is empty or holds NaN or infinite values.", "Check the training.")
        return cls(predict, pixels, field, class_index, inside, taking or Taking())

    def measure(
        self,
        name: str,
        shares: tuple[float, ...],
        picture: Callable[[NDArray[np.bool_], int], FloatArray],
        *,
        lower_is_better: bool,
        reverse: bool = False,
        area: bool = True,
    ) -> Faithfulness:
        """The map's curve, and those of orders that know nothing.

        Args:
            name: what is done.
            shares: points of the curve.
            picture: the image after the chosen pixels [h, w] were taken, at a point of the curve.
            lower_is_better: for the result.
            reverse: take the least relevant first.
            area: the value is the area under the curve; else the mean of its points.
        """
        random = np.random.default_rng(self.taking.seed)
        maps = [self.map, centre_prior(self.valid)]
        maps += [random.random(self.map.shape) for _ in range(self.taking.orders)]
        curves = []
        for field in maps:
            order = pixel_order(field, self.valid, random)
            curves.append(self._curve(order[::-1] if reverse else order, shares, picture))
        numbers = [float(np.trapezoid(c, shares) if area else c.mean()) for c in curves]
        return Faithfulness(
            name,
            numbers[0],
            float(np.mean(numbers[2:])),
            numbers[1],
            shares,
            tuple(curves[0].tolist()),
            lower_is_better,
        )

    def _curve(
        self,
        order: NDArray[np.int64],
        shares: Sequence[float],
        picture: Callable[[NDArray[np.bool_], int], FloatArray],
    ) -> FloatArray:
        values = []
        for start in range(0, len(shares), self.taking.batch):
            block = []
            for number, share in enumerate(shares[start : start + self.taking.batch], start=start):
                chosen = np.zeros(self.valid.size, dtype=bool)
                chosen[order[: round(share * order.size)]] = True
                block.append(picture(chosen.reshape(self.valid.shape), number))
            said = np.asarray(self.predict(np.stack(block).astype(np.float32)), dtype=np.float64)
            if said.ndim != 2 or len(said) != len(block) or not 0 <= self.class_index < said.shape[1]:
                raise RunError(
                    f"The network said {said.shape} of {len(block)} images; expected one row an image, and a class "
                    f"{self.class_index}."
                )
            if not np.isfinite(said[:, self.class_index]).all():
                raise RunError("The network said NaN or infinite values of an image.", "Check the training.")
            values.append(said[:, self.class_index])
        return np.concatenate(values)


def _steps(steps: int) -> tuple[float, ...]:
    if steps < 1:
        raise RunError(f"A curve needs at least one step; got {steps}.")
    return tuple(i / steps for i in range(steps + 1))
