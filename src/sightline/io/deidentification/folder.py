"""A folder of DICOM files as a de-identified copy, and beside it a folder that stays at home.

The copy holds files and a report without any original value. Names of the original files and words that were read in
pixels are themselves identifying: they go into the private folder.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from sightline.errors import LayoutError, SightlineError, UnreadableFile, count_noun
from sightline.io.deidentification.keys import SiteKey
from sightline.io.deidentification.overlays import has_strange_bits
from sightline.io.deidentification.pictures import Box, blank_boxes, list_pictures
from sightline.io.deidentification.table import Rules
from sightline.io.deidentification.text import FoundText, choose_text_finder, search_pictures
from sightline.io.deidentification.walk import deidentify
from sightline.io.dicom.completeness import read_whole_dataset
from sightline.io.dicom.radiograph import translate_parser_errors
from sightline.io.files import write_bytes
from sightline.io.image import read_head
from sightline.io.picture import DICOM_SUFFIXES, has_dicom_mark

REPORT, LOOK_AT, NAMES, CROPS = "report.csv", "look_at.csv", "names.csv", "look_at"
SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
# the folder of those without a PatientID, who need not be one patient
UNKNOWN = "unknown"
# pictures of screens, on which words stand as a rule, and photographs of people
SCREENS = ("SC", "US", "OT", "XA", "XC")
# stacks of hundreds of slices: words on them are rare, and a search takes seconds a slice
NOT_SEARCHED = ("CT", "MR", "PT", "NM", "SEG")
_LEFT_OUT = "left out: not DICOM"
# how files of before Part 10 begin: group 0008, element 0000 to 0020, lowest byte first
_WITHOUT_PREAMBLE = tuple(b"\x08\0" + bytes([element, 0]) for element in (0, 1, 5, 8, 0x12, 0x16, 0x18, 0x20))
_REFUSED = f"refused; the reason stands in the private {NAMES}"


@dataclass(frozen=True)
class Wishes:
    """What a person asks for.

    Attributes:
        rules: what of the header is kept.
        blanks: row_start, column_start, row_stop, column_stop to fill in every picture.
        pixels_seen: a person has looked at the pictures: also those with words are written.
        search: look for words in pixels.
    """

    rules: Rules = field(default_factory=Rules)
    blanks: tuple[Box, ...] = ()
    pixels_seen: bool = False
    search: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of a folder.

    Attributes:
        written: files.
        refused: files that were held back, and why, in words.
        others: number of files that are not DICOM and were left out.
        look_at: lines of words that were found in pixels.
        finder: the program that searched for words, or empty.
    """

    written: int
    refused: tuple[tuple[Path, str], ...]
    others: int
    look_at: int
    finder: str


