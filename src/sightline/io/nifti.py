"""NIfTI files as volumes: read whole and checked, or not at all; written at once, or not at all.

Orientation and spacing come from the file alone. The sform counts where its code is above 0, else the qform; a file
with neither says nothing about where its voxels lie and is refused (NIfTI-1 standard, Cox et al. 2004, methods 1 to 3).
"""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import ArrayLike, NDArray

from sightline.errors import GeometryError, SightlineError, UnreadableFile, count_noun
from sightline.io.nifti_header import (
    choose_affine,
    convert_to_labels,
    convert_to_stored,
    is_sheared,
    require_finite,
    scale_numbers,
)
from sightline.io.volume import Volume
from sightline.structures.frame import FloatArray

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MAX_VOXELS = 2**31
# some writers round their files up
MAX_TRAILING_BYTES = 1024
_QUIET = logging.Logger("nifti headers", logging.CRITICAL + 1)
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """What a NIfTI file says before its voxels.

    Attributes:
        shape: voxels along each axis.
        affine: [4, 4], voxel indices to millimetres, RAS+.
        facts: `orientation_from`, `stored_as`, ... as `Volume.facts`.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    facts: dict[str, str]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a voxel along each axis."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return i, j, k

    @property
    def orientation(self) -> tuple[str, str, str]:
        """The direction in which each index grows, e.g. ("P", "I", "R")."""
        a, b, c = nibabel.orientations.aff2axcodes(self.affine)
        return a, b, c


def read_volume(path: Path, *, labels: bool = False) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 file (`.nii`, `.nii.gz`; the packing is known by content).

    Args:
        path: the file.
        labels: whether the voxels are labels: whole numbers from 0, else an error.

    Returns:
        Values with scl_slope and scl_inter applied, in the file's axis order: int16 where all are whole and fit (as
        Hounsfield units do), else float32; labels as uint8, or uint16 above 255. Frames beyond the third axis are
        squeezed where there is one.

    Raises:
        UnreadableFile: missing, no NIfTI, truncated, damaged (the checksum of gzip is compared), real 4D data, colour,
            no orientation, sform and qform that contradict each other, absurd spacing, a sheared grid, voxels that
            are no numbers, or labels that are none.
    """
    path = Path(path)
    with _translate_parser_errors(path), _open_unpacked(path) as (stream, most):
        nifti = _read_nifti_header(stream, path)
        header = _check_header(nifti, path)
        voxels = _read_voxels(stream, most, nifti, header.shape, path)
    slope, inter = _scale(nifti, path)
    values = convert_to_labels(voxels, slope, inter, path) if labels else scale_numbers(voxels, slope, inter, path)
    require_finite(values, path, "Store them in a smaller range: a float32 holds no more than 3.4e38.")
    return Volume(values, header.affine, header.facts)


def read_volume_header(path: Path) -> VolumeHeader:
    """Read shape and place alone, in milliseconds; says nothing about whether the voxels are all there.

    Raises:
        UnreadableFile: as `read_volume`, for what the header can show.
    """
    path = Path(path)
    with _translate_parser_errors(path), _open_unpacked(path) as (stream, _):
        return _check_header(_read_nifti_header(stream, path), path)


