"""What a network is shown of the cases of a cohort: pictures, read once and reduced."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.case import Cohort
from sightline.cohorts.framing import Corners, boxes_of
from sightline.cohorts.patches import patch_label
from sightline.cohorts.transforms import View, Working, sample
from sightline.frame import Frame
from sightline.io.image import read_image

CACHE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Shown:
    """A case as a network is shown it.

    Attributes:
        image: float32 [c, *s] in 0..1.
        frame: the image's grid in the source.
        source: the frame of the source itself.
        label: class index; of a patch of a picture, what the patch shows.
    """

    image: NDArray[np.float32]
    frame: Frame
    source: Frame
    label: int


class Pictures:
    """The cohort's pictures, read once, reduced and kept within a memory budget (least recently used leaves)."""

    def __init__(self, cohort: Cohort, view: View, cache_bytes: int = CACHE_BYTES) -> None:
        self.cohort = cohort
        self.view = view
        self.cache_bytes = cache_bytes
        self.held_bytes = 0
        self._kept: OrderedDict[tuple[int, bool], tuple[Working, Frame]] = OrderedDict()
        self._around: dict[int, Corners | None] = {}

    def working(self, index: int, training: bool, around: Corners | None = None) -> tuple[Working, Frame]:
        """The reduced picture and the frame of the source picture itself."""
        key = (index, training)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        picture = read_image(self.cohort[index].image)
        entry = (
            self.view.reduce(picture.pixels, picture.frame, around=around, training=training),
            picture.frame,
        )
        self._kept[key] = entry
        self.held_bytes += entry[0].bytes
        while self.held_bytes > self.cache_bytes and len(self._kept) > 1:
            _, (dropped, _) = self._kept.popitem(last=False)
            self.held_bytes -= dropped.bytes
        return entry

    def show(self, index: int, rng: np.random.Generator | None) -> Shown:
        """The picture at a position as `rng` draws it for training, or (None) as it is at test time."""
        case, view = self.cohort[index], self.view
        if index not in self._around:
            self._around[index] = view.around(case)
        around = self._around[index]
        working, source = self.working(index, rng is not None, around)
        label = self.cohort.class_index(case.label)
        if rng is None:
            frame = view.test_frame(source, around)
            return Shown(sample(working, frame), frame, source, label)
        if view.patches is not None:
            findings = boxes_of(case)
            frame = view.patch_frame(source, rng, findings)
            label = patch_label(case, self.cohort.classes, findings, frame)
        else:
            frame = view.training_frame(source, rng, around)
        return Shown(view.tone(sample(working, frame), rng), frame, source, label)
