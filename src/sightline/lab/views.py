"""A case's own frame, that of its test-time view, and maps of a part of the view laid over the whole of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform

from sightline.case import Case
from sightline.cohorts.transforms import View
from sightline.cohorts.volume_view import VolumeView
from sightline.frame import Frame
from sightline.io.image import read_image
from sightline.io.nifti import read_volume
from sightline.region import is_volume


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


def laid_over(cells: ArrayLike, window: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A map of a window on the grid of the whole view: float64 [h, w], NaN outside the window (bilinear).

    Args:
        cells: [mh, mw].
        window: [2, 3], affine from map fractions to fractions of the view (`Evidence.window`).
        shape: (h, w) of the view's grid.
    """
    values = np.asarray(cells, dtype=np.float64)
    grid = Frame.of_image(shape)
    # the grid's pixel centres in map cells: both at + 0.5, which the interpolation counts from 0
    to_cells = np.linalg.inv(grid.within(window, (values.shape[0], values.shape[1])).to_source)
    linear = to_cells[:2, :2]
    offset = linear @ np.array([0.5, 0.5]) + to_cells[:2, 2] - 0.5
    laid = affine_transform(values, linear, offset, output_shape=shape, order=1, mode="nearest")
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    at = linear @ np.stack([rows.ravel(), columns.ravel()]) + offset[:, None] + 0.5
    inside = ((at >= 0) & (at <= np.array(values.shape)[:, None])).all(axis=0).reshape(shape)
    return np.where(inside, laid, np.nan)
