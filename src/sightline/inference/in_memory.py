"""Predictions and explanations that stay in memory, for notebooks: nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import RecipeError, RunError, UnreadableFile, count_noun
from sightline.inference.explanations import EXPLAINERS
from sightline.inference.file_result import FileResult
from sightline.inference.network_output import collect_facts
from sightline.inference.predict import TorchNetwork
from sightline.inference.radiographs import list_radiograph_files, read_picture, read_radiograph
from sightline.io.image import convert_array
from sightline.io.picture import Picture, require_content
from sightline.plots.contact_sheet import draw_overlay
from sightline.structures.evidence import forward_evidence
from sightline.structures.frame import Frame
from sightline.structures.regions import ScoredBox
from sightline.training.engine import Engine
from sightline.training.preconditions import require_finished
from sightline.training.run import Run

if TYPE_CHECKING:
    import pandas as pd

Image = str | Path | NDArray[Any]


class Png(bytes):
    """A picture as PNG bytes; a notebook shows it, `Path("heat.png").write_bytes(png)` saves it."""

    def _repr_png_(self) -> bytes:
        """Itself, for a notebook."""
        return bytes(self)


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of a run for one picture; in a notebook it shows its overlay.

    Attributes:
        name: the file, or `array N`.
        classes: class names.
        result: probabilities, boxes and map as the command `sightline predict` writes them.
    """

    name: str
    classes: tuple[str, ...]
    result: FileResult

    @property
    def probabilities(self) -> dict[str, float] | None:
        """Probability by class; None if the network only localises."""
        p = self.result.probabilities
        return None if p is None else {name: float(x) for name, x in zip(self.classes, p, strict=True)}

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[self.result.predicted]

    @property
    def boxes(self) -> tuple[ScoredBox, ...]:
        """Boxes of the most probable finding, highest score first, in pixels of the picture."""
        return self.result.boxes

    @property
    def map(self) -> NDArray[np.float64] | None:
        """The class map of the predicted class on its own grid, [mh, mw]; None if the network has no maps."""
        return self.result.map

    def __repr__(self) -> str:
        """Name, class and probability."""
        p = self.probabilities
        shown = "" if p is None else f", {self.label} {p[self.label]:.3f}"
        return f"Prediction({self.name!r}{shown}, {count_noun(len(self.boxes), 'box', 'boxes')})"

    def overlay(self) -> Png | None:
        """The map and the boxes over the picture, as PNG bytes that a notebook shows; None if there are neither."""
        shown = self.result
        if shown.map is None and shown.window is None and not shown.boxes:
            return None
        p = self.probabilities
        caption = self.name if p is None else f"{self.label} {p[self.label]:.0%}"
        return Png(
            draw_overlay(shown.pixels, shown.map, (), shown.frame, caption, found=shown.boxes, window=shown.window)
        )

    def _repr_png_(self) -> bytes | None:
        """The overlay, for a notebook."""
        return self.overlay()


class PredictionList(Sequence[Prediction]):
    """A list of predictions; `.to_frame()` makes it a table.

    Example:
        `predict(run, "hand.dcm")[0].probabilities`, `predict(run, folder).to_frame()`.
    """

    def __init__(self, predictions: Sequence[Prediction]) -> None:
        self._predictions = tuple(predictions)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> PredictionList: ...
    def __getitem__(self, index: int | slice) -> Prediction | PredictionList:
        """One prediction, or a slice of them."""
        chosen = self._predictions[index]
        return chosen if isinstance(chosen, Prediction) else PredictionList(chosen)

    def __len__(self) -> int:
        """Number of predictions."""
        return len(self._predictions)

    def __iter__(self) -> Iterator[Prediction]:
        """Iterate in order."""
        return iter(self._predictions)

    def to_frame(self) -> pd.DataFrame:
        """A pandas table: name, predicted class, `p(CLASS)`, peak of the map, and the box with the highest score."""
        import pandas as pd

        rows = []
        for one in self:
            row: dict[str, Any] = {"name": one.name, "predicted": one.label}
            row |= {f"p({name})": p for name, p in (one.probabilities or {}).items()}
            look = one.result.look
            row |= (
                {"look_row": None, "look_column": None}
                if look is None
                else dict(zip(("look_row", "look_column"), (float(x) for x in look), strict=True))
            )
            if one.boxes:
                row |= {"box": one.boxes[0].corners, "box_score": one.boxes[0].score}
            rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        """Their number, and the first few."""
        return f"PredictionList({len(self)}: {', '.join(map(repr, self._predictions[:3]))}{'...' * (len(self) > 3)})"


