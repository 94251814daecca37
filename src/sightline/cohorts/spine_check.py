"""Whether centres of vertebrae can be those of this CT: they lie in bone or tissue, and apart from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sightline.cohorts.spine import Vertebra
from sightline.errors import GeometryError
from sightline.io.volume import Volume

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
            f"{source}: {sum(mean < LEAST_HU for mean in means)} of {len(means)} vertebrae lie in fat, lung or air "
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
