"""A projection as a plane with a frame of reference of its own.

A radiograph has no place in the patient, but a segmentation that a viewer draws and a parametric map need a plane to
lie in. It gets one that nothing else shares: x runs along a row of pixels, y along a column, in millimetres, with the
origin at the centre of pixel (0, 0). It says where a result lies in the image, and nothing about the patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from sightline.io.dicom_results.header import SourceImage
from sightline.io.dicom_results.identity import make_uid

PLANE_SAYS = "Placed in the image alone: its frame of reference is its own and says nothing about the patient."
ASSUMED_MM = "The image states no size of its pixels; 1 mm was assumed for its plane"
# a square angle within what a decimal string can hold
SHEAR = 1e-6


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """Where a grid of cells lies, as DICOM says it.

    Attributes:
        position: [3] mm, centre of the first cell.
        orientation: [6], direction of a row (growing column), then of a column (growing row).
        spacing: (between rows, between columns) in mm.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]

    def sequences(self) -> tuple[Any, Any, list[Any]]:
        """Pixel measures, plane orientation and plane positions, as highdicom takes them."""
        measures = hd.PixelMeasuresSequence(pixel_spacing=self.spacing, slice_thickness=1.0)
        orientation = hd.PlaneOrientationSequence("PATIENT", self.orientation)
        return measures, orientation, [hd.PlanePositionSequence("PATIENT", self.position)]


def read_pixel_mm(header: Dataset) -> tuple[float, float] | None:
    """Size of a pixel (rows, columns) in mm: PixelSpacing, else ImagerPixelSpacing, else None."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        value = header.get(keyword)
        if value is not None and hasattr(value, "__len__") and len(value) == 2:
            rows, columns = float(value[0]), float(value[1])
            if np.isfinite([rows, columns]).all() and rows > 0 and columns > 0:
                return rows, columns
    return None


def build_plane_of_image(source: SourceImage) -> ImagePlane:
    """The plane of an image's own pixels."""
    rows, columns = read_pixel_mm(source.header) or (1.0, 1.0)
    return ImagePlane((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (rows, columns))


def build_plane_of_cells(source: SourceImage, to_source: NDArray[np.float64]) -> ImagePlane | None:
    """The plane of cells laid over an image, or None where they are sheared and no plane can hold them.

    Args:
        source: the image.
        to_source: [3, 3], from cells to pixels, (row, column) from the corner.
    """
    rows, columns = read_pixel_mm(source.header) or (1.0, 1.0)
    size = np.array([rows, columns])
    along = np.asarray(to_source, dtype=np.float64)[:2, :2] * size[:, None]
    down, right = along[:, 0], along[:, 1]
    lengths = float(np.linalg.norm(down)), float(np.linalg.norm(right))
    if min(lengths) <= 0 or abs(float(down @ right)) > SHEAR * lengths[0] * lengths[1]:
        return None
    centre = (np.asarray(to_source)[:2] @ np.array([0.5, 0.5, 1.0]) - 0.5) * size
    right, down = right / lengths[1], down / lengths[0]
    # DICOM writes x (along a row) before y
    orientation = (float(right[1]), float(right[0]), 0.0, float(down[1]), float(down[0]), 0.0)
    return ImagePlane((float(centre[1]), float(centre[0]), 0.0), orientation, lengths)


def place_image_on_plane(source: SourceImage, run: str) -> Dataset:
    """The image's header as that of a slice in a frame of reference of its own, for highdicom to refer to."""
    header, plane = source.copy_as_single_frame(), build_plane_of_image(source)
    header.FrameOfReferenceUID = make_uid("frame of reference", source.uid, run)
    header.PositionReferenceIndicator = ""
    header.ImagePositionPatient = list(plane.position)
    header.ImageOrientationPatient = list(plane.orientation)
    header.PixelSpacing = list(plane.spacing)
    header.SliceThickness = 1.0
    for keyword in ("SpacingBetweenSlices", "NumberOfFrames"):
        if keyword in header:
            delattr(header, keyword)
    return header


def list_notes_of_plane(source: SourceImage) -> tuple[str, ...]:
    """What has to be said of the image's plane."""
    return () if read_pixel_mm(source.header) else (ASSUMED_MM,)
