"""Which gaze guides which class maps, how it is spread, and the controls a claim about gaze needs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sightline.data.targets.region_choice import choose_patients
from sightline.errors import CohortError, RecipeError
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.gaze import Gaze, Weigh, compute_sigma, merge_gazes, scale_density
from sightline.structures.tag import Role

# the density's highest value is looked for on a grid of this many cells along the picture's longer side
PEAK_GRID = 64
CENTRE_SPREAD = 0.25


@dataclass(frozen=True)
class GazeChoice:
    """The gaze a recipe is guided by: a density in 0..1 on the image grid, scaled to a maximum of 1.

    Attributes:
        classes: which class maps it guides: the image's `own` class (Zhu 2022, equation 9), the `first` class whatever
            the image shows (as the code released with it does), or `all`.
        control: whose gaze: each image's `own`; `shuffled`: another training image's, stretched to this one; `centre`:
            a Gaussian in the middle of the picture with a quarter of its sides as standard deviation. A gain that also
            appears with these two controls is not due to where the reader looked in this image.
        of: tracker `samples` or `fixations`; the other kind is used for cases without such gaze.
        weigh: places are weighted by dwell time (`dwell`) or equally (`count`).
        sigma_px: standard deviation of the Gaussians in source pixels; None: the gaze's own `spread_px`.
        sigma_deg: the same in degrees of visual angle, if the geometry is known; overrides `sigma_px`.
        kernel_px: the same as the size of an OpenCV kernel, as in the code released with Zhu 2022; overrides both.
        cell: the density's mean over a cell (`area`) or its value at the centre (`point`).
        above: None, or the share of the maximum density from which a cell counts as marked: gaze as a region, for
            losses that need one (`spatial_nll`).
        reader: only this reader's gaze; empty merges all readers'.
        share: share of the cohort's images with gaze that is used, by whole patients.
        share_seed: another number draws other patients, and shuffles otherwise.
    """

    role: ClassVar[Role] = "gaze"
    style: ClassVar[str] = "density"

    classes: Literal["own", "first", "all"] = "own"
    control: Literal["own", "shuffled", "centre"] = "own"
    of: Literal["samples", "fixations"] = "samples"
    weigh: Weigh = "dwell"
    sigma_px: float | None = None
    sigma_deg: float | None = None
    kernel_px: int | None = None
    cell: Literal["area", "point"] = "area"
    above: float | None = None
    reader: str = ""
    share: float = 1.0
    share_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse lengths and shares that are none."""
        lengths = {"sigma_px": self.sigma_px, "sigma_deg": self.sigma_deg, "kernel_px": self.kernel_px}
        wrong = {name: value for name, value in lengths.items() if value is not None and not value > 0}
        if wrong:
            raise RecipeError(f"GazeChoice needs positive lengths; got {wrong}.", "Leave them out for the gaze's own.")
        if not 0.0 < self.share <= 1.0 or (self.above is not None and not 0.0 < self.above < 1.0):
            raise RecipeError(
                f"GazeChoice.share lies above 0 and up to 1, above between 0 and 1; got {self.share}, {self.above}.",
                "To use no gaze at all, set its weight to 0.",
            )

    def patients(self, cohort: Cohort) -> frozenset[str] | None:
        """The patients whose gaze is used, as `RegionChoice.patients`; None: everybody."""
        return choose_patients(cohort, self.role, self.share, self.share_seed)

    def gaze(self, case: Case) -> Gaze | None:
        """A case's gaze: of the kind asked for where there is some, of all readers asked for as one; None without."""
        having = [r for r in case.regions if isinstance(r, Gaze) and len(r) and self.reader in ("", r.tag.reader)]
        native = [gaze for gaze in having if gaze.kind == self.of] or having
        return merge_gazes(native) if native else None

    def sigma(self, gaze: Gaze) -> float:
        """The standard deviation in source pixels.

        Raises:
            CohortError: degrees are asked for, and nobody knows how many pixels one is.
        """
        if self.kernel_px is not None:
            return compute_sigma(self.kernel_px)
        if self.sigma_deg is not None:
            if gaze.px_per_deg is None:
                raise CohortError(
                    "GazeChoice.sigma_deg asks for degrees, but the gaze does not say how many pixels a degree is.",
                    "Import it with the screen's size and distance, or give sigma_px.",
                )
            return self.sigma_deg * gaze.px_per_deg
        return gaze.spread_px if self.sigma_px is None else self.sigma_px

    def assign_shuffled(self, cohort: Cohort) -> Mapping[str, str]:
        """For the control `shuffled`: whose gaze each case with gaze gets; no case keeps its own (but a lone one)."""
        having = [case.case_id for case in cohort if self.gaze(case) is not None]
        order = sorted(having, key=lambda i: hashlib.sha256(f"shuffled {self.share_seed} {i}".encode()).digest())
        return dict(zip(order, [*order[1:], *order[:1]], strict=True))


