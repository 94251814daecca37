"""What a network is shown of the cases of a cohort: pictures, read once and reduced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sightline.data.lru_cache import LRUCache
from sightline.data.views.crops import Corners, list_boxes
from sightline.data.views.frames import state_spacing
from sightline.data.views.image_view import ReducedPicture, View, sample
from sightline.data.views.patches import choose_patch_label
from sightline.data.views.volume_view import VolumeView
from sightline.errors import CohortError
from sightline.io.image import read_image
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import is_volume

CACHE_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class LoadedView:
    """A case as a network is shown it.

    Attributes:
        image: float32 [c, *s] in 0..1, or what is kept in its place, int16 [n].
        frame: the image's grid in the source.
        source: the frame of the source itself.
        label: class index; of a patch of a picture, what the patch shows.
    """

    image: NDArray[np.float32] | NDArray[np.int16]
    frame: Frame
    source: Frame
    label: int


class Encoder(Protocol):
    """What keeps something of shown images, so that an image shown again need not be sampled again."""

    def name(self, case: Case, drawn: str) -> str:
        """What an image of a case is kept under: the case's picture, and which draw of it."""
        ...

    def find(self, key: str) -> NDArray[np.int16] | None:
        """What is kept under a key, or None."""
        ...

    def encode(self, key: str, image: NDArray[np.float32]) -> NDArray[np.int16]:
        """Make it of an image [c, *s], and keep it."""
        ...


class Pictures:
    """The cohort's pictures, read once, reduced and kept within a memory budget (least recently used leaves)."""

    def __init__(self, cohort: Cohort, view: View, cache_bytes: int = CACHE_BYTES) -> None:
        self.cohort = cohort
        self.view = view
        self.kept: LRUCache[tuple[int, bool], tuple[ReducedPicture, Frame]] = LRUCache(
            cache_bytes, lambda entry: entry[0].bytes
        )
        self._around: dict[int, Corners | None] = {}
        self._findings: dict[int, tuple[Corners, ...]] = {}

    def load_reduced(self, index: int, training: bool, around: Corners | None = None) -> tuple[ReducedPicture, Frame]:
        """The reduced picture and the frame of the source picture itself."""

        def read() -> tuple[ReducedPicture, Frame]:
            picture = read_image(self.cohort[index].image)
            source = state_spacing(picture.frame, self.cohort[index])
            return self.view.reduce(picture.pixels, source, around=around, training=training), source

        return self.kept.get((index, training), read)

    def show(self, index: int, rng: np.random.Generator | None, known: NDArray[np.int16] | None = None) -> LoadedView:
        """The picture at a position as `rng` draws it for training, or (None) as it is at test time.

        Where something `known` of it stands in for its pixels, they are not sampled.
        """
        case, view = self.cohort[index], self.view
        if index not in self._around:
            self._around[index] = view.around(case)
        around = self._around[index]
        working, source = self.load_reduced(index, rng is not None, around)
        label = self.cohort.class_index(case.label)
        if rng is None:
            frame = view.test_frame(source, around)
            return LoadedView(sample(working, frame) if known is None else known, frame, source, label)
        if view.patches is not None:
            if index not in self._findings:
                self._findings[index] = list_framing_boxes(case, view, training=True)
            findings = self._findings[index]
            frame = view.patch_frame(source, rng, findings)
            if view.patches.labels == "marks":
                label = choose_patch_label(case, self.cohort.classes, findings, frame)
        else:
            frame = view.training_frame(source, rng, around)
        pixels = view.tone(sample(working, frame), rng) if known is None else known
        return LoadedView(pixels, frame, source, label)


def list_framing_boxes(case: Case, view: View, *, training: bool) -> tuple[Corners, ...]:
    """The boxes of a case's marks that decide how a view frames it in training or at test time."""
    if view.patches is not None:
        return list_boxes(case) if training and view.patches.labels == "marks" else ()
    around = view.around(case) if training or view.crop is not None else None
    return () if around is None else (around,)


class Volumes:
    """The cohort's volumes, read once and kept within a memory budget (least recently used leaves)."""

    def __init__(self, cohort: Cohort, view: VolumeView, cache_bytes: int = CACHE_BYTES) -> None:
        self.cohort = cohort
        self.view = view
        self.kept: LRUCache[int, tuple[NDArray[Any], Frame]] = LRUCache(cache_bytes, lambda entry: entry[0].nbytes)

    def volume(self, index: int) -> tuple[NDArray[Any], Frame]:
        """The numbers of the volume at a position, and its own frame."""

        def read() -> tuple[NDArray[Any], Frame]:
            from sightline.io.nifti import read_volume

            volume = read_volume(self.cohort[index].image)
            return volume.values, volume.frame

        return self.kept.get(index, read)

    def show(self, index: int, rng: np.random.Generator | None) -> LoadedView:
        """The volume at a position as `rng` draws it for training, or (None) as it is at test time."""
        values, source = self.volume(index)
        image, frame = self.view.test(values) if rng is None else self.view.training(values, rng)
        # the view knows the grid alone; how large a voxel is stands in the file
        frame = Frame(frame.shape, frame.to_source, source.spacing_mm)
        return LoadedView(image, frame, source, self.cohort.class_index(self.cohort[index].label))


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
