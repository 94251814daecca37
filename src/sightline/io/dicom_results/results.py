"""What is to be said in DICOM, as plain numbers: knows no run, no network and no viewer.

Coordinates are continuous (row, column) with the origin at the corner of pixel (0, 0), as everywhere here; the centre
of pixel (i, j) is (i + 0.5, j + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sightline.errors import GeometryError
from sightline.io.dicom_results.codes import CodeTable
from sightline.io.dicom_results.header import SourceImage

Kind = Literal["findings", "marks", "regions", "states", "picture", "map"]
KINDS: tuple[Kind, ...] = ("findings", "marks", "regions", "states", "picture", "map")


@dataclass(frozen=True)
class Maker:
    """What made a result; it stands in every object as equipment, observer and algorithm.

    Attributes:
        model: name of the recipe or model.
        run: identity of the run.
        weights: sha256 of its weights, or empty where there are none.
        version: of the software.
        parameters: what else decides the answer, in words (operating point, engine, ...).
    """

    model: str
    run: str
    weights: str
    version: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class FindingResult:
    """What is said of one finding of an image.

    Attributes:
        label: the finding, as the run's class.
        probability: 0 to 1, or None where none was learnt.
        present: whether the finding is there at the run's operating point, or None where that is not said.
    """

    label: str
    probability: float | None
    present: bool | None


@dataclass(frozen=True)
class FoundBox:
    """A box of an image.

    Attributes:
        label: the finding.
        corners: row_start, column_start, row_stop, column_stop in pixels.
        score: 0 to 1, or None where there is none.
    """

    label: str
    corners: tuple[float, float, float, float]
    score: float | None = None


@dataclass(frozen=True, eq=False)
class FoundRegion:
    """A region of an image.

    Attributes:
        label: the finding.
        mask: bool [rows, columns] of the image.
        score: 0 to 1, or None where there is none.
    """

    label: str
    mask: NDArray[np.bool_]
    score: float | None = None


@dataclass(frozen=True, eq=False)
class FoundMap:
    """A class map on its own cells.

    Attributes:
        label: the class.
        values: float32 [cell rows, cell columns].
        to_source: [3, 3], the affine from cells to pixels of the image, both (row, column) from the corner.
    """

    label: str
    values: NDArray[np.float32]
    to_source: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What is said of one image.

    Attributes:
        source: the image.
        said: of each finding.
        boxes: surest first.
        regions: one a finding.
        map: of the class that is shown, or None.
        picture: uint8 [h, w, 3], the image with marks and words burnt in, or None.
        notes: what a reader of the result has to know, in words.
    """

    source: SourceImage
    said: tuple[FindingResult, ...] = ()
    boxes: tuple[FoundBox, ...] = ()
    regions: tuple[FoundRegion, ...] = ()
    map: FoundMap | None = None
    picture: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse regions of another size than the image's, and probabilities that are none."""
        for region in self.regions:
            if region.mask.shape != self.source.shape:
                raise GeometryError(
                    f"A region of {region.mask.shape} pixels does not fit an image of {self.source.shape}."
                )
        shares = [*(s.probability for s in self.said), *(b.score for b in self.boxes), *(r.score for r in self.regions)]
        bad = [share for share in shares if share is not None and not 0.0 <= share <= 1.0]
        if bad:
            raise GeometryError(f"Probabilities and scores lie between 0 and 1; got {bad[0]}.")
        for box in self.boxes:
            if not np.isfinite(box.corners).all():
                raise GeometryError(f"The corners of a box must be finite; got {box.corners}.")


@dataclass(frozen=True, eq=False)
class StudyResult:
    """What is said of the images of one study.

    Attributes:
        images: of one study of one patient.
        maker: what made it.
        made: when; the same result must be given the same time again, else its bytes differ.
        codes: what classes, sites and titles are called in DICOM.
        predecessors: (SOP class, SOP instance, study, series) UIDs of reports that this one follows.
    """

    images: tuple[ImageResult, ...]
    maker: Maker
    made: datetime
    codes: CodeTable = field(default_factory=CodeTable)
    predecessors: tuple[tuple[str, str, str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class FoundVertebra:
    """What is said of one vertebra of a CT.

    Attributes:
        level: as T12.
        point_mm: (x, y, z) of its centre in the patient, LPS+ as DICOM counts.
        said: of the finding.
        mask: bool [slices, rows, columns] of the series, or None.
        map: float32 [a, b, c], the class map of its patch, or None.
        map_affine: [4, 4], from the map's indices to mm, LPS+.
    """

    level: str
    point_mm: tuple[float, float, float]
    said: FindingResult
    mask: NDArray[np.bool_] | None = None
    map: NDArray[np.float32] | None = None
    map_affine: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class SeriesResult:
    """What is said of the vertebrae of one CT series.

    Attributes:
        sources: its slices in order along the normal.
        vertebrae: from head to foot.
        maker: what made it.
        made: when.
        codes: what classes and sites are called.
        picture: uint8 [h, w, 3], the spine with marks and words burnt in, or None.
        notes: what a reader of the result has to know, in words.
    """

    sources: tuple[SourceImage, ...]
    vertebrae: tuple[FoundVertebra, ...]
    maker: Maker
    made: datetime
    codes: CodeTable = field(default_factory=CodeTable)
    picture: NDArray[np.uint8] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse masks of another size than the series'."""
        shape = (len(self.sources), *self.sources[0].shape) if self.sources else ()
        for one in self.vertebrae:
            if one.mask is not None and one.mask.shape != shape:
                raise GeometryError(f"The mask of {one.level} is {one.mask.shape}; the series is {shape}.")
