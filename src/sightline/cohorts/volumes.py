"""What a network is shown of the cases of a cohort of volumes: cubes of Hounsfield units, read once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.case import Cohort
from sightline.cohorts.pictures import CACHE_BYTES, Shown
from sightline.cohorts.volume_view import VolumeView
from sightline.errors import CohortError
from sightline.frame import Frame
from sightline.io.nifti import read_volume
from sightline.region import is_volume


class Volumes:
    """The cohort's volumes, read once and kept within a memory budget (least recently used leaves)."""

    def __init__(self, cohort: Cohort, view: VolumeView, cache_bytes: int = CACHE_BYTES) -> None:
        self.cohort = cohort
        self.view = view
        self.cache_bytes = cache_bytes
        self.held_bytes = 0
        self._kept: OrderedDict[int, tuple[NDArray[Any], Frame]] = OrderedDict()

    def volume(self, index: int) -> tuple[NDArray[Any], Frame]:
        """The numbers of the volume at a position, and its own frame."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        volume = read_volume(self.cohort[index].image)
        entry = (volume.values, volume.frame)
        self._kept[index] = entry
        self.held_bytes += entry[0].nbytes
        while self.held_bytes > self.cache_bytes and len(self._kept) > 1:
            self.held_bytes -= self._kept.popitem(last=False)[1][0].nbytes
        return entry

    def show(self, index: int, rng: np.random.Generator | None) -> Shown:
        """The volume at a position as `rng` draws it for training, or (None) as it is at test time."""
        values, source = self.volume(index)
        image, frame = self.view.test(values) if rng is None else self.view.training(values, rng)
        # the view knows the grid alone; how large a voxel is stands in the file
        frame = Frame(frame.shape, frame.to_source, source.spacing_mm)
        return Shown(image, frame, source, self.cohort.class_index(self.cohort[index].label))


def refuse_other_images(cohort: Cohort, volumes: bool) -> None:
    """Refuse pictures under a view of volumes, and volumes under a view of pictures.

    Raises:
        CohortError: naming the first case that does not fit.
    """
    for case in cohort:
        if is_volume(case.image) is not volumes:
            what, view = ("a volume", "pictures") if is_volume(case.image) else ("a picture", "volumes")
            raise CohortError(
                f"{case.case_id!r} of {cohort.name!r} is {what} ({case.image.name}); the recipe's view is of {view}.",
                "Use a recipe for volumes (spine-...) with a cohort of volumes, and one for pictures with pictures.",
            )
