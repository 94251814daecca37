"""What a network says of one picture, and which DICOM objects a person wants of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from sightline.errors import RunError
from sightline.io.dicom_results.results import KINDS, Kind
from sightline.structures.frame import Frame
from sightline.structures.regions import ScoredBox

if TYPE_CHECKING:
    from sightline.io.dicom_results.objects import ObjectOptions


@dataclass(frozen=True)
class DicomWish:
    """Which DICOM objects a command writes.

    Attributes:
        kinds: of `findings`, `marks`, `regions`, `states`, `picture`, `map`; empty: all.
        map_on_image: the map on the pixels of the image.
        picture_syntax: `plain`, `rle` or `jpegls`.
        codes: a `codes.yaml`, or None: that of the run folder.
    """

    kinds: tuple[str, ...] = ()
    map_on_image: bool = False
    picture_syntax: Literal["plain", "rle", "jpegls"] = "plain"
    codes: Path | None = None

    def choose_objects(self) -> ObjectOptions:
        """The same for those who make the objects.

        Raises:
            RunError: highdicom is not installed.
        """
        try:
            from sightline.io.dicom_results.objects import ObjectOptions
        except ImportError as error:
            raise RunError(
                f"DICOM results need a package that is not installed ({error.name}).",
                "pip install 'sightline-radiology[hospital]'",
            ) from None
        return ObjectOptions(cast("tuple[Kind, ...]", self.kinds) or KINDS, self.map_on_image, self.picture_syntax)


@dataclass(frozen=True)
class FileResult:
    """What a network says of one picture.

    Attributes:
        pixels: [h, w] or [h, w, 3], what it saw.
        frame: of that, in the picture.
        probabilities: float64 [k], or None from a network that only locates.
        predicted: position of the most probable class.
        boxes: of the most probable finding, surest first, in pixels of the file.
        map: float64 [mh, mw], the class map that is shown, or None without maps.
        window: [2, 3], where the map lies, or None: over all that it saw.
        named: position of the most probable finding, whose boxes these are.
        named_map: float64 [mh, mw], the class map of that finding, or None without maps.
        energy: log sum exp of its logits.
        features: float32 [c], what its class maps are computed from, averaged over cells, or None.
        shape: rows and columns of the file's picture; None where they are not known.
        uncalibrated: float64 [k], the probabilities before any calibration, or None from a network that only locates.
        alone: float64 [k], what this view says by itself where `probabilities` are its study's, else None.
        shows: False on a view of a joined study that is not the one to mark (`find_showing_views`).
    """

    pixels: NDArray[np.float32]
    frame: Frame
    probabilities: NDArray[np.float64] | None
    predicted: int
    boxes: tuple[ScoredBox, ...]
    map: NDArray[np.float64] | None
    window: NDArray[np.float64] | None
    named: int
    named_map: NDArray[np.float64] | None
    energy: float = 0.0
    features: NDArray[np.float32] | None = None
    shape: tuple[int, int] | None = None
    uncalibrated: NDArray[np.float64] | None = None
    alone: NDArray[np.float64] | None = None
    shows: bool = True

    @property
    def look(self) -> NDArray[np.float64] | None:
        """Where the network looked most, (row, column) in pixels of the file; None without maps.

        Cells of the padding about the picture show none of it; the rim of a cell that lies half in it is in it.
        """
        if self.map is None:
            return None
        shape = (self.map.shape[0], self.map.shape[1])
        place = self.frame.resize(shape) if self.window is None else self.frame.within(self.window, shape)
        if self.shape is None:
            return place.map_points(np.array(np.unravel_index(int(self.map.argmax()), shape)) + 0.5)
        # the smallest upright box around each cell, in the picture
        cells = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1).reshape(-1, 1, 2)
        corners = place.map_points(cells + np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
        low, high = corners.min(axis=1), corners.max(axis=1)
        reaching = ((high > 0.0) & (low < np.array(self.shape))).all(axis=1)
        values = np.where(reaching, self.map.ravel(), -np.inf) if reaching.any() else self.map.ravel()
        most = int(values.argmax())
        return np.clip((low[most] + high[most]) / 2.0, 0.0, np.array(self.shape, dtype=np.float64))
