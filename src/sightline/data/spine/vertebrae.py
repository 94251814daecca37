"""A spine in a CT: its vertebrae in order, where each is, and what was said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sightline.errors import GeometryError, count_noun
from sightline.io.volume import Volume
from sightline.structures.case import Split
from sightline.structures.frame import FloatArray

# 26 sacrum, 27 coccyx: in VerSe's scheme, but no vertebrae that are graded
NOT_VERTEBRAE = (26, 27)

# VerSe's labels from head to foot: C1-C7 1-7, T1-T12 8-19, T13 28, L1-L6 20-25
LEVELS: dict[int, str] = {
    **{n: f"C{n}" for n in range(1, 8)},
    **{n: f"T{n - 7}" for n in range(8, 20)},
    28: "T13",
    **{n: f"L{n - 19}" for n in range(20, 26)},
}
LABELS: dict[str, int] = {level: label for label, level in LEVELS.items()}
# position from head to foot: T13 stands between T12 and L1
RANKS: dict[int, int] = {label: rank for rank, label in enumerate(LEVELS)}


@dataclass(frozen=True)
class Vertebra:
    """One vertebra.

    Attributes:
        label: VerSe's number, a key of LEVELS.
        centre: place of its body's centre in the CT's own array, voxels with the origin at the corner (a Frame's
            source coordinates).
        grade: Genant's grade 0 to 3, or None where nobody graded it.
        deformity: `wedge`, `biconcave`, `crush` or empty.
        foreign: whether it holds foreign material.
        excluded: whether the grading leaves it out.
    """

    label: int
    centre: tuple[float, float, float]
    grade: int | None = None
    deformity: str = ""
    foreign: bool = False
    excluded: bool = False

    @property
    def level(self) -> str:
        """Its name, e.g. `T12`."""
        return LEVELS[self.label]


@dataclass(frozen=True)
class Spine:
    """One CT series with its vertebrae.

    Attributes:
        subject: the patient; several series may share one.
        series: unique within the data set.
        image: the CT: a NIfTI file, or a folder with one DICOM series.
        vertebrae: from head to foot.
        vertebra_mask: NIfTI of VerSe's labels on the CT's grid, or None.
        subregion_mask: NIfTI of sub-region numbers (SUBREGIONS) on the CT's grid, or None.
        finding_mask: NIfTI whose non-zero voxels are deformed bone (phantoms), or None.
        split: as the data set publishes it.
        source: where the scan comes from (`verse19`, `verse20`, `phantom`): a column that tables select by.
        facts: what else is known, by name.
    """

    subject: str
    series: str
    image: Path
    vertebrae: tuple[Vertebra, ...]
    vertebra_mask: Path | None = None
    subregion_mask: Path | None = None
    finding_mask: Path | None = None
    split: Split | None = None
    source: str = ""
    facts: dict[str, str] = field(default_factory=dict)


# numbers of sub-regions in `..._seg-subreg_msk.nii.gz`, as public spine segmentations use them; 101 to 103 are ours
SUBREGIONS: dict[int, str] = {
    41: "arch",
    42: "spinous process",
    43: "left transverse process",
    44: "right transverse process",
    45: "left superior articular process",
    46: "right superior articular process",
    47: "left inferior articular process",
    48: "right inferior articular process",
    49: "body border",
    50: "body",
    100: "disc",
    101: "superior endplate",
    102: "inferior endplate",
    103: "pedicles",
}

# numbers of finding masks, where a mask tells kinds of deformed bone apart (phantoms)
FINDINGS: dict[int, str] = {
    1: "depressed superior endplate",
    2: "depressed inferior endplate",
    3: "sclerotic band",
    4: "bulged wall",
}

# marrow turned to fat has about -50; below are fat around organs, lung and air
LEAST_HU = -100.0
# the mean is taken this far around a centre
AROUND_MM = 4.0
# the lowest bodies, of children's necks or crushed to a plate, are further apart
LEAST_APART_MM = 4.0


def require_in_bone(ct: Volume, vertebrae: Sequence[Vertebra], source: str) -> None:
    """Refuse centres of which most lie in fat, lung or air, and two that lie in one place.

    Centres of another CT, or with a wrong direction, often lie within the CT all the same, and a network would judge
    patches of lung without a word.

    Args:
        ct: in Hounsfield units.
        vertebrae: from head to foot, centres in the CT's array (frame coordinates).
        source: what the centres were read from, named in errors.

    Raises:
        GeometryError: with the numbers.
    """
    reach = np.maximum(1, np.rint(AROUND_MM / np.asarray(ct.spacing_mm)).astype(int))
    means = []
    for vertebra in vertebrae:
        middle = np.clip(np.floor(vertebra.centre).astype(int), 0, np.asarray(ct.values.shape) - 1)
        start, stop = np.maximum(middle - reach, 0), middle + reach + 1
        means.append(float(ct.values[tuple(map(slice, start, stop))].mean()))
    if means and float(np.median(means)) < LEAST_HU:
        low = int(np.argmin(means))
        raise GeometryError(
            f"{source}: {sum(mean < LEAST_HU for mean in means)} of "
            f"{count_noun(len(means), 'vertebra', 'vertebrae')} lie in fat, lung or air "
            f"(e.g. {vertebrae[low].level}: {means[low]:.0f} HU around its centre); bone was expected.",
            "Give the centroids or the mask of this CT, and check the direction that the file states.",
        )
    places = [ct.world_of(vertebra.centre) for vertebra in vertebrae]
    for one, other, here, there in zip(vertebrae, vertebrae[1:], places, places[1:], strict=False):
        apart = float(np.linalg.norm(here - there))
        if apart < LEAST_APART_MM:
            raise GeometryError(
                f"{source}: {one.level} and {other.level} lie {apart:.1f} mm apart, which no two vertebrae do.",
                "Remove the one that is wrong.",
            )


DEPTH = 0.6
# pieces smaller than this share of the largest are crumbs
CRUMB = 1.0 / 3.0
# a body is never thinner than twice this; what is, was cut by the edge of the scan
THINNEST_MM = 3.0


def find_centres_from_mask(mask: Volume, ct: Volume, name: str) -> tuple[tuple[Vertebra, ...], tuple[str, ...]]:
    """The vertebrae of a mask from head to foot, and in words what was left out.

    Args:
        mask: VerSe's labels, on any grid in the CT's space.
        ct: places are in its voxels.
        name: of the mask, for messages.

    Raises:
        GeometryError: no vertebra, vertebrae outside the CT, or labels that do not run from head to foot.
    """
    labels = np.unique(mask.values)
    known = sorted((int(n) for n in labels if int(n) in LEVELS), key=RANKS.__getitem__)
    strange = [int(n) for n in labels if n != 0 and int(n) not in LEVELS and int(n) not in NOT_VERTEBRAE]
    left_out = [f"labels {strange[:8]} are none of VerSe's"] if strange else []
    boxes = ndimage.find_objects(np.where(np.isin(mask.values, known), mask.values, 0).astype(np.int32))
    found: list[tuple[int, FloatArray]] = []
    for label in known:
        centre = _find_body_centre(mask, label, boxes[label - 1])
        if centre is None:
            left_out.append(f"{LEVELS[label]} is cut off by the edge of the mask or a crumb")
        else:
            found.append((label, centre))
    if not found:
        raise GeometryError(
            f"{name}: no vertebra under VerSe's labels (1 to 25 and 28); the mask holds {labels[:8].tolist()}.",
            "Give a mask of vertebrae with VerSe's labels, or --centroids.",
        )
    heights = [world[2] for _, world in found]
    if any(below >= above for above, below in pairwise(heights)):
        raise GeometryError(
            f"{name}: its labels do not run from head to foot (heights {np.round(heights).tolist()} mm for "
            f"{[LEVELS[label] for label, _ in found]}).",
            "Check that the labels are VerSe's, and the orientation of the mask.",
        )
    places = [(label, ct.place_of(world)) for label, world in found]
    outside = [LEVELS[n] for n, at in places if (at < 0).any() or (at > np.array(ct.values.shape)).any()]
    if outside:
        raise GeometryError(
            f"{name}: {len(outside)} of {count_noun(len(places), 'vertebra', 'vertebrae')} lie "
            f"outside the CT: {', '.join(outside)}.",
            "Give the mask of this CT.",
        )
    vertebrae = tuple(Vertebra(label, (float(a), float(b), float(c))) for label, (a, b, c) in places)
    return vertebrae, tuple(left_out)


def _find_body_centre(mask: Volume, label: int, box: tuple[slice, ...]) -> FloatArray | None:
    """The centre of one vertebra's body in millimetres (RAS+), or None where too little of it is there."""
    inside: NDArray[np.bool_] = np.pad(mask.values[box] == label, 1)
    depth = ndimage.distance_transform_edt(inside, sampling=mask.spacing_mm)
    if depth.max() < THINNEST_MM:
        return None
    thick = depth > DEPTH * depth.max()
    pieces, count = ndimage.label(thick)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    start = np.array([axis.start for axis in box]) - 1
    centres = np.array(ndimage.center_of_mass(thick, pieces, range(1, count + 1))).reshape(-1, 3)
    world = mask.world_of(centres + start + 0.5)
    large = np.flatnonzero(sizes >= CRUMB * sizes.max())
    return np.asarray(world[large[world[large, 1].argmax()]], dtype=np.float64)
