"""The cases that a unit's gallery shows: chosen by how they drive it, read again, with the unit's response to each.

Only these cases are read a second time, and of each only the units that show it are kept: memory does not grow with the
cohort.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sightline.data.loader import CohortItems, Key, iterate_test_batches
from sightline.data.targets.drawing_styles import is_covered
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.dissection.gallery import COLLAGE, STRONGEST, GalleryCase
from sightline.dissection.responses import Response, close_up, compute_response, compute_source_response, read_picture
from sightline.explainers.units.layer import UnitLayer
from sightline.io.nifti import read_volume_header
from sightline.metrics.units.scores import Over
from sightline.plots.overlay import Pixels
from sightline.plots.planes import find_facing, turn_cube
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box, Region

# grey values of radiographs are stretched between these percentiles of what is not black
WINDOW_PERCENT = (1.0, 99.7)
# said last: body part and hardware tell more
_PROJECTIONS = ("frontal", "lateral", "oblique", "multiscan")
Cells = Mapping[tuple[int, int], tuple[NDArray[np.float64], NDArray[np.float64] | None]]


@dataclass(frozen=True, eq=False)
class CaseCalls:
    """What a run says of the cases of a cohort, held against the truth.

    Attributes:
        positive: class that is looked for.
        truth: bool [n], the case is of that class.
        called: bool [n], the network says so (its most probable class).
        probability: float64 [n], of that class.
    """

    positive: str
    truth: NDArray[np.bool_]
    called: NDArray[np.bool_]
    probability: NDArray[np.float64]

    def group(self, over: Over) -> NDArray[np.bool_]:
        """The cases that c is a share of, bool [n]."""
        if over == "positives":
            return self.truth
        return self.called & (self.truth if over == "true_positives" else ~self.truth)

    def words(self, row: int) -> str:
        """The call against the truth."""
        if self.truth[row]:
            return "true call" if self.called[row] else "missed"
        return "false alarm" if self.called[row] else "true rejection"


def rank_top_cases(strength: NDArray[np.floating], mean: NDArray[np.floating], among: NDArray[np.int64]) -> list[int]:
    """The cases that drive one unit most: by r_k, its activation summed where it is above its threshold.

    The released code sorts by the mean over all places instead: then cases come first whose background is a little
    brighter all over, and their pictures show hardly a contour. Cases of one r_k (none above) go by that mean.

    Args:
        strength: [n], r_k.
        mean: [n], over a case's places.
        among: rows to choose from.
    """
    order = np.lexsort((among, -mean[among], -strength[among]))
    return [int(row) for row in among[order][:COLLAGE]]


def compute_activations(
    layer: UnitLayer,
    cohort: Cohort,
    view: View | VolumeView,
    shown: Mapping[int, Sequence[int]],
    *,
    batch_size: int,
    workers: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> Cells:
    """Activations of units on the cases that show them: (unit, row) -> ([*m], window of that case or None).

    Args:
        layer: of the network.
        cohort: the whole cohort.
        view: the run's.
        shown: rows by unit.
        batch_size: cases at a time.
        workers: processes that read.
        advance: told the number of cases after each batch.
    """
    units_of: dict[int, list[int]] = {}
    for unit, rows in shown.items():
        for row in rows:
            units_of.setdefault(row, []).append(unit)
    rows = sorted(units_of)
    wanted = Cohort(cohort.name, cohort.classes, tuple(cohort[row] for row in rows), cohort.root, cohort.about)
    found: dict[tuple[int, int], tuple[NDArray[np.float64], NDArray[np.float64] | None]] = {}
    at = 0
    with torch.no_grad():
        for batch in iterate_test_batches(
            CohortItems(wanted, view, cache_bytes=1), batch_size=batch_size, workers=workers
        ):
            evidence, activations = layer(batch.images)
            windows = (
                None
                if evidence.window is None or not sees_window(layer.name)
                else evidence.window.double().cpu().numpy()
            )
            for b in range(len(batch)):
                row = rows[at + b]
                for unit in units_of[row]:
                    cells = activations[b, unit].double().cpu().numpy()
                    found[unit, row] = (cells, None if windows is None else windows[b])
            at += len(batch)
            advance(len(batch))
    return found


def sees_window(layer: str) -> bool:
    """Whether a layer of a network that cuts out a window sees that alone; its localiser sees all of the picture."""
    return not layer.startswith("localiser")


class CaseReader:
    """Reads cases as the gallery shows them; the pixels of the last ones are kept."""

    def __init__(self, cohort: Cohort, view: View | VolumeView, called: CaseCalls) -> None:
        self.cohort, self.view, self.called = cohort, view, called
        self.items = CohortItems(cohort, view, cache_bytes=128 * 1024**2)

    def gallery(
        self, unit: int, threshold: float, rows: Sequence[int], cells: Cells, *, detail: int = STRONGEST
    ) -> list[GalleryCase]:
        """The cases of one unit's gallery, strongest first; of pictures the first `detail` with a close-up."""
        return [self._build_case(row, *cells[unit, row], threshold, n < detail) for n, row in enumerate(rows)]

    def _build_case(
        self, row: int, cells: NDArray[np.float64], window: NDArray[np.float64] | None, threshold: float, detail: bool
    ) -> GalleryCase:
        case = self.cohort[row]
        item = self.items[Key(row, -1)]
        words = {
            "title": case.case_id,
            "facts": describe_facts(case),
            "probability": float(self.called.probability[row]),
            "call": self.called.words(row),
            "right": bool(self.called.truth[row] == self.called.called[row]),
        }
        if isinstance(self.view, VolumeView):
            facing = find_facing(read_volume_header(case.image).affine)
            cube = turn_cube(np.asarray(item.image, dtype=np.float32), item.frame, facing, self.view)
            found = compute_response(np.ascontiguousarray(facing.turn_array(cells)), threshold, cube.grey.shape)
            return GalleryCase(**words, response=found, cube=cube, regions=case.regions)  # type: ignore[arg-type]
        grey = item.image.mean(axis=0, dtype=np.float32)
        found = compute_response(cells, threshold, grey.shape, window)
        close = self._close(case, item.frame, cells, threshold, window) if detail else None
        return GalleryCase(
            **words,  # type: ignore[arg-type]
            response=found,
            grey=stretch_contrast(grey),
            regions=list_outlines(case),
            frame=item.frame,
            close=close,
        )

    @staticmethod
    def _close(
        case: Case, view: Frame, cells: NDArray[np.float64], threshold: float, window: NDArray[np.float64] | None
    ) -> tuple[Pixels, Response, Frame]:
        grey, grid = read_picture(case)
        return close_up(stretch_contrast(grey), compute_source_response(cells, threshold, view, grid, window), grid)


