"""The slices of one DICOM CT series as a volume: all of it, in order, or an error.

Position and direction come from ImagePositionPatient and ImageOrientationPatient (PS3.3, C.7.6.2), never from file
names, instance numbers or SliceThickness. Slices are placed by their projection on the normal of the image plane.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import SightlineError, UnreadableFile, count_noun
from sightline.io.dicom.enhanced_ct import SERIES_FACTS, build_frame_headers
from sightline.io.dicom.greyscale import read_numbers
from sightline.io.dicom.patient import read_named_patient
from sightline.io.dicom.pixels import decode_pixels
from sightline.io.dicom.radiograph import (
    is_multi_frame,
    open_dataset,
    translate_parser_errors,
)
from sightline.io.dicom.slice_geometry import SlicePlace, compute_affine_of_slices
from sightline.io.files import find_linked_folders
from sightline.io.nifti_header import require_sane_affine
from sightline.io.picture import DICOM_SUFFIXES, has_dicom_mark
from sightline.io.volume import Volume

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
PADDING_HU = -1024
_ORIGINS = {"PatientID": "patients", "StudyInstanceUID": "studies", "FrameOfReferenceUID": "frames of reference"}
_NAMED = (*_ORIGINS, "IssuerOfPatientID", "SeriesDescription", "SOPInstanceUID", *SERIES_FACTS.values())


@dataclass(frozen=True)
class _Slice:
    file: Path
    place: SlicePlace
    slope: float
    intercept: float
    padding: tuple[float, float] | None
    frame: int | None


@dataclass(frozen=True)
class _Header:
    """What is said of one slice: a file's header, or of a multi-frame file what it says of frame `frame`."""

    file: Path
    says: Any
    frame: int | None = None


def read_series(folder: Path, *, series: str | None = None) -> Volume:
    """Read one CT series.

    Args:
        folder: its slices, also in folders below, one a file or all frames of Enhanced CTs; dose reports, localisers
            and other objects beside them are left out and counted in the facts. Or one Enhanced CT itself.
        series: SeriesInstanceUID, or its end, where the folder holds several.

    Returns:
        Hounsfield units [column, row, slice] (the axes a conversion to NIfTI gives): int16 where every slice's slope
        and intercept are whole, else float32. Pixel padding becomes PADDING_HU.

    Raises:
        UnreadableFile: no CT series or several, slices missing, twice or unevenly spaced, a tilted gantry, mixed
            sizes, no rescale to Hounsfield units, or one slice that does not decode.
    """
    folder = Path(folder)
    headers, left_out = _read_headers(folder)
    chosen = _choose(headers, folder, series)
    left_out += len(headers) - len(chosen) if series is None else 0
    volume = _build_volume(chosen, folder)
    if left_out:
        others = count_noun(left_out, "object that is no CT slice", "objects that are no CT slices")
        return replace(volume, facts={**volume.facts, "left_out": others})
    return volume


def _build_volume(chosen: list[_Header], folder: Path) -> Volume:
    """The volume of the slices of one series."""
    slices = sorted(map(_read_slice, chosen), key=lambda slice_: slice_.place.along_normal)
    affine = compute_affine_of_slices(folder, [slice_.place for slice_ in slices])
    require_sane_affine(affine, folder)
    values = _stack_slices(slices, folder)
    facts = {"format": "DICOM", "orientation_from": "ImageOrientationPatient", "slices": str(len(slices))}
    return Volume(values, affine, facts | _collect_facts(chosen[0]))


def _collect_facts(header: _Header) -> dict[str, str]:
    facts = {}
    for name, keyword in SERIES_FACTS.items():
        value = header.says.get(keyword)
        if value not in (None, ""):
            facts[name] = " ".join(map(str, value)) if type(value).__name__ == "MultiValue" else str(value)
    return facts


