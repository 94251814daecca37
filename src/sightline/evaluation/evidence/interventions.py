"""Pictures changed on purpose, to see what a network's answer rests on: outside erased, inside erased, backgrounds and
objects exchanged. All on the picture as the network sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sightline.data.audit.objects import FoundObject
from sightline.data.views.frames import state_spacing
from sightline.data.views.image_view import View
from sightline.errors import CohortError, RunError
from sightline.io.image import read_image
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Box
from sightline.structures.tag import Tag
from sightline.training.run import Run, require_same_classes

Planes = NDArray[np.float32]
Mask = NDArray[np.bool_]
# what is kept around a mark, and how soft its rim is, as shares of the view's side
MARGIN, RIM, BLUR = 0.02, 0.01, 0.06


@dataclass(frozen=True, eq=False)
class SeenCase:
    """A case as the network sees it.

    Attributes:
        case: the case.
        planes: float32 [c, h, w].
        frame: of the planes, in the picture.
        source_shape: (rows, columns) of the picture.
        mark: bool [h, w], what experts marked, or None.
    """

    case: Case
    planes: Planes
    frame: Frame
    source_shape: tuple[int, int]
    mark: Mask | None


def require_view(run: Run) -> View:
    """The view of a run whose pictures can be changed.

    Raises:
        RunError: a run of volumes, of crops, or of other than two classes.
    """
    view = run.recipe.view
    if not isinstance(view, View) or view.crop is not None or len(run.classes) != 2 or not run.recipe.classifies:
        raise RunError(
            f"{run.folder} is no classifier of two classes on whole radiographs.",
            "Pictures are changed for runs that tell two classes of radiographs apart.",
        )
    return view


def require_both_classes(run: Run, cohort: Cohort) -> None:
    """Refuse a cohort of other classes than the run's, or in another order, and one of one class: it has no AUC.

    Raises:
        CohortError: other classes, or one class only.
    """
    require_same_classes(run.classes, cohort.classes, f"Cohort {cohort.name!r}")
    if len({case.label for case in cohort}) < 2:
        raise CohortError(f"Cohort {cohort.name!r} holds one class only here.", "Choose a split with both.")


def see_case(case: Case, view: View) -> SeenCase:
    """A case in its test-time view, with its finding (or where to look, where no finding is marked) as a mask."""
    picture = read_image(case.image)
    planes, frame = view.show(picture.pixels, state_spacing(picture.frame, case), view.around(case))
    mark = None
    for role in ("finding", "focus"):
        regions = [region for region in case.regions if region.tag.role == role]
        if regions:
            drawn = np.max([region.draw(frame) for region in regions], axis=0) > 0
            mark = _grow_mask(drawn) if drawn.any() else None
            break
    return SeenCase(case, planes, frame, (picture.frame.shape[0], picture.frame.shape[1]), mark)


def erase(planes: Planes, where: Mask) -> Planes:
    """Fill a part from what lies around it: a wide Gaussian over the rest only, with a soft rim.

    Only what the Gaussian reaches is computed: elsewhere the picture stays as it is.
    """
    soft = _soften_mask(where)
    if not soft.any():
        return np.array(planes, dtype=np.float32)
    sigma = BLUR * max(where.shape)
    reach = int(4.0 * sigma + 0.5) + 1
    window = tuple(
        slice(max(0, int(places.min()) - reach), int(places.max()) + reach + 1) for places in np.nonzero(soft)
    )
    kept = (~where[window]).astype(np.float64)
    weight = ndimage.gaussian_filter(kept, sigma)
    out = np.array(planes, dtype=np.float32)
    for plane, changed in zip(planes.astype(np.float64), out, strict=True):
        around = ndimage.gaussian_filter(plane[window] * kept, sigma)
        mean = plane[~where].mean() if (~where).any() else 0.0
        filled = np.divide(around, weight, out=np.full_like(around, mean), where=weight > 1e-6)
        changed[window] = plane[window] * (1 - soft[window]) + filled * soft[window]
    return out


def keep_only(planes: Planes, where: Mask, fill: float) -> Planes:
    """Everything but a part at one grey, the same for every picture: a blur would still say how bright it was."""
    soft = _soften_mask(where)
    return np.asarray(planes * soft + fill * (1 - soft), dtype=np.float32)


def exchange_background(planes: Planes, where: Mask, other: Planes) -> Planes:
    """The part of one picture on another picture's background."""
    soft = _soften_mask(where)
    return np.asarray(planes * soft + other * (1 - soft), dtype=np.float32)


def draw_object_mask(seen: SeenCase, objects: Sequence[FoundObject]) -> Mask:
    """Where objects lie in the view."""
    rows, columns = seen.source_shape
    found = np.zeros(seen.planes.shape[1:], dtype=bool)
    for o in objects:
        start, stop = (o.start[0] * rows, o.start[1] * columns), (o.stop[0] * rows, o.stop[1] * columns)
        found |= Box(start, stop, Tag("finding")).draw(seen.frame) > 0
    return _grow_mask(found) if found.any() else found


def paste_object(seen: SeenCase, donor: SeenCase, of_donor: Sequence[FoundObject]) -> Planes | None:
    """A donor's object laid at the same place of another view, where it is brighter than what lies there."""
    mask = draw_object_mask(donor, of_donor)
    if not mask.any():
        return None
    soft = _soften_mask(mask)
    brighter = np.maximum(seen.planes, donor.planes)
    return np.asarray(seen.planes * (1 - soft) + brighter * soft, dtype=np.float32)


def _grow_mask(mask: Mask) -> Mask:
    size = max(1, round(MARGIN * max(mask.shape)))
    return np.asarray(ndimage.binary_dilation(mask, iterations=size))


def _soften_mask(mask: Mask) -> NDArray[np.float64]:
    grown = ndimage.gaussian_filter(mask.astype(np.float64), max(0.5, RIM * max(mask.shape)))
    return np.asarray(np.maximum(grown, mask).clip(0.0, 1.0))
