"""What a network says of the vertebrae of a CT as DICOM objects, in the CT's own frame of reference."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.errors import UnreadableFile
from sightline.inference.ct.inputs import CtInput, PlacedCt
from sightline.inference.dicom_results import FOLDER, NOT_DICOM, ResultWords, find_study_time
from sightline.io.dicom.radiograph import open_dataset, translate_parser_errors
from sightline.io.dicom.series import list_series_files
from sightline.io.dicom_results.header import SourceImage, build_source_image
from sightline.io.dicom_results.identity import make_uid
from sightline.io.dicom_results.objects import ObjectOptions, write_objects
from sightline.io.dicom_results.results import FindingResult, FoundVertebra, SeriesResult
from sightline.io.dicom_results.vertebrae import make_series_objects
from sightline.io.nifti import read_volume
from sightline.io.volume import Volume
from sightline.plots.result_picture import draw_result
from sightline.structures.regions import is_volume

if TYPE_CHECKING:
    from sightline.inference.ct.report import ReadVertebra

# DICOM's x and y grow to the left and to the back, those of volumes here to the right and to the front
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def require_dicom(given: CtInput) -> None:
    """Refuse a CT that results cannot refer to, before it is read.

    Raises:
        UnreadableFile: a NIfTI file.
    """
    if is_volume(given.path):
        raise UnreadableFile(
            f"{given.path}: {NOT_DICOM}.", "Give the DICOM series that it was converted from, or leave out --as."
        )


def write_ct_results(
    words: ResultWords, given: CtInput, placed: PlacedCt, read: Sequence[ReadVertebra], out: Path, wanted: ObjectOptions
) -> list[Path]:
    """Write the objects of one CT into `dicom/`, a folder a study.

    Args:
        words: of the run.
        given: the CT, a DICOM series.
        placed: with its vertebrae.
        read: what is said of them.
        out: folder of the command.
        wanted: which objects.

    Raises:
        UnreadableFile: no series of single slices, or without UIDs or a frame of reference.
    """
    sources = _read_sources(given)
    mask = None if given.vertebrae is None else place_labels(read_volume(given.vertebrae, labels=True), placed.ct)
    found = tuple(_build_vertebra(placed, one, mask) for one in read)
    notes = [f"Centres of the vertebral bodies are {placed.centres}", *placed.notes]
    picture = _read_overview(out / given.name / "overview.png", words) if "picture" in wanted.kinds else None
    result = SeriesResult(
        sources,
        found,
        words.maker,
        find_study_time(sources),
        words.codes,
        picture,
        tuple(note.rstrip(".") for note in notes),
    )
    study = str(sources[0].header.StudyInstanceUID)
    return write_objects(make_series_objects(result, wanted.kinds), out / FOLDER / make_uid("study", study)[-16:])


def place_labels(mask: Volume, ct: Volume) -> NDArray[Any]:
    """Labels on the voxels of a CT: of each voxel, that at its centre; 0 outside the mask.

    Args:
        mask: labels on any grid in the CT's space.
        ct: the CT.
    """
    index = np.linalg.inv(mask.affine) @ ct.affine
    shape = ct.values.shape
    places = np.arange(shape[0])[:, None, None], np.arange(shape[1])[None, :, None], np.arange(shape[2])[None, None, :]
    inside = np.ones(shape, dtype=bool)
    at = []
    for axis in range(3):
        along = sum(index[axis, k] * places[k] for k in range(3)) + index[axis, 3]
        # whole indices are centres; half-way between two belongs to the upper one, everywhere alike
        whole = np.broadcast_to(np.floor(np.asarray(along) + 0.5 + 1e-6), shape).astype(np.int32)
        inside &= (whole >= 0) & (whole < mask.values.shape[axis])
        at.append(np.clip(whole, 0, mask.values.shape[axis] - 1))
    # labels above 255 belong to no vertebra, and must not become one by losing digits
    return np.where(inside, mask.values[at[0], at[1], at[2]], 0).astype(mask.values.dtype)


def _read_sources(given: CtInput) -> tuple[SourceImage, ...]:
    made = []
    files = list_series_files(given.path, series=given.series)
    for file in files:
        with translate_parser_errors(file):
            made.append(build_source_image(open_dataset(file, pixels=True), file))
    named: dict[str, Path] = {}
    for file, image in zip(files, made, strict=True):
        if named.setdefault(image.uid, file) != file:
            raise UnreadableFile(
                f"{file}: the same SOPInstanceUID as {named[image.uid]}, at another place; no result can say which it "
                "is about.",
                "Export the series again, or predict without --as dicom.",
            )
    return tuple(made)


def _build_vertebra(placed: PlacedCt, one: ReadVertebra, mask: NDArray[Any] | None) -> FoundVertebra:
    x, y, z = (TO_LPS[:3, :3] @ placed.ct.world_of(one.vertebra.centre)).tolist()
    # a volume is [column, row, slice], DICOM's frames are [slice, row, column]
    own = None if mask is None else np.ascontiguousarray((mask == one.vertebra.label).transpose(2, 1, 0))
    return FoundVertebra(
        level=one.vertebra.level,
        point_mm=(x, y, z),
        said=FindingResult(one.finding, one.probability, one.called),
        mask=own,
        map=one.map,
        map_affine=None if one.map_affine is None else TO_LPS @ one.map_affine,
    )


def _read_overview(path: Path, words: ResultWords) -> NDArray[np.uint8]:
    """The spine on one page, with the words that every picture carries."""
    with Image.open(BytesIO(path.read_bytes())) as image:
        pixels = np.asarray(image.convert("RGB"))
    maker = words.maker
    return draw_result(pixels, [f"{maker.model}, run {maker.run}, sightline {maker.version}"])