def write_volume(path: Path, values: NDArray[Any], affine: ArrayLike) -> None:
    """Write a volume; the file appears complete or not at all, and equal volumes give equal bytes.

    Args:
        path: ends in `.nii` or `.nii.gz` (compressed).
        values: [i, j, k]; bool becomes uint8, float64 float32, and int64 the smallest type that holds it.
        affine: [4, 4], voxel indices to millimetres, RAS+; both sform and qform are set (code 1, scanner), so that
            every viewer agrees; a sheared affine fits the sform alone.

    Raises:
        GeometryError: another suffix, not three axes, or whole numbers beyond 32 bits.
    """
    path = Path(path)
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise GeometryError(f"{path}: a volume is written as .nii or .nii.gz.", "Give one of these suffixes.")
    volume = Volume(convert_to_stored(np.asarray(values), path), np.asarray(affine, dtype=np.float64))
    image = nibabel.Nifti1Image(volume.values, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=0 if is_sheared(volume.affine) else 1)
    data = image.to_bytes()
    if path.name.endswith(".gz"):
        # no time stamp, so that writing twice gives the same bytes
        data = gzip.compress(data, compresslevel=4, mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _translate_parser_errors(path: Path) -> Iterator[None]:
    """One clear error for whatever broken bytes make zlib and nibabel raise."""
    try:
        yield
    except SightlineError:
        raise
    except FileNotFoundError:
        raise UnreadableFile(f"{path}: no such file.", "Check the path.") from None
    except IsADirectoryError:
        raise UnreadableFile(f"{path}: a folder; one NIfTI file was expected.", "Name the file inside it.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableFile(
            f"{path}: the compressed data are truncated or damaged ({error}).", "Copy or download the file again."
        ) from None
    except (HeaderDataError, ValueError, TypeError, OSError) as error:
        raise UnreadableFile(
            f"{path}: the NIfTI header does not parse ({' '.join(str(error).split())[:200]}).",
            "Convert or copy the file again.",
        ) from None


@contextmanager
def _open_unpacked(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """The unpacked bytes, and how many there can be at most: gzip packs a thousand into one at best."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if not packed:
            yield file, path.stat().st_size
            return
        with gzip.GzipFile(fileobj=file) as stream:
            yield cast(IO[bytes], stream), path.stat().st_size * 1100


def _read_nifti_header(stream: IO[bytes], path: Path) -> Any:
    head = stream.read(540)
    if len(head) < 348:
        raise UnreadableFile(
            f"{path}: {count_noun(len(head), 'byte')}; a NIfTI header alone has 348. The file is empty or truncated.",
            "Copy or download the file again.",
        )
    if head[344:348] in (b"ni1\0", b"ni2\0") or head[4:8] == b"ni2\0":
        raise UnreadableFile(
            f"{path}: the header of a pair (.hdr and .img); one file with header and voxels was expected.",
            "Save it as a single .nii or .nii.gz file.",
        )
    if head[344:348] == b"n+1\0":
        return _repair_header(nibabel.Nifti1Header.from_fileobj(BytesIO(head[:348]), check=False))
    if head[4:8] == b"n+2\0" and len(head) == 540:
        return _repair_header(nibabel.Nifti2Header.from_fileobj(BytesIO(head), check=False))
    # an Analyze header has the length of a NIfTI header but not its magic, and no orientation at all
    kind = (
        "an Analyze 7.5 file, which states no orientation"
        if 348 in _read_lengths(head)
        else "no NIfTI file (wrong magic)"
    )
    raise UnreadableFile(f"{path}: {kind}.", "Convert the original DICOM series to NIfTI, or give its folder.")


def _repair_header(header: Any) -> Any:
    """The header with small offences against the standard mended, as every reader does, but without a word of it."""
    header.check_fix(logger=_QUIET, error_level=40)
    return header


def _read_lengths(head: bytes) -> tuple[int, int]:
    return int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")


def _check_header(nifti: Any, path: Path) -> VolumeHeader:
    shape = tuple(int(n) for n in nifti.get_data_shape())
    if len(shape) > 3 and all(n == 1 for n in shape[3:]):
        shape = shape[:3]
    if len(shape) != 3:
        raise UnreadableFile(
            f"{path}: {len(shape)}D data of shape {shape}; one volume with three axes was expected.",
            "Save the frame you need as a volume of its own." if len(shape) > 3 else "Give the whole volume.",
        )
    dtype = nifti.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UnreadableFile(
            f"{path}: the voxels are stored as {nifti['datatype']} ({dtype}); real numbers were expected.",
            "Give the grey original, not a colour or complex copy.",
        )
    if min(shape) < 1 or int(np.prod([float(n) for n in shape])) > MAX_VOXELS:
        raise UnreadableFile(
            f"{path}: the shape is stated as {shape}; at least one voxel an axis and at most {MAX_VOXELS} in all "
            "are read.",
            "The header is broken; convert the file again.",
        )
    i, j, k = shape
    affine, source = choose_affine(nifti, (i, j, k), path)
    return VolumeHeader((i, j, k), affine, {"format": "NIfTI", "orientation_from": source, "stored_as": dtype.name})


def _read_voxels(stream: IO[bytes], most: int, nifti: Any, shape: tuple[int, int, int], path: Path) -> NDArray[Any]:
    """The stored numbers [i, j, k], Fortran order as in the file; every byte is there and the checksum holds."""
    # 0 is written by some and means "where voxels start at the earliest"
    offset = max(int(nifti.get_data_offset()), int(nifti.single_vox_offset))
    dtype = nifti.get_data_dtype()
    size = int(np.prod(shape)) * dtype.itemsize
    # no memory for voxels that cannot be there
    if most < offset + size:
        raise _build_truncation_error(path, most - offset, size, shape, dtype)
    buffer = np.empty(size, dtype=np.uint8)
    stream.seek(offset)
    got, view = 0, buffer.data
    while got < size:
        more = stream.readinto(view[got:])  # type: ignore[attr-defined]
        if not more:
            raise _build_truncation_error(path, got, size, shape, dtype)
        got += more
    # gzip compares its checksum when the end is read
    if len(stream.read(MAX_TRAILING_BYTES + 1)) > MAX_TRAILING_BYTES:
        raise UnreadableFile(
            f"{path}: more than {MAX_TRAILING_BYTES} bytes follow the voxels that shape {shape} of {dtype.name} from "
            f"byte {offset} explains, so the header does not describe these data.",
            "Convert the file again.",
        )
    stored = buffer.view(dtype).reshape(shape, order="F")
    return stored if dtype.isnative else stored.astype(dtype.newbyteorder("="))


def _build_truncation_error(path: Path, got: int, size: int, shape: tuple[int, ...], dtype: Any) -> UnreadableFile:
    return UnreadableFile(
        f"{path}: at most {count_noun(max(got, 0), 'byte')} of voxels, where shape {shape} of "
        f"{dtype.name} needs {size}. The file is "
        "truncated.",
        "Copy or download the file again.",
    )


def _scale(nifti: Any, path: Path) -> tuple[float, float]:
    # nibabel reads slope 0 or none as "no scaling"
    with _translate_parser_errors(path):
        slope, inter = nifti.get_slope_inter()
    return (1.0, 0.0) if slope is None else (float(slope), float(inter or 0.0))
