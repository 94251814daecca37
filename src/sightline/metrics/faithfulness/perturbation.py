"""What a network says of an image while its pixels are taken in a map's order: the curves of deletion and insertion."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from sightline.errors import GeometryError, RunError
from sightline.metrics.estimate import FloatArray
from sightline.metrics.maps.saliency import resample_by_area
from sightline.metrics.maps.score import draw_centre_prior

Predict = Callable[[NDArray[np.float32]], ArrayLike]
"""Images float32 [n, c, h, w] to class probabilities (or logits) [n, k]."""

Picture = Callable[[NDArray[np.bool_], int], FloatArray]
"""Chosen pixels [h, w], at a point of a curve, to the image [c, h, w] after they were taken."""


@dataclass(frozen=True)
class PixelRemoval:
    """How pixels are taken, shared by all measures.

    Attributes:
        orders: number of random orders that chance is the mean of.
        batch: images predicted at once.
        seed: of ties, random orders and noise of one image; of several images, each needs its own (`seed_case`).

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

    def seed_case(self, case_id: str) -> PixelRemoval:
        """The same with a seed of the case's own, which depends on `seed` and the case's id alone.

        One order for all images would be one draw, however many images there are: its luck would not average out, and
        no interval over patients would know of it.
        """
        digest = hashlib.sha256(f"faithfulness {self.seed} {case_id}".encode()).digest()
        return replace(self, seed=int.from_bytes(digest[:8], "big"))


def rank_pixels(map: ArrayLike, valid: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """Flat indices of the valid pixels, the most relevant first.

    Ties fall by chance, whole cells of the map first: a flat map is a random order of its cells.

    Args:
        map: float [a, b], of the same extent as the image.
        valid: bool [h, w].
        random: breaks ties.
    """
    field = np.asarray(map, dtype=np.float64)
    values = field if field.shape == valid.shape else resample_by_area(field, valid.shape)
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for old, new in zip(field.shape, valid.shape, strict=True)
    )
    cells = random.random(field.shape)[np.ix_(rows, columns)]
    order = np.lexsort((random.random(valid.size), cells.ravel(), -values.ravel()))
    return np.asarray(order[valid.ravel()[order]])


@dataclass(frozen=True)
class Subject:
    """One image, one map, one network.

    Attributes:
        predict: the network.
        image: float64 [c, h, w].
        map: float64 [a, b], of the same extent.
        class_index: whose probability is followed.
        valid: bool [h, w], pixels that belong to the image.
        taking: how orders are drawn.
        untrained: float64 [a', b'], a map of a network with random weights, or None.
    """

    predict: Predict
    image: FloatArray
    map: FloatArray
    class_index: int
    valid: NDArray[np.bool_]
    taking: PixelRemoval
    untrained: FloatArray | None = None

    @classmethod
    def from_image(
        cls,
        predict: Predict,
        image: ArrayLike,
        map: ArrayLike,
        class_index: int,
        valid: ArrayLike | None,
        taking: PixelRemoval | None,
        untrained: ArrayLike | None = None,
    ) -> Subject:
        """A subject whose shapes fit.

        Raises:
            GeometryError: they do not, or an image or map is not finite.
        """
        pixels, field = np.asarray(image, dtype=np.float64), np.asarray(map, dtype=np.float64)
        inside = np.ones(pixels.shape[1:], dtype=bool) if valid is None else np.asarray(valid) > 0
        if pixels.ndim != 3 or field.ndim != 2 or 0 in field.shape or inside.shape != pixels.shape[1:]:
            raise GeometryError(
                f"Faithfulness needs an image [c, h, w] and a map [a, b]; got shapes {pixels.shape} and {field.shape}, "
                f"and an image area of shape {inside.shape}."
            )
        if not np.isfinite(pixels).all() or not np.isfinite(field).all() or not inside.any():
            raise GeometryError("An image or map is empty or holds NaN or infinite values.", "Check the training.")
        other = None if untrained is None else np.asarray(untrained, dtype=np.float64)
        if other is not None and (other.ndim != 2 or not np.isfinite(other).all()):
            raise GeometryError(f"The untrained network's map, of shape {other.shape}, is no finite map [a, b].")
        return cls(predict, pixels, field, class_index, inside, taking or PixelRemoval(), other)

    def curves(self, shares: Sequence[float], picture: Picture, *, reverse: bool = False) -> list[FloatArray]:
        """The map's curve, the centred Gaussian's, those of random orders, and the untrained map's where there is one.

        Each is [len(shares)].

        Args:
            shares: of the pixels taken, at each point.
            picture: what becomes of the image.
            reverse: take the least relevant first.

        Raises:
            RunError: predictions that are not [n, k] finite numbers.
        """
        random = np.random.default_rng(self.taking.seed)
        maps = [self.map, draw_centre_prior(self.valid)]
        maps += [random.random(self.map.shape) for _ in range(self.taking.orders)]
        maps += [] if self.untrained is None else [self.untrained]
        curves = []
        for field in maps:
            order = rank_pixels(field, self.valid, random)
            curves.append(self._compute_curve(order[::-1] if reverse else order, shares, picture))
        return curves

    def _compute_curve(self, order: NDArray[np.int64], shares: Sequence[float], picture: Picture) -> FloatArray:
        values = []
        for start in range(0, len(shares), self.taking.batch):
            block = []
            for number, share in enumerate(shares[start : start + self.taking.batch], start=start):
                chosen = np.zeros(self.valid.size, dtype=bool)
                chosen[order[: round(share * order.size)]] = True
                block.append(picture(chosen.reshape(self.valid.shape), number))
            probabilities = np.asarray(self.predict(np.stack(block).astype(np.float32)), dtype=np.float64)
            if (
                probabilities.ndim != 2
                or len(probabilities) != len(block)
                or not 0 <= self.class_index < probabilities.shape[1]
            ):
                raise RunError(
                    f"The network said {probabilities.shape} of {len(block)} images; expected one row an image, and a "
                    f"class {self.class_index}."
                )
            if not np.isfinite(probabilities[:, self.class_index]).all():
                raise RunError("The network said NaN or infinite values of an image.", "Check the training.")
            values.append(probabilities[:, self.class_index])
        return np.concatenate(values)