def stretch_contrast(grey: Pixels) -> Pixels:
    """A radiograph between percentiles of what is not black, so that a dark exposure can be judged too."""
    seen = grey[grey > 0.01]
    if not seen.size:
        return grey
    low, high = np.percentile(seen, WINDOW_PERCENT)
    low = min(float(low), 0.25)
    return np.asarray(np.clip((grey - low) / max(float(high) - low, 1e-3), 0.0, 1.0), dtype=np.float32)


def list_outlines(case: Case) -> tuple[Region, ...]:
    """A case's findings as outlines; boxes only of those of which nothing closer was drawn."""
    found = tuple(region for region in case.regions if region.tag.role == "finding")
    closer = tuple(region for region in found if not isinstance(region, Box))
    return (*closer, *(region for region in found if isinstance(region, Box) and not is_covered(region, closer)))


def describe_facts(case: Case) -> str:
    """Class, and what else is known of a case, what tells most first: level, grade, deformity of a vertebra; flags."""
    facts = case.facts
    if "level" not in facts:
        flags = [name for name, value in facts.items() if value == "1" and name != "mixed"]
        return ", ".join([case.label, *sorted(flags, key=lambda name: name in _PROJECTIONS)])
    words = [facts["level"]]
    words += [f"grade {facts['grade']}"] if facts.get("grade", "") not in ("", "0") else []
    words += [facts["deformity"]] if facts.get("deformity") else []
    words += ["foreign material"] if facts.get("foreign") in ("1", "True", "true", "yes") else []
    return ", ".join([*words, case.label])
