"""What lies where in a picture: refuses pictures that are turned, and others that are laid out unlike the training's.

The features check averages over cells and cannot see this. Here a picture is reduced to 64 x 64 cells, whatever its
network sees, and described by 16 x 16 standardised means and by histograms of the direction of its edges (Dalal and
Triggs 2005, but with signed directions: unsigned ones look the same upside down, which is why skimage's are not used).
A linear discriminant between the training pictures as they are, mirrored or not, and the same turned by 90, 180 and 270
degrees says how upright a picture is; the limit is set on validation pictures. Where training pictures lie in all
directions the discriminant says nothing, and there is no such check.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import RunError, count_noun
from sightline.inference.gate.gate_file import pack_array, unpack_array
from sightline.io.picture import Picture

SIDE, MEANS, CELLS, DIRECTIONS = 64, 16, 6, 8
LENGTH = MEANS * MEANS + CELLS * CELLS * DIRECTIONS
TURNS = (90, 180, 270)
ACCEPTED = 0.995
# a check that refuses fewer of the turned validation pictures is not worth the good ones that it costs
LEAST_REFUSED = 0.5
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayoutLimits:
    """How upright training pictures are.

    Attributes:
        weights, offsets: [3, d] and [3], of the discriminant from each turn; greater is more upright.
        middle, limit: of the least of the three: its mean on validation pictures, and the least that passes.
        refused: share of validation pictures refused, by the degrees that they are turned.
        validation: how many validation pictures the limit was set on.
    """

    weights: Floats
    offsets: Floats
    middle: float
    limit: float
    refused: Mapping[str, float]
    validation: int

    def score(self, picture: Picture) -> float:
        """How unlike an upright training picture a picture is laid out; above 1 it is outside."""
        least = compute_uprightness(describe_layout(reduce_picture(picture)), self.weights, self.offsets)[0]
        return float((self.middle - least) / (self.middle - self.limit))

    def to_plain(self) -> dict[str, Any]:
        """As it stands in gate.json."""
        arrays = {name: pack_array(getattr(self, name)) for name in ("weights", "offsets")}
        numbers = {"middle": self.middle, "limit": self.limit, "validation": self.validation, "accepted": ACCEPTED}
        return {**arrays, **numbers, "refused": dict(self.refused)}


def reduce_picture(picture: Picture) -> Floats:
    """A picture of any size as 64 x 64 means of grey in 0..1."""
    from skimage.transform import resize_local_mean

    pixels = picture.pixels if picture.pixels.ndim == 2 else picture.pixels.mean(axis=2)
    step = max(1, max(pixels.shape) // 512)
    grey = np.asarray(pixels[::step, ::step], dtype=np.float64) / np.iinfo(picture.pixels.dtype).max
    return np.asarray(resize_local_mean(grey, (SIDE, SIDE), preserve_range=True), dtype=np.float64)


def describe_layout(reduced: NDArray[Any]) -> Floats:
    """Descriptions [n, 544] of reduced pictures [n, 64, 64], or of one [64, 64].

    Example:
        >>> describe_layout(np.zeros((64, 64))).shape
        (1, 544)
    """
    grey = np.asarray(reduced, dtype=np.float64).reshape(-1, SIDE, SIDE)
    n, block = len(grey), SIDE // MEANS
    means = grey.reshape(n, MEANS, block, MEANS, block).mean(axis=(2, 4)).reshape(n, -1)
    means = (means - means.mean(axis=1, keepdims=True)) / (means.std(axis=1, keepdims=True) + 1e-6)
    down, right = np.zeros_like(grey), np.zeros_like(grey)
    down[:, 1:-1], right[:, :, 1:-1] = grey[:, 2:] - grey[:, :-2], grey[:, :, 2:] - grey[:, :, :-2]
    strength = np.hypot(down, right)
    direction = np.arctan2(down, right) / (2.0 * np.pi) * DIRECTIONS % DIRECTIONS
    lower = np.floor(direction).astype(int) % DIRECTIONS
    beyond = direction - np.floor(direction)
    # each edge goes to the two directions next to its own, and to the cell that it lies in
    starts = [math.ceil(cell * SIDE / CELLS) for cell in range(CELLS)]
    edges = np.empty((n, CELLS, CELLS, DIRECTIONS))
    for one in range(DIRECTIONS):
        share = strength * ((lower == one) * (1.0 - beyond) + ((lower + 1) % DIRECTIONS == one) * beyond)
        edges[..., one] = np.add.reduceat(np.add.reduceat(share, starts, axis=1), starts, axis=2)
    lengths = np.linalg.norm(edges, axis=3, keepdims=True)
    # a cell without edges must not become one of noise
    edges = edges / (lengths + 0.05 * lengths.mean(axis=(1, 2), keepdims=True) + 1e-9)
    # both parts weigh about the same
    return np.concatenate([means / MEANS, edges.reshape(n, -1) / CELLS], axis=1)


def compute_uprightness(descriptions: Floats, weights: Floats, offsets: Floats) -> Floats:
    """The least of the discriminants [n] of descriptions [n, d]: upright pictures are far from every turn."""
    return np.asarray((descriptions @ weights.T + offsets).min(axis=1))


def fit_layout(training: NDArray[Any], validation: NDArray[Any]) -> LayoutLimits:
    """The check from reduced training [n, 64, 64] and validation [m, 64, 64] pictures.

    The limit leaves 99.5% of upright pictures inside: the order statistic of the validation pictures where there are
    200 of them, and not above what a normal distribution of their scores predicts for the next one (which is below the
    least of few). Where that is on the upright side of the discriminant, the limit is halfway to its boundary (0):
    there is room, and no good picture need be lost.

    Raises:
        RunError: fewer than 20 training or 10 validation pictures, or training pictures that lie in all directions: the
            discriminant refuses less than half of the turned validation pictures.
    """
    from scipy.stats import t as students_t
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if len(training) < 20 or len(validation) < 10:
        raise RunError(
            f"{len(training)} training and {count_noun(len(validation), 'validation picture')}; "
            "the layout check needs 20 and 10.",
            "Give a cohort with more pictures.",
        )
    upright = describe_layout(_add_mirrored(training))
    found = []
    for turn in TURNS:
        turned = describe_layout(_add_mirrored(turn_by(training, turn)))
        known = np.concatenate([upright, turned])
        # shrunk after Ledoit and Wolf: there are more numbers in a description than pictures
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        model.fit(known, np.repeat([1, 0], [len(upright), len(turned)]))
        found.append((model.coef_[0], float(model.intercept_[0])))
    # what is stored is what is measured with
    weights, offsets = (np.array(x).astype(np.float32).astype(np.float64) for x in zip(*found, strict=True))
    scores = np.sort(compute_uprightness(describe_layout(validation), weights, offsets))
    n, middle = len(scores), float(scores.mean())
    ahead = students_t.ppf(ACCEPTED, n - 1) * math.sqrt(1.0 + 1.0 / n) * float(scores.std(ddof=1))
    limit = min(middle - float(ahead), float(scores[max(0, math.floor((1.0 - ACCEPTED) * (n + 1)) - 1)]))
    limit = min(limit, limit / 2.0)
    refused = {}
    for turn in TURNS:
        turned = compute_uprightness(describe_layout(turn_by(validation, turn)), weights, offsets)
        refused[str(turn)] = float((turned < limit).mean())
    if not middle > limit or min(refused.values()) < LEAST_REFUSED:
        raise RunError(
            "the training pictures lie in all directions, or look alike in them (refused of the turned ones: "
            + ", ".join(f"{share:.0%} at {turn} degrees" for turn, share in refused.items())
            + ")",
            "Nothing is wrong: a turned picture cannot be told in such a cohort.",
        )
    return LayoutLimits(weights, offsets, middle, limit, refused, n)


def turn_by(pictures: NDArray[Any], degrees: int) -> NDArray[Any]:
    """Pictures [n, r, c] turned counter-clockwise by a multiple of 90 degrees."""
    return np.rot90(pictures, degrees // 90, axes=(1, 2))


def read_layout_limits(plain: Mapping[str, Any]) -> LayoutLimits | None:
    """The layout check of a gate, or None where it was not made.

    Raises:
        RunError: it is damaged.
    """
    if not plain:
        return None
    try:
        weights, offsets = unpack_array(plain["weights"]), unpack_array(plain["offsets"])
        middle, limit = float(plain["middle"]), float(plain["limit"])
        refused = {str(turn): float(share) for turn, share in plain["refused"].items()}
        if weights.shape != (len(TURNS), LENGTH) or offsets.shape != (len(TURNS),) or not middle > limit:
            raise ValueError("numbers that do not belong together")
        return LayoutLimits(weights, offsets, middle, limit, refused, int(plain["validation"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        remedy = "Make it again: sightline gate RUN --cohort DIR"
        raise RunError(f"gate.json: its layout is damaged ({error!r:.160}).", remedy) from None


def check_layout(picture: Picture, limits: LayoutLimits | None) -> str:
    """Why a picture is laid out unlike those of the training, or an empty text where it is not."""
    if limits is None:
        return ""
    score = limits.score(picture)
    if score <= 1.0:
        return ""
    return f"laid out unlike the training pictures: turned, or of something else (score {score:.2f}, at most 1)"


def _add_mirrored(pictures: NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
    """Pictures and their mirror images: of the other hand."""
    every = np.asarray(pictures)
    return np.concatenate([every, every[:, :, ::-1]])
