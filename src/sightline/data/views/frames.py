"""A case's own frame, that of its test-time view, and what of a view decides the picture that a network is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import CohortError, UnreadableFile, count_noun
from sightline.io.image import read_frame, read_size
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.regions import Mask, is_volume


def find_source_frame(case: Case) -> Frame:
    """The frame of a case's picture or volume, which is read only if the layout does not state its shape."""
    if case.shape and (case.spacing_mm or is_volume(case.image) or not case.image.is_file()):
        return Frame.of_image(case.shape, case.spacing_mm)
    if is_volume(case.image):
        from sightline.io.nifti import read_volume

        return read_volume(case.image).frame
    # how high a pixel is for its width stands in the file
    try:
        return state_spacing(read_frame(case.image), case)
    except UnreadableFile:
        if case.shape is None:
            raise
        return Frame.of_image(case.shape)


def state_spacing(source: Frame, case: Case) -> Frame:
    """The frame of a case's picture, with the spacing that its cohort states, where it states one."""
    return source if case.spacing_mm is None else replace(source, spacing_mm=case.spacing_mm)


def find_case_frame(case: Case, view: View | VolumeView) -> Frame:
    """The frame of what a network sees of a case at test time."""
    source = find_source_frame(case)
    if isinstance(view, VolumeView):
        # the view frames a grid whatever stands on it: an array of one number that takes no memory
        frame = view.test(np.broadcast_to(np.int16(0), source.shape))[1]
        return Frame(frame.shape, frame.to_source, source.spacing_mm)
    return view.test_frame(source, view.around(case))


def refuse_misfit_masks(cohort: Cohort) -> None:
    """Refuse masks of another size than the picture that they mark: their pixels are not the picture's.

    A mask of a volume says by its affine where it lies, and one that does not decode is refused where it is drawn.

    Raises:
        CohortError: naming the first.
    """
    wrong = []
    for case in cohort:
        for region in case.regions:
            if not isinstance(region, Mask) or is_volume(case.image):
                continue
            try:
                size = read_size(region.source) if not isinstance(region.source, np.ndarray) else region.source.shape
                shape = find_source_frame(case).shape
            except UnreadableFile:
                continue
            if size != shape:
                wrong.append(f"{' x '.join(map(str, size))} on {case.case_id!r} of {' x '.join(map(str, shape))}")
    if wrong:
        raise CohortError(
            f"{count_noun(len(wrong), 'mask')} of cohort {cohort.name!r} of another size than the picture, e.g. one of "
            f"{wrong[0]} rows and columns.",
            "Draw masks on the picture itself, pixel for pixel; `sightline cohort check` names all.",
        )


def describe_shown(view: View | VolumeView) -> dict[str, object]:
    """What decides which picture a network sees when it is asked (and not while it is trained)."""
    if isinstance(view, VolumeView):
        return {"size": view.size, "window_hu": view.window_hu}
    shown: dict[str, object] = {"size": view.size, "equalise": view.equalise, "crop": view.crop}
    return shown if view.centre_crop is None else {**shown, "centre_crop": view.centre_crop}
