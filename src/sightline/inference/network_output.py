"""What a network says of cases or of one picture, as arrays, and what a run says of itself; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import RunError
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.io.files import digest_file
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.metrics.predictions import Predictions
from sightline.structures.frame import Frame
from sightline.structures.joined_views import JoinViews

if TYPE_CHECKING:
    import pandas as pd

    from sightline.training.run import Run

MAPS_KEPT = 8
# side of the grid that painted and explained maps are kept on: finer than any gaze is known
SHOWN_CELLS = 56
ExtraMaps = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Maps:
    """Class maps of cases.

    Attributes:
        case_ids: one per case.
        classes: int [n, m], which classes' maps are kept: all of them up to eight, else predicted and true.
        maps: float32 [n, m, *cells], before pooling.
        attention: float32 [n, m, *cells], each cell's share of the logit (M' of Liao 2022, equation 5).
        windows: float64 [n, 2, 3], where the maps lie (`Evidence.window`), or None: over the whole view.
    """

    case_ids: tuple[str, ...]
    classes: NDArray[np.int64]
    maps: NDArray[np.float32]
    attention: NDArray[np.float32]
    windows: NDArray[np.float64] | None = None

    def write(self, path: Path) -> None:
        """Write as an npz of plain arrays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial.npz")
        arrays = {"classes": self.classes, "maps": self.maps, "attention": self.attention}
        if self.windows is not None:
            arrays["windows"] = self.windows
        np.savez_compressed(partial, case_ids=np.array(self.case_ids), **arrays)  # type: ignore[arg-type]
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Maps:
        """Read what `write` wrote; pickled arrays are refused."""
        try:
            with np.load(path, allow_pickle=False) as data:
                ids = tuple(str(i) for i in data["case_ids"])
                windows = data.get("windows")
                return cls(ids, data["classes"], data["maps"], data["attention"], windows)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise RunError(f"{path} is damaged ({error}).", "Evaluate the run again.") from None

    def of_class(self, row: int, index: int) -> int | None:
        """Where the map of class `index` stands in row `row`, or None where it was not kept."""
        where = np.flatnonzero(self.classes[row] == index)
        return int(where[0]) if len(where) else None

    def take(self, rows: Sequence[int]) -> Maps:
        """The maps of some rows."""
        chosen = np.asarray(rows, dtype=np.int64)
        return Maps(
            tuple(self.case_ids[row] for row in rows),
            self.classes[chosen],
            self.maps[chosen],
            self.attention[chosen],
            None if self.windows is None else self.windows[chosen],
        )

    def frame(self, row: int, view: Frame, shape: tuple[int, ...] | None = None) -> Frame:
        """Where the maps of row `row` lie, given the frame of its view; on their own grid, or on one of `shape`."""
        grid = shape or self.maps.shape[2:]
        return view.resize(grid) if self.windows is None else view.within(self.windows[row], grid)


@dataclass(frozen=True)
class NetworkOutput:
    """A network's output on cases.

    Attributes:
        predictions: class probabilities (all equal if the network only localises).
        maps: class maps, or None.
        boxes: float64 [n, 4], boxes that the network predicts directly: centre row, centre column, height and width as
            fractions of the view; None if boxes are read off its maps.
        shown: other maps over the whole view, one per case, by name: `decoder`, the decoder's output, 0 to 1; and
            `heatmap`, the map of the objective's explainer for the case's own class.
        energies: float64 [n], log sum exp of the logits (Liu 2020): low for cases unlike the training cases.
        features: float32 [n, c], the features of the class maps, averaged over cells (`FeatureTap`), or None.
    """

    predictions: Predictions
    maps: Maps | None = None
    boxes: NDArray[np.float64] | None = None
    shown: ExtraMaps = field(default_factory=dict)
    energies: NDArray[np.float64] | None = None
    features: NDArray[np.float32] | None = None

    def to_frame(self) -> pd.DataFrame:
        """A pandas table, a row a case: name, study, patient, label, predicted class and `p(CLASS)`."""
        import pandas as pd

        output = self.predictions
        columns: dict[str, Any] = {"name": output.case_ids, "study": output.study_ids, "patient": output.patient_ids}
        columns |= {"label": [output.classes[k] for k in output.labels]}
        columns |= {"predicted": [output.classes[k] for k in output.probabilities.argmax(axis=1)]}
        columns |= {f"p({name})": output.probabilities[:, k] for k, name in enumerate(output.classes)}
        return pd.DataFrame(columns)