@dataclass(frozen=True, eq=False)
class FoundSeries:
    """One CT series of a tree of files, before its pixels are read.

    Attributes:
        uid: SeriesInstanceUID, empty where there is none.
        study_uid: StudyInstanceUID, likewise.
        patient_id: PatientID, likewise.
        folder: that of its first slice.
        headers: of its slices.
        issuer: of the patient's id, in one spelling, or empty.
    """

    uid: str
    study_uid: str
    patient_id: str
    folder: Path
    headers: tuple[_Header, ...]
    issuer: str = ""

    def read(self) -> Volume:
        """The volume, as `read_series` gives it.

        Raises:
            UnreadableFile: as `read_series`.
        """
        return _build_volume(_require_one_origin(list(self.headers), self.folder), self.folder)


def find_series(folder: Path) -> tuple[list[FoundSeries], list[tuple[Path, SightlineError]], int]:
    """Group the CT slices of a tree by SeriesInstanceUID; those without one by their folder.

    Args:
        folder: at any depth of it lie the slices of any number of series, studies and patients.

    Returns:
        The series in order of their first files, files that could not be read with the reason, and how many DICOM
        objects are no CT slices (localisers, dose reports).
    """
    files = sorted(path for path in folder.rglob("*") if _may_be_slice(path, folder))
    groups: dict[tuple[str, Path | None], list[_Header]] = defaultdict(list)
    unread: list[tuple[Path, SightlineError]] = []
    others = 0
    for file in files:
        try:
            kept, left_out = _read_file_headers(file)
        except SightlineError as error:
            unread.append((file, error))
            continue
        others += left_out
        for header in kept:
            uid = str(header.says.get("SeriesInstanceUID") or "")
            groups[uid, None if uid else file.parent].append(header)
    found = []
    for (uid, _), headers in groups.items():
        study, patient = (str(headers[0].says.get(word) or "") for word in ("StudyInstanceUID", "PatientID"))
        issuer = read_named_patient(headers[0].says).issuer
        found.append(FoundSeries(uid, study, patient, headers[0].file.parent, tuple(headers), issuer))
    return found, unread, others


def list_series_files(folder: Path, *, series: str | None = None) -> list[Path]:
    """The files of one CT series in the order of `read_series`: one a slice.

    Args:
        folder: as of `read_series`.
        series: likewise.

    Raises:
        UnreadableFile: no series or several, or an Enhanced CT (all slices in one file).
    """
    folder = Path(folder)
    chosen = _choose(_read_headers(folder)[0], folder, series)
    if any(header.frame is not None for header in chosen):
        raise UnreadableFile(
            f"{folder}: an Enhanced CT; results are written for series of single slices.",
            "Export the series as single slices.",
        )
    return [slice_.file for slice_ in sorted(map(_read_slice, chosen), key=lambda slice_: slice_.place.along_normal)]


def _read_headers(folder: Path) -> tuple[list[_Header], int]:
    """The headers of all CT slices, and how many other DICOM objects (or localisers among frames) there are."""
    if not folder.exists():
        raise UnreadableFile(
            f"{folder}: no such folder; that of a DICOM series was expected.", "Give the folder that holds the slices."
        )
    if links := find_linked_folders(folder):
        more = f" (and {len(links) - 1} more)" if len(links) > 1 else ""
        raise UnreadableFile(
            f"{links[0]}{more}: a link to a folder, which is not followed; slices may lie in it.",
            "Give the folder that holds the whole series itself, or copy it here.",
        )
    inside = folder.rglob("*") if folder.is_dir() else ()
    files = sorted(path for path in inside if _may_be_slice(path, folder)) if folder.is_dir() else [folder]
    kept, left_out = [], 0
    for file in files:
        of_file, others = _read_file_headers(file, alone=not folder.is_dir())
        kept += of_file
        left_out += others
    return kept, left_out