def deidentify_folder(
    source: Path,
    destination: Path,
    private: Path,
    key: SiteKey,
    wishes: Wishes,
    advance: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Write de-identified copies as `PATIENT/STUDY/UID.dcm` with `report.csv`; `look_at.csv` with crops and `names.csv`
    into the private folder.

    Every file of the source is accounted for: cleaned, held back with a reason and remedy (what is truncated, empty,
    or called DICOM and is none, too), or left out as not DICOM. The report calls files by their number; `names.csv`
    says which is which, and why one was held back or left out.

    Args:
        source: a folder, or one file.
        destination: a folder that is not in the source and not around it.
        private: a folder that stays at home, not in the destination.
        key: of the site.
        wishes: what is kept, filled and searched.
        advance: told after each file.

    Raises:
        LayoutError: source and destination, or destination and private folder, lie in each other.
    """
    files, others = list_dicom_files(source)
    _require_apart(source, destination)
    _require_apart(destination, private)
    destination.mkdir(parents=True, exist_ok=True)
    finder = choose_text_finder() if wishes.search else ""
    rows: list[tuple[str, str, str]] = []
    seen: list[tuple[str, str, str, str, str]] = []
    refused: list[tuple[Path, str]] = []
    taken: dict[str, int] = {}
    for number, file in enumerate(files, 1):
        try:
            name, notes, found = _deidentify_one(file, destination, private, key, wishes, finder, taken)
            place = _make_relative(file, source)
            seen += [(str(number), place, text.text, " ".join(map(str, text.box)), crop) for text, crop in found]
            if name is None:
                refused.append((file, notes[0]))
            else:
                taken[name] = number
        except SightlineError as error:
            name, reason = None, error.message.removeprefix(f"{file}: ")
            refused.append((file, f"refused: {reason} {error.remedy}".strip()))
            # a reason may quote the file, and with it anybody's name
            notes = [_REFUSED]
        rows.append((str(number), name or "", "; ".join(notes)))
        advance(1)
    rows += [(str(number), "", _LEFT_OUT) for number in range(len(files) + 1, len(files) + len(others) + 1)]
    _write(destination / REPORT, ("file", "out", "notes"), rows)
    reasons = dict(refused)
    reasons |= dict.fromkeys(others, _LEFT_OUT)
    names = [
        (str(n), _make_relative(file, source), reasons.get(file, "")) for n, file in enumerate((*files, *others), 1)
    ]
    _write(private / NAMES, ("file", "name", "refused"), names)
    _write(private / LOOK_AT, ("file", "name", "text", "box", "crop"), seen)
    return Outcome(len(files) - len(refused), tuple(refused), len(others), len(seen), finder)


def list_dicom_files(source: Path) -> tuple[list[Path], list[Path]]:
    """Files of a folder and below it that are DICOM by their content or say so by their name, and all others.

    What cannot be opened, and a link to a folder, which is not followed, is among the first: reading it says why. A
    file that is given by name is one whatever it holds.

    Raises:
        UnreadableFile: nothing stands there, or no DICOM file.
    """
    if source.is_file():
        return [source], []
    if not source.is_dir():
        raise UnreadableFile(f"{source}: no such file or folder.", "Check the path.")
    found: list[Path] = []
    others: list[Path] = []
    closed: list[OSError] = []
    for folder, inner, names in os.walk(source, onerror=closed.append):
        inner.sort()
        found.extend(path for name in inner if (path := Path(folder, name)).is_symlink())
        for name in sorted(names):
            path = Path(folder, name)
            (found if _may_be_dicom(path) else others).append(path)
    found += (Path(error.filename) for error in closed)
    if not found:
        raise UnreadableFile(
            f"{source}: no DICOM file in it ({count_noun(len(others), 'file')} of other kinds).",
            "Give the folder that holds the files.",
        )
    return found, others


def _may_be_dicom(path: Path) -> bool:
    if path.name.upper() == "DICOMDIR":
        return False  # an index of the originals: it names them
    if path.suffix.lower() in DICOM_SUFFIXES or not path.is_file():
        return True
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return True
    return has_dicom_mark(head) or head.startswith(_WITHOUT_PREAMBLE)


def _deidentify_one(
    file: Path,
    destination: Path,
    private: Path,
    key: SiteKey,
    wishes: Wishes,
    finder: str,
    taken: Mapping[str, int],
) -> tuple[str | None, list[str], list[tuple[FoundText, str]]]:
    """The name of what was written (None: held back), notes, and words with the names of their crops."""
    read_head(file)  # says what cannot be opened, and a link to a folder
    with translate_parser_errors(file):
        dataset = read_whole_dataset(file)
        notes: list[str] = []
        why = _list_suspicions(dataset)
        blanked = bool(wishes.blanks) and "PixelData" in dataset
        if blanked:
            blank_boxes(dataset, file, wishes.blanks, notes)
        searched = finder and "PixelData" in dataset and str(dataset.get("Modality")) not in NOT_SEARCHED
        found = search_pictures(list_pictures(dataset, file, wishes.blanks, notes)) if searched else []
        if found:
            why.append(f"{count_noun(len(found), 'line')} of words in the pixels")
        cleaned = deidentify(dataset, wishes.rules, key, pixels_cleaned=blanked)
        notes += cleaned.notes
        name = _name(dataset, key)
        if name in taken:
            raise LayoutError(
                f"it has the SOPInstanceUID of file {taken[name]}.", "Remove one of them, or give each its own."
            )
        crops = _cut_crops(found, private, Path(name).stem)
        if why and not wishes.pixels_seen:
            return None, [f"not written: {', '.join(why)}; look at the picture, then give --pixels seen", *notes], crops
        if why:
            notes.append(f"written because somebody has seen it: {', '.join(why)}")
        whole = BytesIO()
        dataset.save_as(whole, enforce_file_format=True)
    write_bytes(destination / name, whole.getbuffer())
    return name, notes, crops


def _list_suspicions(dataset: Dataset) -> list[str]:
    """Why a person has to look at a picture, before any search."""
    if "PixelData" not in dataset:
        return []
    why = []
    if str(dataset.get("BurnedInAnnotation") or "").upper() == "YES":
        why.append("BurnedInAnnotation is YES")
    if str(dataset.get("RecognizableVisualFeatures") or "").upper() == "YES":
        why.append("RecognizableVisualFeatures is YES: a face may be seen, or be computed from slices")
    if str(dataset.get("SOPClassUID") or "").startswith(SECONDARY_CAPTURES):
        why.append("a secondary capture")
    elif str(dataset.get("Modality") or "") in SCREENS:
        why.append(f"the modality is {dataset.Modality}")
    if has_strange_bits(dataset):
        why.append("bits beside the stored ones, perhaps of an overlay, which no picture shows")
    return why


def _name(dataset: Dataset, key: SiteKey) -> str:
    """`PATIENT/STUDY/INSTANCE.dcm` of pseudonyms: digits and letters alone, whatever the object says."""
    study, instance = (str(dataset.get(word) or "0") for word in ("StudyInstanceUID", "SOPInstanceUID"))
    plain = ["".join(x for x in text if x.isdigit() or x == ".") or "0" for text in (study, instance)]
    return f"{dataset.PatientID or UNKNOWN}/{plain[0][-16:].strip('.')}/{plain[1]}.dcm"


def _cut_crops(
    found: Sequence[tuple[FoundText, NDArray[Any]]], private: Path, stem: str
) -> list[tuple[FoundText, str]]:
    made = []
    for number, (text, pixels) in enumerate(found, 1):
        top, left, bottom, right = text.box
        crop = pixels[max(0, top - 6) : bottom + 6, max(0, left - 6) : right + 6]
        if crop.size == 0:
            continue
        low, high = float(pixels.min()), float(pixels.max())
        grey = np.rint((crop.astype(np.float64) - low) * (255.0 / max(high - low, 1e-9))).astype(np.uint8)
        name = f"{CROPS}/{stem[-24:]}_{number}.png"
        (private / CROPS).mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey if grey.ndim == 2 else grey[..., :3]).save(private / name)
        made.append((text, name))
    return made


def _make_relative(file: Path, source: Path) -> str:
    return file.name if source.is_file() else file.relative_to(source).as_posix()


def _require_apart(source: Path, destination: Path) -> None:
    a, b = source.resolve(), destination.resolve()
    if a == b or a in b.parents or (source.is_dir() and b in a.parents):
        raise LayoutError(
            f"{destination} lies in {source} or around it: copies would mix with originals.",
            "Choose a folder elsewhere.",
        )


def _write(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(head)
        table.writerows(rows)
