"""A case's own frame, that of its test-time view, and maps of a part of the view laid over the whole of it."""

from __future__ import annotations

import numpy as np

from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.io.image import read_image
from sightline.io.nifti import read_volume
from sightline.structures.case import Case
from sightline.structures.frame import Frame
from sightline.structures.regions import is_volume


def source_frame(case: Case) -> Frame:
    """The frame of a case's picture or volume, which is read only if the layout does not state its shape."""
    if case.shape:
        return Frame.of_image(case.shape, case.spacing_mm)
    return read_volume(case.image).frame if is_volume(case.image) else read_image(case.image).frame


def case_frame(case: Case, view: View | VolumeView) -> Frame:
    """The frame of what a network sees of a case at test time."""
    source = source_frame(case)
    if isinstance(view, VolumeView):
        # the view frames a grid whatever stands on it: an array of one number that takes no memory
        frame = view.test(np.broadcast_to(np.int16(0), source.shape))[1]
        return Frame(frame.shape, frame.to_source, source.spacing_mm)
    return view.test_frame(source, view.around(case))