def write_extra_maps(shown: ExtraMaps, path: Path) -> None:
    """Write maps as an npz of plain arrays."""
    partial = path.with_name(path.name + ".partial.npz")
    np.savez_compressed(partial, **dict(shown))  # type: ignore[arg-type]
    partial.replace(path)


def read_shown(path: Path) -> ExtraMaps:
    """Read what `write_extra_maps` wrote; pickled arrays are refused."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(f"{path} is damaged ({error}).", "Evaluate the run again.") from None


@dataclass(frozen=True)
class Answers:
    """What a network says of images, whatever computed it (`Evidence` as arrays).

    Attributes:
        logits: float32 [b, k].
        maps: float32 [b, k, *m], or None.
        extras: as `Evidence.extras`: attention, box, decoder.
        window: float32 [b, d, d + 1], or None.
        features: float32 [b, c], what the class maps are computed from, averaged over cells; None where nobody asked.
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None = None
    extras: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    window: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None

    def probabilities(self, *, independent: bool) -> NDArray[np.float64]:
        """Class probabilities [b, k]: a softmax, or a sigmoid each where classes are independent."""
        logits = self.logits.astype(np.float64)
        if independent:
            return np.asarray(1.0 / (1.0 + np.exp(-logits)))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    @property
    def energies(self) -> NDArray[np.float64]:
        """Log sum exp of the logits, [b]."""
        logits = self.logits.astype(np.float64)
        highest = logits.max(axis=1)
        return np.asarray(highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1)))


Ask = Callable[[NDArray[np.float32]], Answers]
"""Answers to images [b, c, *s] in 0..1: a network, with torch or with onnxruntime."""


@dataclass(frozen=True)
class RunFacts:
    """What reading pictures needs to know of a run besides its network.

    Attributes:
        folder: of the run, or of what was exported.
        title: of the recipe.
        identity: of the run.
        classes: names in the order of the logits.
        view: framing of pictures.
        boxes: how boxes are read off maps.
        independent: each class is judged by itself.
        classifies: the network says classes, or only places.
        cohort: facts of the training cohort.
        calibration: what was fitted on validation, or None.
        weights_sha256: of the weights, where somebody knows it already.
        engine: what computes: `torch`, or `onnxruntime`.
        join_views: how the answers of a study's views are joined (`Recipe.join_views`).
    """

    folder: Path
    title: str
    identity: str
    classes: tuple[str, ...]
    view: View | VolumeView
    boxes: MapBoxes
    independent: bool
    classifies: bool
    cohort: Mapping[str, Any]
    calibration: CalibrationRecord | None = None
    weights_sha256: str = ""
    engine: str = "torch"
    join_views: JoinViews = "none"

    def weights_digest(self) -> str:
        """SHA-256 of the weights."""
        return self.weights_sha256 or digest_file(self.folder / "weights.safetensors")

    def picture_view(self) -> View:
        """The view, where whole radiographs can be read with it.

        Raises:
            RunError: it is of patches of CTs, or of squares around experts' boxes.
        """
        if isinstance(self.view, VolumeView):
            raise RunError(
                f"{self.folder} was trained on patches of CTs, not on radiographs.",
                "Give a CT with --centroids or --vertebrae, or a run that was trained on radiographs.",
            )
        if self.view.crop is not None:
            raise RunError(
                f"{self.folder} was trained on squares around experts' boxes, which a new picture does not have.",
                "Predict with a cascade that finds the square itself, or evaluate on a cohort with boxes.",
            )
        return self.view


def collect_facts(run: Run) -> RunFacts:
    """The same of a run that was opened with torch.

    Raises:
        RunError: it is not finished.
    """
    # what predicts with a graph imports this file, and no torch
    from sightline.training.preconditions import require_finished

    require_finished(run)
    recipe = run.recipe
    return RunFacts(
        folder=run.folder,
        title=recipe.title,
        identity=run.identity,
        classes=run.classes,
        view=recipe.view,
        boxes=run.boxes,
        independent=recipe.independent,
        classifies=recipe.classifies,
        cohort=run.cohort,
        calibration=run.calibration,
        join_views=recipe.join_views,
    )
