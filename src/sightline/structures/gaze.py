"""Where a reader looked: gaze as a region, drawn as a density on any grid.

The density is a sum of Gaussians around the gaze points. On a frame whose axes are parallel to those of the source it
is separable and is computed exactly on the requested grid: no full-size histogram, no truncated kernel, no resampling
(steps 1 to 4 of algorithm 1 in Zhu 2022 approximate it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError
from sightline.structures.frame import FloatArray, Frame
from sightline.structures.tag import Tag

Weigh = Literal["count", "dwell"]
# nobody looks at one place for an hour: such a time was written wrongly, and would outweigh all others
LONGEST_DWELL_S = 3600.0


@dataclass(frozen=True, eq=False)
class Gaze:
    """Eye-tracker samples or fixations of one reader on one image.

    Attributes:
        places: [n, 2] (row, column) in source pixels, origin at the corner of pixel (0, 0); may be outside the image.
        start_s: [n] seconds since the image appeared, in ascending order.
        dwell_s: [n] duration of each place in seconds: the time between samples, or of the fixation.
        kind: `samples` or `fixations`.
        px_per_deg: source pixels per degree of visual angle, or None if the geometry is unknown.
        spread_px: standard deviation, in source pixels, of the Gaussian that `draw` puts on each place.
        tag: role `gaze`, and the reader.

    Example:
        >>> points, seconds = np.array([[8.0, 8.0], [8.0, 9.0]]), np.array([0.5, 0.5])
        >>> gaze = Gaze(points, np.array([0.0, 0.5]), seconds, spread_px=2.0, tag=Tag("gaze"))
        >>> gaze.draw(Frame.of_image((16, 16))).shape
        (16, 16)
    """

    places: FloatArray
    start_s: FloatArray
    dwell_s: FloatArray
    kind: Literal["samples", "fixations"] = "samples"
    px_per_deg: float | None = None
    spread_px: float = 75.0
    tag: Tag = field(default_factory=lambda: Tag(role="gaze"))

    def __post_init__(self) -> None:
        """Convert to read-only float64 arrays; refuse invalid gaze."""
        for name in ("places", "start_s", "dwell_s"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array = array.reshape(-1, 2) if name == "places" and array.size == 0 else array
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        n = len(self.places)
        if self.places.shape != (n, 2) or self.start_s.shape != (n,) or self.dwell_s.shape != (n,):
            raise GeometryError(
                f"Gaze needs places [n, 2], start_s [n] and dwell_s [n]; got {self.places.shape}, "
                f"{self.start_s.shape} and {self.dwell_s.shape}."
            )
        if not all(np.isfinite(a).all() for a in (self.places, self.start_s, self.dwell_s)):
            raise GeometryError("Gaze holds a place or time that is no finite number.", "Leave lost samples out.")
        if (self.dwell_s < 0.0).any() or (np.diff(self.start_s) < 0.0).any():
            raise GeometryError(
                "Gaze runs backwards: a dwell time is negative or the starts are not in order.",
                "Sort the samples by time.",
            )
        if (self.dwell_s > LONGEST_DWELL_S).any():
            raise GeometryError(
                f"Gaze rests at one place for {self.dwell_s.max():g} s; at most {LONGEST_DWELL_S:g} s can be.",
                "Check the times, and whether they are in seconds.",
            )
        for name, value in (("spread_px", self.spread_px), ("px_per_deg", self.px_per_deg)):
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise GeometryError(f"A gaze's {name} must be a positive length; got {value}.")

    @property
    def numbers(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Places, starts and dwell times."""
        return self.places, self.start_s, self.dwell_s

    def __len__(self) -> int:
        """Number of samples or fixations."""
        return len(self.places)

    def __eq__(self, other: object) -> bool:
        """Equal numbers and tag."""
        return (
            isinstance(other, Gaze)
            and (self.kind, self.px_per_deg, self.spread_px, self.tag)
            == (other.kind, other.px_per_deg, other.spread_px, other.tag)
            and all(np.array_equal(a, b) for a, b in zip(self.numbers, other.numbers, strict=True))
        )

    def __hash__(self) -> int:
        """Hash of tag and length."""
        return hash((self.tag, self.kind, len(self)))

    def between(self, start_s: float, stop_s: float) -> Gaze:
        """The places that start in [start_s, stop_s), for temporal maps."""
        return self._select((self.start_s >= start_s) & (self.start_s < stop_s))

    def inside(self, shape: Sequence[int]) -> Gaze:
        """The places inside an image of (rows, columns)."""
        return self._select(np.asarray(((self.places >= 0.0) & (self.places < np.array(shape))).all(axis=1)))

    def _select(self, keep: NDArray[np.bool_]) -> Gaze:
        return replace(self, places=self.places[keep], start_s=self.start_s[keep], dwell_s=self.dwell_s[keep])

    def density(
        self,
        frame: Frame,
        sigma_px: float | None = None,
        *,
        weigh: Weigh = "dwell",
        cell: Literal["area", "point"] = "area",
    ) -> NDArray[np.float32]:
        """Gaze per source pixel on a grid: float32 [*frame.shape]; zeros if there are no places.

        Where a rotated frame scales its axes differently, the Gaussians have the mean scale.

        Args:
            frame: the grid.
            sigma_px: standard deviation in source pixels; None takes `spread_px`.
            weigh: weight of each place: 1 (`count`) or its dwell time (`dwell`). With a constant sampling rate both
                are the same.
            cell: the mean over a cell's `area`, or the value at its centre (`point`), as in the published code.

        Raises:
            GeometryError: the frame does not have two axes, or sigma is not positive.
        """
        sigma = self.spread_px if sigma_px is None else sigma_px
        if frame.ndim != 2 or not (math.isfinite(sigma) and sigma > 0.0):
            raise GeometryError(f"Gaze is drawn on two axes with a positive sigma; got {frame.ndim} and {sigma}.")
        if len(self) == 0:
            return np.zeros(frame.shape, dtype=np.float32)
        linear = frame.to_source[:2, :2]
        diagonal = np.count_nonzero(linear) == 2 and linear[0, 0] != 0.0 and linear[1, 1] != 0.0
        # source pixels a cell is long on each axis
        scale = np.abs(np.diag(linear)) if diagonal else np.full(2, math.sqrt(abs(float(np.linalg.det(linear)))))
        middles = frame.unmap_points(self.places)
        rows, columns = (
            _compute_profile(middles[:, axis], sigma / scale[axis], frame.shape[axis], cell) / scale[axis]
            for axis in (0, 1)
        )
        weights = self.dwell_s if weigh == "dwell" else np.ones(len(self))
        density: NDArray[np.float32] = ((rows * weights) @ columns.T).astype(np.float32)
        return density

    def draw(self, frame: Frame) -> NDArray[np.float32]:
        """The density at `spread_px`, scaled to a maximum of 1 on the grid; zeros if there are no places."""
        return scale_density(self.density(frame))


