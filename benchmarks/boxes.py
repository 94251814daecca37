"""Boxes of many maps at once against loops over scikit-image's and SciPy's component labelling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label, regionprops

from benchmarks.timing import Result, Row, Unequal, alternate, repeat
from sightline.explainers.localisation.boxes import find_boxes_of_maps
from sightline.explainers.localisation.points import upsample_maps
from sightline.explainers.localisation.protocols import PROTOCOLS, MapBoxes

# a thousand maps in under a second
GOAL_S = 1.0
GOAL_MAPS = 1000
# a level at which random maps fall into parts
COMPARED = MapBoxes(low=150.0)

Maps = NDArray[np.float32]
Corners = NDArray[np.float64]
Loop = Callable[[Maps, MapBoxes], Corners]


@dataclass(frozen=True)
class Settings:
    """What is measured: `count` maps of `size` pixels a side, enlarged from every number of random `cells` a side."""

    count: int = 1000
    size: int = 512
    cells: tuple[int, ...] = (16, 64)
    together: int = 100
    pairs: int = 3
    warm_up: int = 1
    device: str = "cpu"


def settings(device: str, toy: bool) -> Settings:
    """The settings, or tiny ones; boxes are found on the CPU whatever the device."""
    return Settings(count=4, size=48, cells=(6,), together=4, pairs=2) if toy else Settings()


def measure(chosen: Settings) -> Result:
    """Ratios for the largest component, and the seconds of every protocol."""
    rows: list[Row] = []
    said = []
    for cells in chosen.cells:
        maps = make(chosen, cells)
        check(maps[: chosen.together])
        for name, loop in (("scikit-image", by_skimage), ("SciPy", by_scipy)):
            # the loops cost the same for every map: a part of the maps is enough to time them
            part = maps[: chosen.together]
            a, b = alternate(
                lambda p=part: find_boxes_of_maps(p, COMPARED),
                lambda p=part, c=loop: c(p, COMPARED),
                pairs=chosen.pairs, warm_up=chosen.warm_up, device="cpu",
            )  # fmt: skip
            what = f"largest component of {len(part)} maps, {chosen.size} px from {cells} x {cells} cells; {name}"
            rows.append(Row(what, a, b, "s", "theirs / ours", None, "high"))
        said.append(f"from {cells} x {cells} cells: {seconds_of_protocols(maps, chosen)}")
    return Result(
        "boxes",
        asdict(chosen),
        tuple(rows),
        notes=(
            "Ours: `find_boxes_of_maps` for all maps in one call, score of the box included. Theirs, map by map: "
            "minimum, "
            "maximum, threshold, `skimage.measure.label` and `regionprops`, or `scipy.ndimage.label`, `bincount` and "
            "`find_objects`; box only. Maps are random cells enlarged bilinearly; a trained network's maps are "
            "smoother, and 64 x 64 cells are rougher than the maps of any of our networks at this size.",
            f"Seconds for {chosen.count} maps of {chosen.size} x {chosen.size} pixels by protocol, best of "
            f"{chosen.pairs}, one thread (goal: under {GOAL_S * chosen.count / GOAL_MAPS:g}): " + "; ".join(said) + ".",
            "Checked first: the boxes of all three are the same.",
        ),
    )


def seconds_of_protocols(maps: Maps, chosen: Settings) -> str:
    """`NAME SECONDS, ...` of our side alone."""
    best = {
        name: min(repeat(lambda p=protocol: find_boxes_of_maps(maps, p), times=chosen.pairs, warm_up=0, device="cpu"))
        for name, protocol in PROTOCOLS.items()
    }
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in best.items())


def make(chosen: Settings, cells: int) -> Maps:
    """Random maps on the finer grid."""
    rng = np.random.default_rng(cells)
    return upsample_maps(rng.standard_normal((chosen.count, cells, cells)), (chosen.size, chosen.size))


def by_skimage(maps: Maps, protocol: MapBoxes) -> Corners:
    """The largest component of each map as one would write it with scikit-image."""
    boxes = np.empty((len(maps), 4))
    for box, field in zip(boxes, maps, strict=True):
        parts = regionprops(label(field > _level(field, protocol), connectivity=2))
        box[:] = max(parts, key=lambda part: part.area).bbox
    return boxes


def by_scipy(maps: Maps, protocol: MapBoxes) -> Corners:
    """The same with SciPy."""
    boxes = np.empty((len(maps), 4))
    for box, field in zip(boxes, maps, strict=True):
        labels, _ = ndimage.label(field > _level(field, protocol), np.ones((3, 3)))
        largest = int(np.bincount(labels.ravel())[1:].argmax())
        rows, columns = ndimage.find_objects(labels)[largest]
        box[:] = rows.start, columns.start, rows.stop, columns.stop
    return boxes


def check(maps: Maps) -> None:
    """Show that all sides find the same boxes.

    Raises:
        Unequal: they do not, or boxes are too much alike to tell.
    """
    ours = find_boxes_of_maps(maps, COMPARED).best(len(maps))
    for name, loop in (("scikit-image", by_skimage), ("SciPy", by_scipy)):
        if not np.array_equal(ours, loop(maps, COMPARED)):
            raise Unequal(f"Our boxes are not those of {name}.")
    whole = np.array([0, 0, *maps.shape[1:]])
    if (ours == whole).all():
        raise Unequal("Every box is the whole map: nothing can be compared.")


def _level(field: Any, protocol: MapBoxes) -> Any:
    least, greatest = float(field.min()), float(field.max())
    return least + protocol.low / 255 * (greatest - least)
