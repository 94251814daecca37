"""Maps are brought onto the grid of a picture, masks onto that of the volume they mark."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform

from sightline.errors import GeometryError, UnreadableFile
from sightline.structures.frame import Frame, measure_forms_apart_mm

P = ParamSpec("P")
T = TypeVar("T")

# some writers round their files up
_MAX_TRAILING_BYTES = 1024


def cache_by_file(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keep what was last read from files (`lru_cache`), and read again once a file among the arguments was rewritten.

    Args:
        maxsize: results kept.
    """

    def decorate(read: Callable[P, T]) -> Callable[P, T]:
        def read_stamped(stamps: object, *args: Any, **kwargs: Any) -> T:
            return read(*args, **kwargs)

        kept: Callable[..., T] = lru_cache(maxsize)(read_stamped)

        @wraps(read)
        def read_once(*args: P.args, **kwargs: P.kwargs) -> T:
            paths = (each for each in (*args, *kwargs.values()) if isinstance(each, Path))
            return kept(tuple(_stamp(path) for path in paths), *args, **kwargs)

        return read_once

    return decorate


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is written again: its inode, size and times; nothing where there is no file."""
    try:
        at = path.stat()
    except OSError:
        return ()
    return at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns


def place_on_grid(cells: ArrayLike, window: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
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
    resampled = affine_transform(values, linear, offset, output_shape=shape, order=1, mode="nearest")
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    at = linear @ np.stack([rows.ravel(), columns.ravel()]) + offset[:, None] + 0.5
    inside = ((at >= 0) & (at <= np.array(values.shape)[:, None])).all(axis=0).reshape(shape)
    return np.where(inside, resampled, np.nan)


def check_maps(maps: ArrayLike, what: str, ndim: int) -> NDArray[np.float64]:
    """Maps as float64 with `ndim` axes, none of them empty.

    Raises:
        GeometryError: another number of axes, no map or no cell, or a value that is not finite.
    """
    array = np.asarray(maps, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise GeometryError(f"{what} must have {ndim} axes and at least one cell; got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise GeometryError(
            f"{what} holds {int((~np.isfinite(array)).sum())} values that are not finite.",
            "A diverged training leaves such maps: look at its history.",
        )
    return array


def upsample_map(cells: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Bicubic g of Liao 2022 (section IV-A): a map [mh, mw] on the input grid [h, w]; of three axes, trilinear.

    Half-pixel centres (the first cell's centre is not the first pixel's). Clipped to the range of the cells: the
    cubic's overshoot beside a hot cell would otherwise be drawn as evidence against the class.
    """
    array = check_maps(cells, "A map", len(shape))
    low, high = float(array.min()), float(array.max())
    # scaled before interpolating, so that clipping is to exactly 0 and 1 and a flat map stays flat
    unit = (array - low) / (high - low) if high > low else np.zeros_like(array)
    shrinks = array.ndim == 2 and any(new < old for new, old in zip(shape, array.shape, strict=True))
    kernel: Kernel = "linear" if array.ndim != 2 else "smoothed cubic" if shrinks else "cubic"
    enlarged: NDArray[np.float64] = low + (high - low) * resample(unit, shape, kernel).clip(0.0, 1.0)
    return enlarged


Kernel = Literal["linear", "smoothed linear", "cubic", "smoothed cubic"]


def resample(values: NDArray[Any], shape: tuple[int, ...], kernel: Kernel) -> NDArray[Any]:
    """Values [..., *s] on another grid of their last axes, axis by axis, with half-pixel centres.

    The same as torch's `interpolate` with `align_corners=False`, without torch: a node that judges with onnxruntime
    draws maps and reads boxes off them, too. A type of floating point is kept.

    Args:
        values: as many last axes as `shape` has are resampled.
        shape: of the new grid.
        kernel: `linear`; `cubic` (Keys 1981, a = -3/4); `smoothed linear` or `smoothed cubic` (a = -1/2), which are
            widened where a grid shrinks (`antialias=True`; Pillow's bilinear is the former).
    """
    for axis, (old, new) in enumerate(zip(values.shape[-len(shape) :], shape, strict=True), -len(shape)):
        weights = _compute_weights(old, new, kernel).astype(values.dtype)
        # the two last axes are matrices already
        if axis == -1:
            values = values @ weights.T
        elif axis == -2:
            values = weights @ values
        else:
            values = np.moveaxis(np.moveaxis(values, axis, -1) @ weights.T, -1, axis)
    return values


