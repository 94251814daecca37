"""CTs a person points at, and where their vertebrae are: annotated centroids, or centres estimated from a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.data.datasets.verse.centroids import place_vertebrae, read_centroids
from sightline.data.spine.vertebrae import RANKS, Vertebra, find_centres_from_mask, require_in_bone
from sightline.errors import GeometryError, RunError, UnreadableFile, count_noun
from sightline.io.ct import read_ct
from sightline.io.files import make_unique_name
from sightline.io.image import PICTURE_SUFFIXES, read_modality
from sightline.io.nifti import read_volume
from sightline.io.volume import Volume
from sightline.structures.regions import is_volume

# T1 to L6, T13 between T12 and L1: what the published networks are trained on
FIRST, LAST = 8, 25
ANNOTATED, ESTIMATED = "annotated", "estimated from the mask"


@dataclass(frozen=True)
class CtInput:
    """One CT with what says where its vertebrae are.

    Attributes:
        path: a NIfTI file, the folder of a DICOM series, or an Enhanced CT.
        name: unique among the inputs, for files.
        centroids: VerSe's centroid file, or None.
        vertebrae: NIfTI of VerSe's labels, or None.
        series: which, where the folder holds several (the end of its SeriesInstanceUID), or None.
    """

    path: Path
    name: str
    centroids: Path | None = None
    vertebrae: Path | None = None
    series: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The CT (a file or a folder) and what says where its vertebrae are."""
        return tuple(path for path in (self.path, self.centroids, self.vertebrae) if path is not None)


@dataclass(frozen=True, eq=False)
class PlacedCt:
    """A CT that has been read.

    Attributes:
        ct: in Hounsfield units.
        vertebrae: T1 to L6 from head to foot; they may be fewer than `every`.
        every: all that are placed, also those of the neck: the curve goes through them.
        centres: how their centres are known, ANNOTATED or ESTIMATED.
        notes: what was left out, in words.
    """

    ct: Volume
    vertebrae: tuple[Vertebra, ...]
    every: tuple[Vertebra, ...]
    centres: str
    notes: tuple[str, ...] = ()


def collect_ct_inputs(
    inputs: Sequence[Path], centroids: Sequence[Path], vertebrae: Sequence[Path], series: str | None = None
) -> list[CtInput]:
    """The CTs of a command, each with its own centroid file or mask, in order.

    Args:
        inputs: NIfTI files, Enhanced CTs, folders of NIfTI files, and folders of one DICOM series each.
        centroids: as many as there are CTs, or none.
        vertebrae: likewise; one of the two is needed.
        series: which series of DICOM folders that hold several.

    Raises:
        RunError: something is missing, or there are more or fewer of one than of the other.
    """
    paths = [ct for given in inputs for ct in _list_cts(given)]
    absent = [str(path) for path in (*paths, *centroids, *vertebrae) if not path.exists()]
    if absent:
        raise RunError(f"{', '.join(absent)} does not exist.", "Check the path.")
    if not centroids and not vertebrae:
        raise RunError(
            "A CT alone does not say where its vertebrae are.",
            "Give their centroids (--centroids FILE, VerSe's json) or a mask of vertebrae under VerSe's labels "
            "(--vertebrae MASK.nii.gz).",
        )
    if centroids and vertebrae:
        raise RunError("Both --centroids and --vertebrae were given.", "Leave one out; centroids are more exact.")
    places = list(centroids or vertebrae)
    if len(places) != len(paths):
        what = "--centroids" if centroids else "--vertebrae"
        raise RunError(
            f"{len(paths)} CTs were given and {count_noun(len(places), 'file')} of {what}.",
            f"Give one file for each CT, in the same order: {what} A B.",
        )
    taken: set[str] = set()
    names = [make_unique_name(name_ct(path), taken) for path in paths]
    return [
        CtInput(path, name, place if centroids else None, None if centroids else place, series)
        for path, name, place in zip(paths, names, places, strict=True)
    ]


def name_ct(path: Path) -> str:
    """What a CT is called after its file or folder."""
    name = path.resolve().name if path.is_dir() else path.name
    return name.removesuffix(".gz").removesuffix(".nii").removesuffix("_ct") or "ct"


def read_vertebrae(given: CtInput) -> PlacedCt:
    """Read a CT and place its vertebrae.

    Raises:
        SightlineError: a picture or no CT, no orientation, numbers that are no Hounsfield units, centroids of another
            CT, or no vertebra from T1 to L6.
    """
    if given.path.is_file() and not is_volume(given.path) and _is_picture(given.path):
        raise UnreadableFile(
            f"{given.path}: a picture; this run was trained on patches of CTs.",
            "Give a CT (NIfTI file or DICOM series), or use a run that was trained on radiographs.",
        )
    # a file has no series to choose among; one name may be given for folders and files alike
    ct = read_ct(given.path, series=given.series if given.path.is_dir() else None)
    notes: list[str] = []
    if given.centroids is not None:
        read = read_centroids(given.centroids)
        every = place_vertebrae(read, ct.values.shape, ct.orientation, ct.spacing_mm)
        centres = ANNOTATED
    else:
        assert given.vertebrae is not None
        mask = read_volume(given.vertebrae, labels=True)
        every, left_out = find_centres_from_mask(mask, ct, str(given.vertebrae))
        notes += left_out
        centres = ESTIMATED
    require_in_bone(ct, every, str(given.centroids or given.vertebrae))
    vertebrae = tuple(v for v in every if RANKS[FIRST] <= RANKS[v.label] <= RANKS[LAST])
    if not vertebrae:
        raise GeometryError(
            f"{given.path}: no vertebra from T1 to L6 is placed; there are {', '.join(v.level for v in every)}.",
            "The network knows thoracic and lumbar vertebrae alone.",
        )
    beyond = [v.level for v in every if v not in vertebrae]
    if beyond:
        notes.append(f"{', '.join(beyond)} are not predicted: the network knows T1 to L6")
    return PlacedCt(ct, vertebrae, every, centres, tuple(notes))


def _list_cts(given: Path) -> list[Path]:
    """A file or a DICOM folder itself; of a folder with NIfTI files, these."""
    if not given.is_dir():
        return [given]
    return sorted(file for file in given.iterdir() if is_volume(file)) or [given]


def _is_picture(path: Path) -> bool:
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return True
    modality = read_modality(path)
    return modality is not None and modality != "CT"