def _read_file_headers(file: Path, *, alone: bool = False) -> tuple[list[_Header], int]:
    """The headers of a file's CT slices, and how many other objects (or localisers among frames) it holds."""
    with translate_parser_errors(file):
        header = open_dataset(file, pixels=False)
        # de-identified series may have lost their UIDs, but the file meta information keeps what the file is
        sop_class = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
        localiser = "LOCALIZER" in [str(word).upper() for word in header.get("ImageType") or ()]
        several = int(header.get("NumberOfFrames") or 1) > 1
        for keyword in _NAMED:  # values are decoded when they are first asked for: now, where errors are caught
            header.get(keyword)
        frames = build_frame_headers(header, file) if is_multi_frame(header) else []
    if several and sop_class == CT_IMAGE:
        raise UnreadableFile(
            f"{file}: a CT slice with several frames, which does not say where each lies.",
            "Export it as single slices or as an Enhanced CT, or convert it to NIfTI (dcm2niix).",
        )
    if alone and not frames:
        raise UnreadableFile(
            f"{file}: one DICOM slice; a CT is a whole series.",
            "Give the folder that holds the series.",
        )
    if frames:
        return [_Header(file, says, n) for n, says in enumerate(frames) if says is not None], frames.count(None)
    if sop_class != CT_IMAGE or localiser:
        return [], 1
    return [_Header(file, header)], 0


def _may_be_slice(path: Path, folder: Path) -> bool:
    """Whether a file has to be read as DICOM: by its content, or because nothing in its name says that it is not."""
    if any(part.startswith(".") for part in path.relative_to(folder).parts) or not path.is_file():
        return False
    if path.name.upper() in ("DICOMDIR", "LICENSE", "README", "VERSION", "CHECKSUMS"):
        return False
    with path.open("rb") as stream:
        if has_dicom_mark(stream.read(132)):
            return True
    # a slice cut to nothing has no mark: a UID as name, no suffix or a DICOM suffix must not pass as "some other file"
    return not any(letter.isalpha() for letter in path.suffix) or path.suffix.lower() in DICOM_SUFFIXES


def _choose(headers: list[_Header], folder: Path, series: str | None) -> list[_Header]:
    groups: dict[str, list[_Header]] = defaultdict(list)
    for header in headers:
        groups[str(header.says.get("SeriesInstanceUID") or "")].append(header)
    if series is not None:
        groups = {uid: group for uid, group in groups.items() if series and uid.endswith(series)} or {}
    elif len(groups) > 1:
        # a scout that does not call itself one: a series of one slice is no volume, and no rival of one
        stacks = {uid: group for uid, group in groups.items() if len(group) > 1}
        groups = stacks if len(stacks) == 1 else groups
    if len(groups) == 1:
        return _require_one_origin(next(iter(groups.values())), folder)
    if not headers:
        raise UnreadableFile(
            f"{folder}: no slices of a CT series were found.", "Give the folder that holds the CT slices."
        )
    if not groups:
        raise UnreadableFile(f"{folder}: no series whose UID ends in {series!r}.", "Check the series' UID.")
    named = "; ".join(
        f"{uid or 'no UID'} ({group[0].says.get('SeriesDescription') or 'no description'}, "
        f"{count_noun(len(group), 'slice')})"
        for uid, group in sorted(groups.items())
    )
    raise UnreadableFile(
        f"{folder}: {len(groups)} CT series: {named}.",
        "Give a folder with one series, or say which by the end of its SeriesInstanceUID (--series).",
    )


def _require_one_origin(series: list[_Header], folder: Path) -> list[_Header]:
    """The same series, once it is of one patient, study and frame of reference: without UIDs, files of two can lie in
    one folder, and positions in two frames cannot be compared.
    """
    for keyword, what in _ORIGINS.items():
        count = len({str(header.says.get(keyword) or "") for header in series})
        if count > 1:
            raise UnreadableFile(
                f"{folder}: slices of {count} {what} in one series ({keyword}).",
                "Give each patient's series a folder of its own, from one study and one frame of reference.",
            )
    return series