@lru_cache(maxsize=64)
def _compute_weights(old: int, new: int, kernel: Kernel) -> NDArray[np.float64]:
    """What each of `old` cells counts for each of `new` ones: float64 [new, old], rows sum to 1."""
    scale = old / new
    weights = np.zeros((new, old))
    if kernel in ("smoothed linear", "smoothed cubic"):
        wide, reach = max(scale, 1.0), 1.0 if kernel == "smoothed linear" else 2.0
        for i in range(new):
            centre = scale * (i + 0.5)
            first, stop = max(int(centre - reach * wide + 0.5), 0), min(int(centre + reach * wide + 0.5), old)
            away = (np.arange(first, stop) + 0.5 - centre) / wide
            row = np.maximum(1.0 - np.abs(away), 0.0) if kernel == "smoothed linear" else _compute_cubic(away, -0.5)
            weights[i, first:stop] = row / row.sum()
        return weights
    at = scale * (np.arange(new) + 0.5) - 0.5
    if kernel == "linear":
        at = np.maximum(at, 0.0)
    first_cell = np.floor(at).astype(np.int64)
    for offset in (0, 1) if kernel == "linear" else (-1, 0, 1, 2):
        away = at - (first_cell + offset)
        share = 1.0 - np.abs(away) if kernel == "linear" else _compute_cubic(away, -0.75)
        # cells beyond the edge repeat it
        np.add.at(weights, (np.arange(new), np.clip(first_cell + offset, 0, old - 1)), share)
    return weights


def _compute_cubic(x: NDArray[Any], a: float) -> NDArray[np.float64]:
    """Keys' cubic kernel."""
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((x - 5.0) * x + 8.0) * x * a - 4.0 * a
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))


