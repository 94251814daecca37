"""An exported run that is asked with onnxruntime; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import GeometryError, RecipeError, RunError, quote_command
from sightline.explainers.localisation.protocols import MapBoxes
from sightline.inference.network_output import Answers, RunFacts
from sightline.inference.onnx.model_file import FOLDER, GRAPH, ModelFacts, find_export, make_session, read_facts
from sightline.io.files import digest_file, read_json
from sightline.metrics.calibration.record import CalibrationRecord
from sightline.training.serialization import INPUT_WORDS, build_from_plain

# probabilities that an ensemble's logits are the logarithms of sum to 1 to so much, as those of no sigmoids do
SHARES_OF_ONE = 1e-5
_PLAIN = ("logits", "probabilities", "maps", "window", "features")


@dataclass(frozen=True)
class ExportedRun:
    """A run that was exported.

    Attributes:
        facts: what reading pictures needs to know of it.
        model: what stands beside the graph.
        network: the graph.
    """

    facts: RunFacts
    model: ModelFacts
    network: OnnxNetwork


class OnnxNetwork:
    """A graph that answers with onnxruntime.

    Example:
        `open_export(folder).network(images).logits`, of images float32 [b, c, h, w] in 0..1.
    """

    def __init__(self, path: Path, model: ModelFacts) -> None:
        """Load the graph.

        Raises:
            RunError: onnxruntime is not installed, or cannot read it.
        """
        self.model = model
        self._session = make_session(path)

    def __call__(self, images: NDArray[np.float32]) -> Answers:
        """Answers to images; a grey plane is repeated for every channel, and a fixed batch is kept to.

        Raises:
            GeometryError: images of another size.
        """
        channels, sides = self.model.size[0], self.model.size[1:]
        if images.shape[2:] != sides or images.shape[1] not in (1, channels):
            raise GeometryError(
                f"Images must be [b, 1 or {channels}, {', '.join(map(str, sides))}]; got {images.shape}."
            )
        given = np.ascontiguousarray(np.broadcast_to(images, (len(images), *self.model.size)), dtype=np.float32)
        names, step = list(self.model.outputs), self.model.batch or len(given)
        parts = [self._session.run(names, {"images": given[i : i + step]}) for i in range(0, len(given), step)]
        outputs = {name: np.concatenate(each) for name, each in zip(names, zip(*parts, strict=True), strict=True)}
        extras = {name: value for name, value in outputs.items() if name not in _PLAIN}
        return Answers(outputs["logits"], outputs.get("maps"), extras, outputs.get("window"), outputs.get("features"))


def open_export(folder: Path) -> ExportedRun:
    """Open what export wrote: a folder of its own, or the `onnx` of a run folder.

    Of a run folder calibration, gate, codes and the way of boxes are the run's own, so that what was fitted later
    counts; and the graph must have been made from the weights that lie there.

    Raises:
        RunError: nothing was exported, it is damaged, of other weights, or an ensemble that halves probabilities.
    """
    place = find_export(folder)
    command = quote_command("sightline", "export", folder, "--as", "onnx")
    if place is None:
        raise RunError(f"{folder} has no ONNX graph.", f"Make it: {command}")
    model = read_facts(place)
    own = place
    if place == folder / FOLDER and (folder / "cohort.json").is_file():
        own = folder
        weights = folder / "weights.safetensors"
        if not weights.is_file() or digest_file(weights) != model.weights_sha256:
            raise RunError(
                f"{place / GRAPH} was made from other weights than those in {folder}.",
                f"Export it again: {command}",
            )
    boxes_file = own / "boxes.json"
    try:
        view = build_from_plain(model.view, INPUT_WORDS, "view")
        boxes = build_from_plain(read_json(boxes_file) if boxes_file.is_file() else model.boxes, INPUT_WORDS, "boxes")
    except RecipeError as error:
        raise RunError(f"{place}: model.json is damaged ({error.message}).", "Export it again.") from None
    if not isinstance(view, (View, VolumeView)) or not isinstance(boxes, MapBoxes):
        raise RunError(f"{place}: model.json names no view and no boxes.", "Export it again.")
    facts = RunFacts(
        folder=own,
        title=model.title,
        identity=model.run_identity,
        classes=model.classes,
        view=view,
        boxes=boxes,
        independent=model.independent,
        classifies=model.classifies,
        cohort=model.cohort,
        calibration=CalibrationRecord.read(own, model.run_identity),
        weights_sha256=model.weights_sha256,
        engine="onnxruntime",
        join_views=model.join_views,
    )
    network = OnnxNetwork(place / GRAPH, model)
    if model.independent:
        _require_answers_of_classes_apart(place, network)
    return ExportedRun(facts, model, network)


def _require_answers_of_classes_apart(place: Path, network: OnnxNetwork) -> None:
    """Refuse the graph of an ensemble of an earlier version, which averaged sigmoid answers as if they were softmax.

    Its recipe is refused where torch reads it; a graph has none, but its logits are logarithms of shares of one.

    Raises:
        RunError: naming what is to be made again.
    """
    images = np.random.default_rng(0).random((2, *network.model.size), dtype=np.float32)
    totals = np.exp(network(images).logits.astype(np.float64)).sum(axis=1)
    if np.abs(totals - 1.0).max() < SHARES_OF_ONE:
        raise RunError(
            f"{place / GRAPH}: {network.model.title!r} judges each class by itself; an earlier version averaged its "
            "members as if classes excluded each other: no probability would be above a half.",
            "Put it together anew (sightline ensemble RUN ...), and export that.",
        )