# neighbours beside count twice those across a corner, and all sum to one (Rong 2022, figure 6)
_NEIGHBOURS = tuple(
    (row, column, 1.0 / 6.0 if row * column == 0 else 1.0 / 12.0)
    for row in (-1, 0, 1)
    for column in (-1, 0, 1)
    if (row, column) != (0, 0)
)


def impute(image: ArrayLike, removed: ArrayLike, *, noise: float = 0.01, seed: int = 0) -> FloatArray:
    """Every removed pixel becomes the weighted mean of its neighbours, removed ones included, plus Gaussian noise.

    The means are solved for together. What was taken out leaves no edge that a network could read. An image of which
    nothing is left becomes its mean.

    Args:
        image: float [c, h, w].
        removed: bool [h, w].
        noise: standard deviation of the noise, in units of the image (of an image in 0 to 1: 0.01, as published).
        seed: of the noise.

    Raises:
        GeometryError: shapes that do not fit.
    """
    pixels, gone = np.asarray(image, dtype=np.float64), np.asarray(removed) > 0
    if pixels.ndim != 3 or pixels.shape[1:] != gone.shape:
        raise GeometryError(f"An image of shape {pixels.shape} has no pixels of a mask of shape {gone.shape}.")
    filled = pixels.copy()
    count = int(gone.sum())
    if count == 0:
        return filled
    if gone.all():
        solved = np.repeat(pixels.mean(axis=(1, 2))[None], count, axis=0)
    else:
        solved = _solve(pixels, gone)
    filled[:, gone] = solved.T
    if noise > 0:
        filled[:, gone] += noise * np.random.default_rng(seed).standard_normal((len(pixels), count))
    return filled


def _solve(pixels: FloatArray, gone: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> FloatArray:
    """Values of the removed pixels [count, c] from one sparse system."""
    height, width = gone.shape
    number = np.full(gone.shape, -1)
    where_row, where_column = np.nonzero(gone)
    count = len(where_row)
    number[where_row, where_column] = np.arange(count)
    total, known = np.zeros(count), np.zeros((count, len(pixels)))
    rows, columns, values = [], [], []
    for down, right, weight in _NEIGHBOURS:
        row, column = where_row + down, where_column + right
        on_image = (row >= 0) & (column >= 0) & (row < height) & (column < width)
        total += weight * on_image
        equation = np.flatnonzero(on_image)
        unknown = number[row[equation], column[equation]]
        open_, given = equation[unknown >= 0], equation[unknown < 0]
        rows.append(open_)
        columns.append(unknown[unknown >= 0])
        values.append(np.full(len(open_), -weight))
        known[given] += weight * pixels[:, row[given], column[given]].T
    rows.append(np.arange(count))
    columns.append(np.arange(count))
    values.append(total)
    system = csc_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (count, count))
    # neighbours are mutual and the diagonal dominates: no pivoting, else the factors of a large image fill up
    factors = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    solved: FloatArray = factors.solve(known)
    return solved
