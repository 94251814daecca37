"""A unit's response as files for a viewer: NIfTI in the CT's own space of volumes, overlays in colour of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import uniform_filter

from sightline.case import Case
from sightline.cohorts.volume_view import VolumeView
from sightline.errors import UnreadableFile
from sightline.frame import Frame
from sightline.io.image import read_image
from sightline.io.nifti import read_volume, write_volume
from sightline.io.volume import affine_within
from sightline.lab.overlay import Pixels
from sightline.lab.unit_maps import Response, response
from sightline.lab.unit_tint import CONTOUR, contours, tinted

AIR_HU = -1024
OVERLAY_PX = 1024
# share of a picture's longer side that a close-up shows
CLOSE = 0.3


def write_unit_nifti(
    folder: Path, name: str, case: Case, view: VolumeView, cells: NDArray[np.float64], threshold: float
) -> tuple[Path, Path, Path]:
    """Write `NAME_ct.nii.gz`, `NAME_activation.nii.gz` and `NAME_masked.nii.gz`; all three on what the network saw.

    The affines carry the place in the patient from the patch's file on: loaded beside the CT in 3D Slicer or ITK-SNAP,
    they lie where they belong. CT: Hounsfield units, not windowed. Activation: enlarged (trilinear), 0 where not above
    its threshold, 1 at its highest. Masked: Hounsfield units where the unit is above, air elsewhere.

    Args:
        folder: where to write.
        name: of the case, as a file name.
        case: whose image is a volume.
        view: the run's.
        cells: [md, mh, mw], activation as the layer gives it (not turned).
        threshold: T_k.
    """
    volume = read_volume(case.image)
    _, frame = view.test(volume.values)
    affine = affine_within(frame, volume.affine)
    shown = _cut(volume.values, frame)
    found = response(cells, threshold, frame.shape)
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{name}_{what}.nii.gz" for what in ("ct", "activation", "masked"))
    write_volume(paths[0], shown, affine)
    write_volume(paths[1], found.level.astype(np.float32), affine)
    write_volume(paths[2], np.where(found.above, shown, AIR_HU).astype(shown.dtype), affine)
    return paths[0], paths[1], paths[2]


def _cut(values: NDArray[np.generic], frame: Frame) -> NDArray[np.int16]:
    """The voxels of a frame that is cut, not turned, from its volume."""
    linear = frame.to_source[:3, :3]
    start = frame.to_source[:3, 3]
    if not np.array_equal(linear, np.eye(3)) or not np.array_equal(start, np.round(start)):
        raise UnreadableFile("The view turns or scales its volumes; their voxels are not the file's.", "")
    a, b, c = (slice(int(s), int(s) + n) for s, n in zip(start, frame.shape, strict=True))
    return np.asarray(np.round(values[a, b, c].astype(np.float64)), dtype=np.int16)


def source_response(
    cells: NDArray[np.float64], threshold: float, view: Frame, grid: Frame, window: NDArray[np.float64] | None = None
) -> Response:
    """A unit's response on another grid than that of the view.

    Args:
        cells: [mh, mw].
        threshold: T_k.
        view: frame of what the network saw.
        grid: the frame [h, w] to lay it on; both in the same source pixels.
        window: [2, 3], the part of the view that the layer saw; None: all of it.
    """
    seen = view if window is None else view.within(window, view.shape)
    shape = grid.shape
    of_fractions = np.diag([*map(float, seen.shape), 1.0])
    to_fractions = np.diag([*(1.0 / n for n in shape), 1.0])
    to_grid = to_fractions @ np.linalg.inv(grid.to_source) @ seen.to_source @ of_fractions
    return response(cells, threshold, shape, to_grid[:2])


def picture_of(case: Case, most_px: int = OVERLAY_PX) -> tuple[Pixels, Frame]:
    """A case's picture, grey [h, w] in 0..1, at most `most_px` long, and its frame in the file's own pixels."""
    picture = read_image(case.image)
    grey = picture.pixels.astype(np.float32) / np.iinfo(picture.pixels.dtype).max
    grey = grey if grey.ndim == 2 else grey.mean(axis=2, dtype=np.float32)
    scale = min(1.0, most_px / max(grey.shape))
    shape = (max(1, round(grey.shape[0] * scale)), max(1, round(grey.shape[1] * scale)))
    frame = Frame.of_image(grey.shape).resize(shape)
    if scale < 1.0:
        grey = np.asarray(Image.fromarray(grey).resize((shape[1], shape[0]), Image.Resampling.BOX))
    return np.clip(grey, 0.0, 1.0), frame


def write_overlay(path: Path, grey: Pixels, found: Response) -> None:
    """Write a picture under a unit's colour and contour, pixel for pixel."""
    picture = Image.fromarray((tinted(grey, found.level, found.above) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for line in contours(found.above):
        pen.line([(x, y) for y, x in line], fill=CONTOUR, width=max(1, max(grey.shape) // 400))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG", optimize=False)


def close_up(grey: Pixels, found: Response, grid: Frame) -> tuple[Pixels, Response, Frame]:
    """The square in which a unit responds most: its pixels, response, and frame."""
    side = max(16, round(CLOSE * max(grey.shape)))
    sides = [min(side, n) for n in grey.shape]
    # the middle of the densest area, not the highest pixel, which may be alone at an edge
    dense = uniform_filter(found.level, size=[max(1, n // 3) for n in sides], mode="constant")
    middle = np.unravel_index(int(dense.argmax()), dense.shape)
    a, b = (int(np.clip(p - n // 2, 0, most - n)) for p, n, most in zip(middle, sides, grey.shape, strict=True))
    part = (slice(a, a + sides[0]), slice(b, b + sides[1]))
    return np.ascontiguousarray(grey[part]), Response(found.level[part], found.above[part]), grid.crop((a, b), sides)
