"""Where a unit responds, on the grid of what the network saw: activations enlarged, held against their threshold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import patheffects
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import uniform_filter
from skimage.measure import find_contours
from torch.nn import functional

from sightline.data.views.volume_view import VolumeView
from sightline.errors import GeometryError, UnreadableFile
from sightline.io.image import read_image
from sightline.io.nifti import read_volume, write_volume
from sightline.io.volume import compute_affine_within
from sightline.plots.overlay import HEAT, Pixels
from sightline.structures.case import Case
from sightline.structures.frame import Frame
from sightline.structures.resampling import check_maps, place_on_grid

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, eq=False)
class Response:
    """A unit's response to one case.

    Attributes:
        level: float64 [*s], 0 where the unit is not above its threshold, up to 1 at its highest.
        above: bool [*s], where it is above.
    """

    level: NDArray[np.float64]
    above: NDArray[np.bool_]

    @property
    def peak(self) -> tuple[int, ...]:
        """The pixel or voxel of highest response."""
        return tuple(int(i) for i in np.unravel_index(int(self.level.argmax()), self.level.shape))

    def slice_along(self, axis: int) -> int:
        """The slice across an axis in which this unit responds most (sum of its level)."""
        others = tuple(a for a in range(self.level.ndim) if a != axis)
        return int(self.level.sum(axis=others).argmax())

    def through(self) -> tuple[int, ...]:
        """The voxel in which the slices of greatest response meet."""
        return tuple(self.slice_along(axis) for axis in range(self.level.ndim))


def compute_response(
    cells: ArrayLike, threshold: float, shape: tuple[int, ...], window: NDArray[np.float64] | None = None
) -> Response:
    """A unit's activation on the input grid: enlarged (linear on every axis), then held against its threshold.

    Enlarging may take a lone cell below the threshold that it is above at the layer's own resolution; that cell's own
    pixels count then.

    Args:
        cells: [*m], activation at the layer's resolution.
        threshold: T_k.
        shape: of the input grid [*s].
        window: [2, 3], the part of a picture that the layer sees (`Evidence.window`); None: all of it.
    """
    array = check_maps(cells, "An activation", len(shape))
    if window is None:
        grown = _enlarge_linear(array, shape)
    else:
        rows, columns = shape
        grown = np.nan_to_num(place_on_grid(array, window, (rows, columns)), nan=-np.inf)
    above = grown > threshold
    lone = array > threshold
    if not above.any() and lone.any():
        grown = _enlarge_nearest(array, shape) if window is None else grown
        above = _enlarge_nearest(lone, shape) > 0 if window is None else grown >= grown.max()
    # heights are counted from the threshold where that is below zero, else from zero: r_k sums what is above
    floor = min(0.0, threshold)
    level = np.where(above, np.where(np.isfinite(grown), grown, floor) - floor, 0.0)
    top = float(level.max())
    return Response(level / top if top > 0 else level, above)


def _enlarge_linear(cells: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Half-pixel centres, linear between cells, constant beyond the outermost."""
    if cells.ndim not in _MODES:
        raise GeometryError(f"Activations have one to three axes; got {cells.ndim}.")
    grid = functional.interpolate(
        torch.from_numpy(cells)[None, None], size=shape, mode=_MODES[cells.ndim], align_corners=False
    )
    return np.asarray(grid[0, 0].numpy())


def _enlarge_nearest(cells: NDArray[np.float64] | NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.float64]:
    index = [np.minimum((np.arange(n) * m) // n, m - 1) for n, m in zip(shape, cells.shape, strict=True)]
    return np.asarray(cells[np.ix_(*index)], dtype=np.float64)


CONTOUR = "#ffe600"
# opacity of the colour at a unit's threshold and at its highest: the bone must stay readable through it
TINT = (0.16, 0.42)


def tint_units(grey: Pixels, level: NDArray[np.float64], above: NDArray[np.bool_]) -> Pixels:
    """A grey picture [h, w] in colour where a unit is above its threshold, the higher the stronger: RGB [h, w, 3]."""
    low, high = TINT
    opacity = np.where(above, low + (high - low) * level, 0.0)[..., None]
    colour = HEAT(0.35 + 0.65 * level)[..., :3]
    return np.asarray((1.0 - opacity) * grey[..., None] + opacity * colour, dtype=np.float32)


def trace_contours(above: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Outlines [n, 2] of an area, (row, column) from the corner of pixel (0, 0)."""
    # one pixel of padding, and contour coordinates are pixel centres: minus one, plus a half
    return [line - 0.5 for line in find_contours(np.pad(above.astype(np.float32), 1), 0.5)]


def draw_contour(axes: Any, above: NDArray[Any], width_pt: float = 1.2) -> None:
    """The outline of an area [h, w] on axes made by `show`."""
    halo = [patheffects.Stroke(linewidth=2 * width_pt, foreground="black", alpha=0.7), patheffects.Normal()]
    for line in trace_contours(np.asarray(above, dtype=bool)):
        axes.plot(
            line[:, 1], line[:, 0], color=CONTOUR, linewidth=width_pt, path_effects=halo, scalex=False, scaley=False
        )


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
    affine = compute_affine_within(frame, volume.affine)
    shown = _cut_voxels(volume.values, frame)
    found = compute_response(cells, threshold, frame.shape)
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{name}_{what}.nii.gz" for what in ("ct", "activation", "masked"))
    write_volume(paths[0], shown, affine)
    write_volume(paths[1], found.level.astype(np.float32), affine)
    write_volume(paths[2], np.where(found.above, shown, AIR_HU).astype(shown.dtype), affine)
    return paths[0], paths[1], paths[2]


def _cut_voxels(values: NDArray[np.generic], frame: Frame) -> NDArray[np.int16]:
    """The voxels of a frame that is cut, not turned, from its volume."""
    linear = frame.to_source[:3, :3]
    start = frame.to_source[:3, 3]
    if not np.array_equal(linear, np.eye(3)) or not np.array_equal(start, np.round(start)):
        raise UnreadableFile("The view turns or scales its volumes; their voxels are not the file's.", "")
    a, b, c = (slice(int(s), int(s) + n) for s, n in zip(start, frame.shape, strict=True))
    return np.asarray(np.round(values[a, b, c].astype(np.float64)), dtype=np.int16)


def compute_source_response(
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
    return compute_response(cells, threshold, shape, to_grid[:2])


def read_picture(case: Case, most_px: int = OVERLAY_PX) -> tuple[Pixels, Frame]:
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
    picture = Image.fromarray((tint_units(grey, found.level, found.above) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for line in trace_contours(found.above):
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