class GazeTargets:
    """Densities of a cohort's gaze on image grids.

    Args:
        cohort: the cases.
        choice: which gaze, and how.
    """

    def __init__(self, cohort: Cohort, choice: GazeChoice) -> None:
        self.cohort = cohort
        self.choice = choice
        self._guiding = choice.patients(cohort)
        self._giver = choice.assign_shuffled(cohort) if choice.control == "shuffled" else {}
        self._case = {case.case_id: case for case in cohort}
        self._peaks: dict[int, float] = {}

    def draw(self, index: int, source: Frame, frame: Frame) -> tuple[NDArray[np.uint8 | np.float32], NDArray[np.bool_]]:
        """Target [1, h, w] (float32 in 0..1, or uint8 with `above`), and which classes it guides [k].

        Args:
            index: position in the cohort.
            source: frame of the source picture.
            frame: grid to draw on.
        """
        case, classes = self.cohort[index], self.cohort.classes
        density = np.zeros(frame.shape, dtype=np.float32)
        gaze = self.choice.gaze(case) if self._guiding is None or case.patient_id in self._guiding else None
        if gaze is not None:
            density = self._draw_density(index, case, gaze, source, frame)
        guided = np.zeros(len(classes), dtype=bool)
        # what the crop cut away, and what was never looked at, guides nothing
        if float(density.max(initial=0.0)) > 0.0:
            own = classes.index(case.label)
            guided = np.array(
                [self.choice.classes == "all" or i == self._choose_class(own) for i in range(len(classes))]
            )
        if self.choice.above is not None:
            return np.asarray(density >= self.choice.above, dtype=np.uint8)[None], guided
        return density[None], guided

    def _choose_class(self, own: int) -> int:
        return own if self.choice.classes == "own" else 0

    def _draw_density(self, index: int, case: Case, gaze: Gaze, source: Frame, frame: Frame) -> NDArray[np.float32]:
        if self.choice.control == "centre":
            return _draw_centre(source, frame)
        if self.choice.control == "shuffled":
            gaze = self._borrow_gaze(case, gaze, source)
        sigma = self.choice.sigma(gaze)
        if index not in self._peaks:
            cells = [max(1, round(n * PEAK_GRID / max(source.shape))) for n in source.shape]
            whole = gaze.density(source.resize(cells), sigma, weigh=self.choice.weigh, cell=self.choice.cell)
            self._peaks[index] = float(whole.max())
        peak = self._peaks[index]
        density = gaze.density(frame, sigma, weigh=self.choice.weigh, cell=self.choice.cell)
        # gaze that never met the picture leaves nothing on it
        return np.clip(density / np.float32(peak), 0.0, 1.0) if peak > 1e-12 else np.zeros_like(density)

    def _borrow_gaze(self, case: Case, gaze: Gaze, source: Frame) -> Gaze:
        giver = self._case[self._giver[case.case_id]]
        other = self.choice.gaze(giver) or gaze
        size = np.array(giver.shape if giver.shape is not None else _measure_extent(other), dtype=np.float64)
        stretch = np.array(source.shape, dtype=np.float64) / size
        return replace(other, places=other.places * stretch)


def _measure_extent(gaze: Gaze) -> tuple[float, float]:
    """The least picture that could hold a gaze, where its picture's size is not known."""
    rows, columns = np.maximum(gaze.places.max(axis=0), 1.0)
    return float(rows), float(columns)


def _draw_centre(source: Frame, frame: Frame) -> NDArray[np.float32]:
    """A Gaussian in the middle of the picture, on a grid; 1 at its middle."""
    grid: Sequence[NDArray[np.float64]] = np.meshgrid(*[np.arange(n) + 0.5 for n in frame.shape], indexing="ij")
    places = frame.map_points(np.stack(grid, axis=-1).reshape(-1, 2))
    off = (places / np.array(source.shape) - 0.5) / CENTRE_SPREAD
    return scale_density(np.exp(-0.5 * (off**2).sum(axis=1)).reshape(frame.shape).astype(np.float32))