def scale_density(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """A density scaled to a maximum of 1; all zeros stay zeros."""
    top = float(density.max(initial=0.0))
    return density / np.float32(top) if top > 0.0 else density


def merge_gazes(gazes: Sequence[Gaze]) -> Gaze:
    """Merge several readers' gaze on one image, in order of time.

    Raises:
        GeometryError: nothing to merge, or samples mixed with fixations.
    """
    if not gazes or len({gaze.kind for gaze in gazes}) > 1:
        raise GeometryError(f"Cannot merge {len(gazes)} gazes of kinds {sorted({g.kind for g in gazes})}.")
    start = np.concatenate([gaze.start_s for gaze in gazes])
    order = np.argsort(start, kind="stable")
    readers = "+".join(dict.fromkeys(gaze.tag.reader for gaze in gazes if gaze.tag.reader))
    return replace(
        gazes[0],
        places=np.concatenate([gaze.places for gaze in gazes])[order],
        start_s=start[order],
        dwell_s=np.concatenate([gaze.dwell_s for gaze in gazes])[order],
        tag=replace(gazes[0].tag, reader=readers),
    )


def compute_sigma(kernel_px: int) -> float:
    """The standard deviation OpenCV takes for a Gaussian kernel size (made odd) when none is given.

    The code released with Zhu 2022 passes its "standard deviation" B as this size: 500 means 75.5 px.
    """
    if kernel_px < 1:
        raise GeometryError(f"A kernel has at least one pixel; got {kernel_px}.")
    odd = kernel_px + 1 - kernel_px % 2
    return 0.3 * ((odd - 1) / 2.0 - 1.0) + 0.8


def _compute_profile(middles: FloatArray, sigma: float, n: int, cell: Literal["area", "point"]) -> FloatArray:
    """Gaussians of standard deviation `sigma` cells on n cells of an axis: [n, number of middles]; sums to 1."""
    from scipy.special import ndtr

    if cell == "area":
        edges = (np.arange(n + 1)[:, None] - middles) / sigma
        profile: FloatArray = np.diff(ndtr(edges), axis=0)
        return profile
    off = (np.arange(n)[:, None] + 0.5 - middles) / sigma
    point: FloatArray = np.exp(-0.5 * off**2) / (sigma * math.sqrt(2.0 * math.pi))
    return point