def _read_slice(listed: _Header) -> _Slice:
    header, file = listed.says, listed.file
    with translate_parser_errors(file):
        position, cosines = (
            read_numbers(header, "ImagePositionPatient", file),
            read_numbers(header, "ImageOrientationPatient", file),
        )
        spacing = read_numbers(header, "PixelSpacing", file)
        slope, intercept = read_numbers(header, "RescaleSlope", file), read_numbers(header, "RescaleIntercept", file)
        unit = str(header.get("RescaleType") or "HU").upper()
        size = [*read_numbers(header, "Rows", file), *read_numbers(header, "Columns", file)]
        padding = [
            *read_numbers(header, "PixelPaddingValue", file),
            *read_numbers(header, "PixelPaddingRangeLimit", file),
        ]
    if len(position) != 3 or len(cosines) != 6 or len(spacing) != 2 or len(size) != 2:
        raise UnreadableFile(
            f"{file}: the slice does not state where it lies (ImagePositionPatient, ImageOrientationPatient, "
            "PixelSpacing, Rows and Columns are needed).",
            "Export the series again from its source, without removing these elements.",
        )
    # numbers that are none would pass every later comparison, and negative lengths would mirror the patient
    if not np.isfinite([*position, *cosines, *spacing]).all() or min(spacing) <= 0:
        raise UnreadableFile(
            f"{file}: ImagePositionPatient {position}, ImageOrientationPatient {cosines} and PixelSpacing {spacing} "
            "are no place in space; finite numbers and positive lengths were expected.",
            "Export the series again from its source.",
        )
    if len(slope) != 1 or len(intercept) != 1 or not slope[0] > 0 or not np.isfinite([slope[0], intercept[0]]).all():
        raise UnreadableFile(
            f"{file}: RescaleSlope and RescaleIntercept are {slope or 'absent'} and {intercept or 'absent'}, so the "
            "stored values cannot be turned into Hounsfield units.",
            "Export the series again from its source.",
        )
    if unit not in ("HU", "HU_MOD"):
        raise UnreadableFile(
            f"{file}: the rescaled values are in {unit}, not in Hounsfield units (RescaleType).",
            "Give the CT series itself, not a map computed from it.",
        )
    place = SlicePlace(
        file,
        np.array(position),
        np.array(cosines).reshape(2, 3),
        (spacing[0], spacing[1]),
        (int(size[0]), int(size[1])),
        str(header.get("SOPInstanceUID") or ""),
    )
    return _Slice(file, place, slope[0], intercept[0], (min(padding), max(padding)) if padding else None, listed.frame)


def _stack_slices(slices: list[_Slice], folder: Path) -> NDArray[Any]:
    rows, columns = slices[0].place.shape
    whole = all(slice_.slope.is_integer() and slice_.intercept.is_integer() for slice_ in slices)
    # the file's order in memory, so that the [column, row, slice] view costs nothing
    stack = np.empty((len(slices), rows, columns), dtype=np.int16 if whole else np.float32)
    opened: tuple[Path, Any] | None = None
    for number, slice_ in enumerate(slices):
        try:
            with translate_parser_errors(slice_.file):
                # the frames of one file stand one after the other, so it is read once
                if opened is None or opened[0] != slice_.file:
                    opened = slice_.file, open_dataset(slice_.file, pixels=True)
                index, stored = decode_pixels(opened[1], slice_.file, frame=slice_.frame)
        except SightlineError as error:
            raise UnreadableFile(
                f"{folder}: slice {number + 1} of {len(slices)} cannot be read, so the series is left out. "
                f"{error.message}",
                error.remedy,
            ) from None
        units = stored * slice_.slope + slice_.intercept
        if slice_.padding is not None:
            low, high = slice_.padding
            units[(stored >= low) & (stored <= high)] = PADDING_HU
        shown = units[index]
        if whole and (shown.min() < -(2**15) or shown.max() >= 2**15):
            raise UnreadableFile(
                f"{slice_.file}: Hounsfield units from {shown.min():g} to {shown.max():g}; 16 bits hold no such range.",
                "The rescale slope is broken; export the series again.",
            )
        stack[number] = shown
    return stack.transpose(2, 1, 0)