@dataclass(frozen=True, eq=False)
class ExplainedMap:
    """An explainer's map of one picture, with its place in the picture; in a notebook it shows its overlay.

    Attributes:
        values: float64 [mh, mw], on the map's own grid.
        frame: place of the network's input in the picture.
        pixels: [h, w] or [h, w, 3], the network's input, 0..1.
        target: the class that is explained.
        method: name of the explainer.
        window: [2, 3], the part of the input that the map covers, or None: all of it.
    """

    values: NDArray[np.float64]
    frame: Frame
    pixels: NDArray[np.float32]
    target: str
    method: str
    window: NDArray[np.float64] | None = None

    @property
    def peak(self) -> tuple[float, float]:
        """The position of the map's maximum, (row, column) in pixels of the picture."""
        shape = (self.values.shape[0], self.values.shape[1])
        place = self.frame.resize(shape) if self.window is None else self.frame.within(self.window, shape)
        row, column = place.map_points(np.array(np.unravel_index(int(self.values.argmax()), shape)) + 0.5)
        return float(row), float(column)

    def overlay(self) -> Png:
        """The map over the picture: PNG bytes that show themselves in a notebook."""
        caption = f"{self.method}: {self.target}"
        return Png(draw_overlay(self.pixels, self.values, (), self.frame, caption, window=self.window))

    def _repr_png_(self) -> bytes:
        """The overlay, for a notebook."""
        return self.overlay()

    def __repr__(self) -> str:
        """Method, class and size."""
        return f"ExplainedMap({self.method}, {self.target!r}, {self.values.shape[0]} x {self.values.shape[1]})"


def read_picture_like(image: Image, number: int = 0) -> tuple[str, Picture]:
    """A picture from a file or an array, and its name.

    Raises:
        UnreadableFile: as `read_radiograph`, or the array is not integers [h, w] or [h, w, 3].
    """
    if isinstance(image, (str, Path)):
        return str(image), read_radiograph(Path(image))
    pixels = np.asarray(image)
    if pixels.dtype.kind not in "biuf":
        raise UnreadableFile(
            f"A {type(image).__name__} is no picture.", "Give the path of a file or folder, or an array of integers."
        )
    name = Path(f"array {number}")
    picture = convert_array(pixels, name)
    require_content(picture, name)
    return str(name), picture


def _require_image_view(run: Run) -> View:
    view = run.recipe.view
    if isinstance(view, VolumeView):
        raise RunError(f"{run.folder} was trained on patches of CTs.", "Give a Cohort of patches.")
    if view.crop is not None:
        raise RunError(f"{run.folder} was trained on squares around experts' boxes.", "Give the run that finds them.")
    require_finished(run)
    return view


def predict_pictures(run: Run, images: Sequence[Image], engine: Engine | None = None) -> PredictionList:
    """Predict arrays, files and folders of files, in order.

    Raises:
        RunError: the run is not for pictures, or there is nothing to read.
        SightlineError: the first file that cannot be read (`predict_files` lists such files and continues instead).
    """
    view = _require_image_view(run)
    device = (engine or Engine()).find_device()
    facts, network = collect_facts(run), TorchNetwork(run, device)
    every: list[Image] = []
    for image in images:
        every += list_radiograph_files([Path(image)], Path()) if isinstance(image, (str, Path)) else [image]
    found = []
    for number, image in enumerate(every):
        name, picture = read_picture_like(image, number)
        planes, frame = view.show(picture.pixels, picture.frame)
        found.append(Prediction(name, run.classes, read_picture(facts, network, planes, picture.frame, frame)))
    return PredictionList(found)


def explain_picture(
    run: Run, image: Image, method: str = "grad_cam", target: str | None = None, engine: Engine | None = None
) -> ExplainedMap:
    """One explanation of one picture.

    Args:
        run: a finished run.
        image: a file or an array.
        method: a key of `EXPLAINERS`; `gradcam` and `gradcam++` work too.
        target: the class to explain; the predicted one when None.
        engine: device.

    Raises:
        RecipeError: unknown explainer or class.
        SightlineError: the picture cannot be read, or the network lacks what the explainer needs.
    """
    word = {"gradcam": "grad_cam", "gradcam++": "grad_cam_pp", "grad_cam++": "grad_cam_pp"}.get(method, method)
    if word not in EXPLAINERS:
        raise RecipeError(f"There is no explainer {method!r}.", f"Known: {', '.join(EXPLAINERS)}.")
    if target is not None and target not in run.classes:
        raise RecipeError(f"There is no class {target!r}.", f"Classes: {', '.join(run.classes)}.")
    view = _require_image_view(run)
    device = (engine or Engine()).find_device()
    network = run.network().to(device).eval()
    _, picture = read_picture_like(image)
    planes, frame = view.show(picture.pixels, picture.frame)
    batch = torch.from_numpy(planes)[None].to(device)
    evidence = forward_evidence(network, batch, device)
    index = int(evidence.logits[0].argmax()) if target is None else run.classes.index(target)
    cells = EXPLAINERS[word][1](network, batch, [index])[0, 0]
    window = None
    if evidence.window is not None and tuple(cells.shape) != tuple(batch.shape[2:]):
        window = evidence.window[0].double().numpy()
    pixels = planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1)
    return ExplainedMap(_to_numbers(cells), frame, pixels, run.classes[index], word, window)


def _to_numbers(cells: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(cells.detach().double().cpu() if isinstance(cells, torch.Tensor) else cells, dtype=np.float64)
