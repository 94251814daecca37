"""Small bright things that recur on radiographs (letters, arrows, plates, plugs), found in the pixels themselves.

The audit's facts come from tables; an arrow that nobody noted is in none of them. Here every picture is searched for
small things that stand out from what lies around them (white top-hat), each is described by its shape whatever way it
is turned (Hu 1962), shapes are grouped, and each group's presence is held against the label, patient by patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import hypergeom
from skimage.measure import moments_hu, regionprops
from sklearn.cluster import KMeans

from sightline.errors import CohortError
from sightline.io.image import read_image

FloatArray = NDArray[np.float64]
LONGEST = 480
LEAST_AREA, MOST_AREA = 0.00012, 0.012
WIDTH = 0.085
CONTRAST = 0.22
VOCABULARIES = (3, 6, 12, 24, 48)
ALPHA = 0.01
LEAST_DIFFERENCE = 0.25


@dataclass(frozen=True)
class FoundObject:
    """One small thing on one picture.

    Attributes:
        case: position of its case.
        start: (row, column) of its box, as fractions of the picture.
        stop: end of its box, likewise.
        features: shape, turned any way: log area, four Hu moments, solidity, extent, eccentricity, holes. No
            brightness: that of one thing changes with the others on the picture.
    """

    case: int
    start: tuple[float, float]
    stop: tuple[float, float]
    features: tuple[float, ...]


@dataclass(frozen=True)
class RecurringObject:
    """A group of like things, and how it goes with the label.

    Attributes:
        objects: its members, those nearest to the middle of the group first.
        label: class that it goes with.
        share_with: share of the patients of that class that have one.
        share_without: share of the patients of other classes.
        p_value: Fisher's exact, corrected for all groups that were looked at (Bonferroni).
        place: mean (row, column) of its members, as fractions of the picture.
    """

    objects: tuple[FoundObject, ...]
    label: str
    share_with: float
    share_without: float
    p_value: float
    place: tuple[float, float]

    @property
    def named(self) -> bool:
        """Whether it is named as a shortcut: it differs clearly and not by chance."""
        return self.p_value < ALPHA and self.share_with - self.share_without >= LEAST_DIFFERENCE

    def __str__(self) -> str:
        """What it is, in a sentence."""
        area = np.mean([np.exp(o.features[0]) for o in self.objects])
        return (
            f"a small bright object ({area:.2%} of the picture, near row {self.place[0]:.2f}, column "
            f"{self.place[1]:.2f}) on {self.share_with:.0%} of the patients with {self.label} and "
            f"{self.share_without:.0%} of the others, p = {self.p_value:.2g}"
        )


def scale_grey(pixels: NDArray[np.generic]) -> FloatArray:
    """Pixels [h, w] or [h, w, 3] as grey values 0 to 1 between their 1st and 99.8th percentile, at most 480 a side."""
    values = np.asarray(pixels, dtype=np.float64)
    values = values.mean(axis=2) if values.ndim == 3 else values
    factor = LONGEST / max(values.shape)
    if factor < 1:
        values = ndimage.zoom(ndimage.gaussian_filter(values, 0.4 / factor), factor, order=1)
    low, high = np.percentile(values, (1, 99.8))
    return np.asarray(((values - low) / max(high - low, 1e-9)).clip(0.0, 1.2))


def find_objects(image: FloatArray, case: int = 0) -> list[FoundObject]:
    """Small things that stand out from what lies around them, on a grey picture of `scale_grey`."""
    rows, columns = image.shape
    width = max(5, int(WIDTH * max(rows, columns)) | 1)
    hat = image - ndimage.grey_opening(image, size=(width, width))
    labels, _ = ndimage.label(hat > CONTRAST)
    found = []
    for region in regionprops(labels):
        share = region.area / image.size
        top, left, bottom, right = region.bbox
        height, breadth = bottom - top, right - left
        if not LEAST_AREA <= share <= MOST_AREA or max(height, breadth) > 4.5 * min(height, breadth):
            continue
        hu = moments_hu(region.moments_normalized)[:4]
        shape = [float(np.sign(h) * np.log1p(1e4 * abs(h))) for h in hu]
        features = (
            float(np.log(share)), *shape, float(region.solidity), float(region.extent), float(region.eccentricity),
            float(region.euler_number),
        )  # fmt: skip
        found.append(FoundObject(case, (top / rows, left / columns), (bottom / rows, right / columns), features))
    return found


def group_recurring_objects(
    objects: Sequence[FoundObject],
    labels: Sequence[str],
    patients: Sequence[str],
    *,
    seed: int = 0,
) -> list[RecurringObject]:
    """Groups of like objects, those that go with the label most surely first.

    Args:
        objects: of all pictures.
        labels: class of each case.
        patients: patient of each case; the presence of a group is asked patient by patient.
        seed: of the grouping.

    Raises:
        CohortError: cases without two classes.
    """
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise CohortError(f"Objects are held against the label: two classes are needed; got {classes}.")
    if len(objects) < max(VOCABULARIES):
        return []
    features = np.array([o.features for o in objects])
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    units = sorted(set(zip(patients, labels, strict=True)))
    unit = {key: i for i, key in enumerate(units)}
    of_case = np.array([unit[key] for key in zip(patients, labels, strict=True)])
    found: list[RecurringObject] = []
    tests = 0
    sides = {label: np.array([key[1] == label for key in units]) for label in classes}
    different = len(np.unique(scaled.round(6), axis=0))
    for k in (k for k in VOCABULARIES if k <= different):
        fitted = KMeans(k, n_init=3, random_state=seed).fit(scaled)
        distance = np.linalg.norm(scaled - fitted.cluster_centers_[fitted.labels_], axis=1)
        for group in range(k):
            members = np.flatnonzero(fitted.labels_ == group)
            present = np.zeros(len(units), dtype=bool)
            present[of_case[[objects[m].case for m in members.tolist()]]] = True
            for label in classes if len(classes) > 2 else classes[-1:]:
                tests += 1
                mine = sides[label]
                table = [[int((present & side).sum()), int((~present & side).sum())] for side in (mine, ~mine)]
                shares = [row[0] / max(1, sum(row)) for row in table]
                goes_with = label if shares[0] >= shares[1] else _choose_other(label, classes)
                nearest = members[np.argsort(distance[members])].tolist()
                places = np.array([np.add(objects[m].start, objects[m].stop) / 2 for m in members.tolist()])
                found.append(
                    RecurringObject(
                        tuple(objects[m] for m in nearest), goes_with, max(shares), min(shares),
                        _compute_fisher_p(table), (float(places[:, 0].mean()), float(places[:, 1].mean())),
                    )
                )  # fmt: skip
    corrected = [
        RecurringObject(o.objects, o.label, o.share_with, o.share_without, min(1.0, o.p_value * tests), o.place)
        for o in found
    ]
    return sorted(corrected, key=lambda o: o.p_value)


def _compute_fisher_p(table: list[list[int]]) -> float:
    """Fisher's exact two-sided p of a fourfold table, as scipy's, with one look at the distribution."""
    (a, b), (c, d) = table
    few, many = max(0, a - d), min(a + b, a + c)
    chances = hypergeom.pmf(np.arange(few, many + 1), a + b + c + d, a + b, a + c)
    return min(1.0, float(chances[chances <= chances[a - few] * (1 + 1e-7)].sum()))


def find_objects_in_files(files: Sequence[Path]) -> list[FoundObject]:
    """The objects of pictures on disk."""
    return [o for case, file in enumerate(files) for o in find_objects(scale_grey(read_image(file).pixels), case)]


def _choose_other(label: str, classes: Sequence[str]) -> str:
    rest = [name for name in classes if name != label]
    return rest[0] if len(rest) == 1 else f"no {label}"
