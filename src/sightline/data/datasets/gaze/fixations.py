"""Fixations found in a tracker's samples: by velocity (I-VT) and by dispersion (I-DT), Salvucci and Goldberg 2000.

Thresholds are in degrees of visual angle; where nobody knows how many pixels a degree is, thresholds in source pixels
must be given. Lost samples (blinks, closed lids) are not in a Gaze: a gap between two samples ends a fixation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError, LayoutError
from sightline.structures.frame import FloatArray
from sightline.structures.gaze import Gaze

Span = tuple[int, int]


@dataclass(frozen=True)
class ByVelocity:
    """I-VT: samples whose eyes move slower than a threshold are a fixation (Salvucci and Goldberg 2000, table 2).

    Velocity is measured over a window around each sample, at least from the sample before it (from the first sample of
    a run: to the next): between neighbours of a fast tracker, noise alone would look like a saccade.

    Attributes:
        velocity_deg_per_s: threshold in degrees a second.
        velocity_px_per_s: threshold in source pixels a second, for gaze without a known geometry.
        window_s: over which velocity is measured.
        least_s: shorter fixations are no fixations.
        gap_s: two samples further apart belong to different fixations.
    """

    velocity_deg_per_s: float = 30.0
    velocity_px_per_s: float | None = None
    window_s: float = 0.02
    least_s: float = 0.06
    gap_s: float = 0.075

    def __call__(self, gaze: Gaze) -> Gaze:
        """The fixations of a gaze's samples: centroid, start, duration.

        Raises:
            GeometryError: not samples, or no threshold in pixels where the geometry is not known.
        """
        limit = _convert_to_pixels(gaze, self.velocity_deg_per_s, self.velocity_px_per_s, "velocity_px_per_s")
        spans: list[Span] = []
        for start, stop in _find_runs(gaze.start_s, self.gap_s):
            slow = _compute_velocity(gaze.places[start:stop], gaze.start_s[start:stop], self.window_s) <= limit
            edges = np.flatnonzero(np.diff(np.concatenate([[False], slow, [False]]).astype(np.int8)))
            spans += [(start + int(a), start + int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        return _build_fixations(gaze, [span for span in spans if _compute_duration(gaze, span) >= self.least_s])


@dataclass(frozen=True)
class ByDispersion:
    """I-DT: samples that stay together for long enough are a fixation (Salvucci and Goldberg 2000, table 4).

    Dispersion is the range of rows plus the range of columns. A window may begin in the tail of a saccade; with a fast
    and noisy tracker a fixation then falls into two: take `ByVelocity` there.

    Attributes:
        dispersion_deg: threshold in degrees.
        dispersion_px: threshold in source pixels, for gaze without a known geometry.
        least_s: shorter fixations are no fixations.
        gap_s: two samples further apart belong to different fixations.
    """

    dispersion_deg: float = 1.0
    dispersion_px: float | None = None
    least_s: float = 0.1
    gap_s: float = 0.075

    def __call__(self, gaze: Gaze) -> Gaze:
        """The fixations of a gaze's samples: centroid, start, duration.

        Raises:
            GeometryError: not samples, or no threshold in pixels where the geometry is not known.
        """
        limit = _convert_to_pixels(gaze, self.dispersion_deg, self.dispersion_px, "dispersion_px")
        spans: list[Span] = []
        for run in _find_runs(gaze.start_s, self.gap_s):
            spans += self._iterate_run(gaze, run, limit)
        return _build_fixations(gaze, spans)

    def _iterate_run(self, gaze: Gaze, run: Span, limit: float) -> Iterator[Span]:
        start, end = run
        stops = gaze.start_s + gaze.dwell_s
        while start < end:
            # the shortest window from here that lasts long enough
            stop = start + 1
            while stop < end and stops[stop - 1] - gaze.start_s[start] < self.least_s:
                stop += 1
            if stops[stop - 1] - gaze.start_s[start] < self.least_s:
                return
            window = gaze.places[start:stop]
            low, high = window.min(axis=0), window.max(axis=0)
            if float((high - low).sum()) > limit:
                start += 1
                continue
            while stop < end:
                lower, higher = np.minimum(low, gaze.places[stop]), np.maximum(high, gaze.places[stop])
                if float((higher - lower).sum()) > limit:
                    break
                low, high, stop = lower, higher, stop + 1
            yield start, stop
            start = stop


Detector = ByVelocity | ByDispersion


def _convert_to_pixels(gaze: Gaze, degrees: float, pixels: float | None, name: str) -> float:
    """A threshold in source pixels."""
    if gaze.kind != "samples":
        raise GeometryError("Fixations are found in samples; this gaze holds fixations already.")
    if pixels is not None:
        return pixels
    if gaze.px_per_deg is None:
        raise GeometryError(
            "The threshold is in degrees, but the gaze does not say how many pixels a degree is.",
            f"State the screen's size and distance on import, or give {name}.",
        )
    return degrees * gaze.px_per_deg


def _find_runs(start_s: FloatArray, gap_s: float) -> list[Span]:
    """Spans of samples without a gap between them."""
    if not len(start_s):
        return []
    # a recording's clock has its last digit somewhere
    cuts = np.flatnonzero(np.diff(start_s) > gap_s + 1e-9) + 1
    edges = [0, *(int(cut) for cut in cuts), len(start_s)]
    return list(pairwise(edges))


def _compute_velocity(places: FloatArray, start_s: FloatArray, window_s: float) -> FloatArray:
    """Source pixels a second of every sample of a run; infinite between two samples of one moment, 0 of a lone one."""
    n = len(start_s)
    if n == 1:
        return np.zeros(1)
    index = np.arange(n)
    first = np.searchsorted(start_s, start_s - window_s / 2.0 - 1e-9)
    last = np.searchsorted(start_s, start_s + window_s / 2.0 + 1e-9, side="right") - 1
    first = np.minimum(first, np.maximum(index - 1, 0))
    last = np.where(index == 0, np.maximum(last, 1), last)
    way: FloatArray = np.hypot(*(places[last] - places[first]).T)
    time: FloatArray = start_s[last] - start_s[first]
    return np.divide(way, time, out=np.full(n, np.inf), where=time > 0.0)


def _compute_duration(gaze: Gaze, span: Span) -> float:
    """Seconds from the first sample to the end of the last."""
    last = span[1] - 1
    return float(gaze.start_s[last] + gaze.dwell_s[last] - gaze.start_s[span[0]])


def _build_fixations(gaze: Gaze, spans: Sequence[Span]) -> Gaze:
    means: list[NDArray[np.float64]] = [gaze.places[a:b].mean(axis=0) for a, b in spans]
    return replace(
        gaze,
        places=np.array(means).reshape(-1, 2),
        start_s=np.array([gaze.start_s[a] for a, _ in spans]),
        dwell_s=np.array([_compute_duration(gaze, span) for span in spans]),
        kind="fixations",
    )


@dataclass(frozen=True)
class Viewing:
    """A reader in front of a screen.

    Attributes:
        screen_px: (rows, columns) of the screen.
        screen_width_mm: width of its visible area.
        distance_mm: from the eyes to the screen.
    """

    screen_px: tuple[int, int]
    screen_width_mm: float
    distance_mm: float

    def __post_init__(self) -> None:
        """Refuse lengths that are none, and metres or centimetres taken for millimetres."""
        rows, columns = self.screen_px
        if not (rows >= 1 and columns >= 1):
            raise LayoutError(f"A screen has rows and columns; got {self.screen_px}.", "Write [1080, 1920].")
        for name, value, low, high in (
            ("screen_width_mm", self.screen_width_mm, 50.0, 5000.0),
            ("distance_mm", self.distance_mm, 100.0, 10000.0),
        ):
            if not (math.isfinite(value) and low <= value <= high):
                raise LayoutError(
                    f"{name} is {value:g}; a reader's lies between {low:g} and {high:g}.", "Give millimetres."
                )

    @property
    def screen_px_per_deg(self) -> float:
        """Screen pixels a degree in the middle of the screen: 2 d tan(0.5 degrees) / width of a pixel."""
        return 2.0 * self.distance_mm * math.tan(math.radians(0.5)) * self.screen_px[1] / self.screen_width_mm


def build_viewing(
    screen_px: tuple[int, int], screen_width_mm: float | None, distance_mm: float | None
) -> Viewing | None:
    """The geometry, or None where neither length is known.

    Raises:
        LayoutError: one length without the other.
    """
    if screen_width_mm is None and distance_mm is None:
        return None
    if screen_width_mm is None or distance_mm is None:
        raise LayoutError(
            "Degrees need both the width of the screen and the distance to it; one is missing.",
            "Give screen_width_mm and distance_mm, or neither.",
        )
    return Viewing(screen_px, screen_width_mm, distance_mm)