@cache_by_file(maxsize=8)
def read_labels(path: Path) -> NDArray[Any]:
    """The voxels of a NIfTI mask [i, j, k] in the order of its file.

    Raises:
        UnreadableFile: it does not decode, or its voxels are no real numbers.
    """
    import nibabel

    try:
        voxels: Any = nibabel.load(path).dataobj
        array = np.asarray(voxels)
        more = _count_bytes_after(path, voxels.offset + voxels.dtype.itemsize * array.size)
    except _list_decode_errors() as error:
        raise UnreadableFile(f"{path}: the mask does not decode ({error}).", "Export the mask again.") from None
    if more > _MAX_TRAILING_BYTES:
        raise UnreadableFile(
            f"{path}: more than {_MAX_TRAILING_BYTES} bytes follow the voxels that shape {array.shape} explains.",
            "Export the mask again.",
        )
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype.kind not in "iufb":
        raise UnreadableFile(f"{path}: the mask's voxels are {array.dtype}, not real numbers.", "Save labels.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UnreadableFile(f"{path}: the mask holds voxels that are no numbers.", "Export the mask again.")
    return array


def _count_bytes_after(path: Path, end: int) -> int:
    """How many bytes a file holds, unpacked, beyond what was read of it; a few more than are allowed are enough.

    gzip compares its checksum when its end is read, which nibabel does not do.
    """
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.stat().st_size - end
        file.seek(0)
        with gzip.GzipFile(fileobj=file) as stream:
            count = 0
            while count <= end + _MAX_TRAILING_BYTES and (piece := stream.read(1 << 22)):
                count += len(piece)
    return count - end


def place_labels_on_grid(path: Path, on: Path) -> NDArray[Any]:
    """A mask's labels in the axis order of the volume it marks, by the affines of both.

    Raises:
        UnreadableFile: they do not lie on one grid: other voxels, another place, or turned against each other.
    """
    labels = read_labels(path)
    mask_affine, (affine, whole) = _read_placement(path)[0], _read_placement(on)
    if mask_affine is None or affine is None:
        # a file that does not say where it lies can only lie as its neighbour
        if labels.shape != whole:
            raise UnreadableFile(
                f"{path}: the mask has {labels.shape} voxels, {on.name} {whole}, and they do not say where they lie.",
                "Give the mask of this volume, with its affine.",
            )
        return labels
    # from the mask's voxels to the volume's: on one grid, each axis is one of the other's, one way or the other
    between = np.linalg.inv(affine) @ mask_affine
    turn = np.rint(between[:3, :3])
    axes = np.abs(turn).argmax(axis=0)
    shape = np.array(labels.shape)
    on_grid = (
        len(set(axes.tolist())) == 3
        and bool((np.abs(turn).sum(axis=0) == 1).all())
        and labels.ndim == 3
        and float(np.abs((between[:3, :3] - turn) @ shape).max()) < 0.1
    )
    if on_grid:
        order = np.argsort(axes)
        moved = labels.transpose(order)
        signs = turn[axes, np.arange(3)][order]
        moved = moved[tuple(slice(None, None, int(sign)) for sign in signs)]
        # where the first voxel of what was turned lies in the volume
        start = between[:3, 3] + np.where(signs < 0, -(np.array(moved.shape) - 1), 0)
        if float(np.abs(start).max()) < 0.1 and moved.shape == whole:
            return moved
    raise UnreadableFile(
        f"{path}: the mask lies on another grid than {on.name} ({labels.shape} voxels of "
        f"{_format_lengths(mask_affine)} mm "
        f"from {mask_affine[:3, 3].round(2).tolist()}, the volume's {whole} of {_format_lengths(affine)} mm from "
        f"{affine[:3, 3].round(2).tolist()}).",
        "Resample the mask to the volume's grid (3D Slicer, TotalSegmentator's or nibabel's resample_from_to).",
    )


def _format_lengths(affine: NDArray[np.float64]) -> str:
    return " x ".join(f"{n:.3g}" for n in np.linalg.norm(affine[:3, :3], axis=0))


@cache_by_file(maxsize=256)
def _read_placement(path: Path) -> tuple[NDArray[np.float64] | None, tuple[int, ...]]:
    """Voxels to millimetres, None where the file does not state it (NIfTI: sform or qform), and its shape."""
    import nibabel

    try:
        image: Any = nibabel.load(path)
        codes = int(image.header["sform_code"]), int(image.header["qform_code"])
        shape = tuple(int(n) for n in image.shape)
        shape = shape[:3] if len(shape) > 3 and set(shape[3:]) == {1} else shape
        # metres and micrometres are rare, and allowed
        unit = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1.0)
        affine = np.diag([unit, unit, unit, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
        other = None if min(codes) <= 0 else np.diag([unit, unit, unit, 1.0]) @ image.header.get_qform()
    except _list_decode_errors() as error:
        raise UnreadableFile(f"{path}: the header does not decode ({error}).", "Export the file again.") from None
    if max(codes) <= 0:
        return None, shape
    if not np.isfinite(affine).all() or abs(float(np.linalg.det(affine[:3, :3]))) < 1e-9:
        raise UnreadableFile(
            f"{path}: the affine is not valid ({affine[:3].round(3).tolist()}).", "Export the file again."
        )
    if other is not None and len(shape) == 3:
        moved = measure_forms_apart_mm(affine, other, shape)
        if not moved <= np.linalg.norm(affine[:3, :3], axis=0).max():
            raise UnreadableFile(
                f"{path}: sform and qform contradict each other by up to {moved:.1f} mm within the mask.",
                "Find out which is right and set both to it, or export the mask again.",
            )
    return affine, shape


def _list_decode_errors() -> tuple[type[BaseException], ...]:
    """What nibabel raises at broken files; asked for when it has raised, so that it is not imported before."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    return OSError, ValueError, EOFError, KeyError, zlib.error, ImageFileError, HeaderDataError
