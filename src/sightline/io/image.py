"""PNG, JPEG, TIFF and DICOM files as pictures; the type is known by content, never by the name alone.

16-bit pictures state no display range, so the range from their darkest to their brightest pixel is stretched to
the whole of uint16. 8-bit pictures are passed as they are. Orientations are applied, as every viewer does: regions
drawn on screen are in oriented pixels, and so is the frame. What a file holds is read by `structures.pictures`, which
masks are read by, too. The readers of DICOM are imported with the first DICOM file.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import SightlineError, UnreadableFile
from sightline.io.picture import (
    DICOM_SUFFIXES,
    Picture,
    Pixels,
    Reject,
    has_dicom_mark,
    stretch_to_uint16,
    write_rejects,
)
from sightline.structures.frame import Frame
from sightline.structures.pictures.raster import (
    find_picture_kind,
    measure_whole_png,
    read_raster,
    read_raster_frame,
    reduce_to_grey,
    require_sane_size,
)
from sightline.structures.regions import is_volume

__all__ = ["Picture", "Reject", "find_images", "read_image", "write_rejects"]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
# pictures and volumes that are not read here: they are listed, so that they are rejected aloud and not passed over
_OTHER_SUFFIXES: tuple[str, ...] = (
    ".bmp",
    ".gif",
    ".webp",
    ".jp2",
    ".j2k",
    ".jls",
    ".jxl",
    ".heic",
    ".avif",
    ".pgm",
    ".ppm",
    ".nii",
)
_OTHER_SUFFIXES += (".gz", ".mha", ".nrrd", ".zip", ".tar", ".tgz", ".7z", ".rar")


def read_image(path: Path) -> Picture:
    """Read a PNG, JPEG, TIFF or DICOM file.

    Args:
        path: the file; its type is taken from its content.

    Returns:
        Grey pictures as [H, W] (also when stored as equal red, green and blue), true colour as uint8 [H, W, 3].

    Raises:
        UnreadableFile: missing, of another type, truncated, of several pages, or of an absurd size.
    """
    path = Path(path)
    head = read_head(path)
    if _is_dicom(path, head):
        from sightline.io.dicom.radiograph import read_dicom

        return read_dicom(path)
    if find_picture_kind(head) is None:
        if head[:2] in (b"\2\0", b"\x08\0"):
            raise UnreadableFile(
                f"{path}: it begins as a DICOM data set does, without the mark 'DICM' and the file meta information.",
                "Export the image again as a DICOM file (Part 10) with its meta information.",
            )
        raise UnreadableFile(
            f"{path}: the content is {'empty' if not head else 'neither PNG, JPEG, TIFF nor DICOM'}.",
            "Give a radiograph in one of these formats.",
        )
    raster = read_raster(path)
    facts = {"format": raster.kind, "mode": raster.mode}
    if raster.software:
        facts["software"] = raster.software
    if raster.aspect != 1.0:
        facts["pixel_aspect"] = f"{raster.aspect:.4g}"
    pixels = _convert_to_display(path, raster.values)
    return Picture(pixels, Frame.of_image(pixels.shape[:2], aspect=raster.aspect), facts)


def convert_array(values: NDArray[Any], name: Path) -> Picture:
    """An array as a file of the same numbers is read: 8 bits stay as they are, more are stretched.

    Args:
        values: integers [h, w] or [h, w, 3], brighter is denser; colours that are all grey become [h, w].
        name: what errors call it.

    Raises:
        UnreadableFile: another type or shape, or an absurd size.
    """
    if values.dtype.kind not in "ui" or not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3))):
        remedy = "Give integers of shape [rows, columns] or [rows, columns, 3]; brighter is denser."
        if values.dtype.kind == "f":
            remedy += " Floating-point numbers have no range of display: (255 * x).astype('uint8') where 1 is white."
        raise UnreadableFile(
            f"{name}: an array {values.dtype} of shape {list(values.shape)} is no picture.", remedy
        )  # fmt: skip
    require_sane_size(name, *values.shape[:2])
    if values.ndim == 3:
        values = values[..., 0] if values.shape[2] == 1 else reduce_to_grey(values)
    pixels = _convert_to_display(name, values)
    return Picture(pixels, Frame.of_image(pixels.shape[:2]))


def read_frame(path: Path) -> Frame:
    """The frame of a picture from its header alone, as `read_image` would give it.

    Raises:
        UnreadableFile: as `read_image`, or a DICOM file that does not state its size.
    """
    path = Path(path)
    stamp = path.stat() if path.is_file() else None
    return _read_frame(path, None if stamp is None else (stamp.st_size, stamp.st_mtime_ns))


@lru_cache(maxsize=65536)
def _read_frame(path: Path, stamp: tuple[int, int] | None) -> Frame:
    head = read_head(path)
    if _is_dicom(path, head):
        from sightline.io.dicom.radiograph import read_header

        header = read_header(path)
        if header.shape is None:
            raise UnreadableFile(f"{path}: the DICOM file does not state rows and columns.", "Export it again.")
        return Frame.of_image(header.shape, header.spacing_mm, header.aspect)
    if find_picture_kind(head) is None:
        return read_image(path).frame
    rows, columns, aspect = read_raster_frame(path)
    return Frame.of_image((rows, columns), aspect=aspect)


def read_size(path: Path) -> tuple[int, int]:
    """(rows, columns) of a picture from its header alone, as `read_image` would give it.

    Raises:
        UnreadableFile: as `read_frame`.
    """
    rows, columns = read_frame(path).shape
    return rows, columns


def measure_whole_picture(path: Path) -> tuple[int, int]:
    """(rows, columns) of a picture of which nothing is missing, as `read_image` would find it.

    A header says nothing of a picture cut short. The checksums and the inflated bytes of a PNG do, in less time than
    decoding takes; pictures of other kinds are decoded.

    Raises:
        UnreadableFile: as `read_image`.
    """
    kind = find_picture_kind(read_head(path))
    if kind is not None and kind[0] == "PNG":
        return measure_whole_png(path)
    rows, columns = read_image(path).pixels.shape[:2]
    return rows, columns


def _is_dicom(path: Path, head: bytes) -> bool:
    return has_dicom_mark(head) or (path.suffix.lower() in DICOM_SUFFIXES and find_picture_kind(head) is None)


def _convert_to_display(path: Path, values: NDArray[Any]) -> Pixels:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        raise UnreadableFile(
            f"{path}: the pixels are floating-point numbers without a display range; 8 or 16 bits were expected.",
            "Save the picture with 16 bits.",
        )
    stretched = stretch_to_uint16(values)
    # colours are shown with eight bits; one range for all of them keeps their tints
    return stretched if stretched.ndim == 2 else (stretched >> 8).astype(np.uint8)


def find_images(path: Path, *, apart_from: str | None = None) -> list[Path]:
    """Files that may be images: the file itself, or all in a folder and below it, sorted by path.

    A file counts by its suffix or by its content, so broken images, dangling links and pictures of other formats are
    listed too (reading them says what is wrong). Hidden files and folders and DICOMDIR indices are skipped, and links
    to folders are not followed (they may lead round in circles).

    Args:
        path: file or folder.
        apart_from: folders below that hold a file of this name are passed over.

    Raises:
        UnreadableFile: nothing stands at the path, or a folder in it may not be read.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UnreadableFile(f"{path}: no such file or folder.", "Check the path.")
    found: list[Path] = []
    for folder, inner, names in os.walk(path, onerror=_refuse_closed_folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        if apart_from is not None:
            inner[:] = [name for name in inner if not Path(folder, name, apart_from).is_file()]
        found += (file for name in names if _may_be_image(file := Path(folder, name)))
    return sorted(found)


def _refuse_closed_folder(error: OSError) -> None:
    raise UnreadableFile(
        f"{error.filename}: the folder cannot be read ({error.strerror}).", "Check its permissions, or leave it out."
    )


def _may_be_image(file: Path) -> bool:
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR":
        return False
    known = file.suffix.lower() in PICTURE_SUFFIXES + DICOM_SUFFIXES + _OTHER_SUFFIXES
    if not file.is_file():
        return known and file.is_symlink()
    if known:
        return True
    try:
        head = read_head(file)
    except UnreadableFile:
        return False
    if has_dicom_mark(head) or find_picture_kind(head) is not None:
        return True
    # IM0001 or a UID, as a PACS exports: what was cut to nothing, or has no meta information, must not vanish
    named = not any(letter.isalpha() for letter in file.suffix) and any(letter.isdigit() for letter in file.name)
    return named and (not head or b"\0" in head)


def read_head(path: Path) -> bytes:
    """The first 132 bytes of a file, which tell what it is.

    Raises:
        UnreadableFile: it cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(132)
    except OSError as error:
        if path.is_symlink() and path.is_dir():
            raise UnreadableFile(
                f"{path}: a link to a folder, which is not followed.", "Give that folder itself, or copy it here."
            ) from None
        if path.is_dir():
            raise UnreadableFile(f"{path}: a folder; one picture was expected.", "Give a file in it.") from None
        raise UnreadableFile(f"{path}: cannot be opened ({error.strerror}).", "Check path and permissions.") from None


def is_ct_input(path: Path) -> bool:
    """Whether what a person gave looks like a CT rather than radiographs: a NIfTI file, a folder of CT slices, or an
    Enhanced CT (all slices in one file).
    """
    if not path.is_dir():
        return is_volume(path) or _has_frames(path)
    if any(is_volume(file) for file in path.iterdir()):
        return True
    slices = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    return any(map(_has_frames, slices[:1])) or (len(slices) > 1 and all(read_modality(f) == "CT" for f in slices[:2]))


def _has_frames(path: Path) -> bool:
    if not path.is_file():
        return False
    if not has_dicom_mark(read_head(path)):
        return False
    from sightline.io.dicom.radiograph import is_multi_frame, open_dataset, translate_parser_errors

    try:
        with translate_parser_errors(path):
            return is_multi_frame(open_dataset(path, pixels=False))
    except SightlineError:
        return False


def read_modality(path: Path) -> str | None:
    """What a DICOM file says it is, None of other files."""
    from sightline.io.dicom.radiograph import read_header

    try:
        return read_header(path).facts.get("modality", "")
    except SightlineError:
        return None
