"""What stands beside an ONNX graph: all that is needed to judge pictures with it, as JSON; needs no torch.

`model.onnx` and `model.json` are enough for somebody else's code, too: the first holds the normalisation, the second
says what goes in, what comes out and under which names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from sightline.errors import RunError
from sightline.io.files import digest_file, read_json, write_text
from sightline.structures.joined_views import JoinViews

GRAPH, FACTS = "model.onnx", "model.json"
FORMAT = "sightline onnx 1"
# where a run keeps its own graph
FOLDER = "onnx"

MEANINGS: Mapping[str, str] = {
    "logits": "[batch, class]",
    "probabilities": "[batch, class], as the network says them; a calibration is not in the graph",
    "maps": "[batch, class, cells ...], class maps before pooling; cells lie over the image, or over `window`",
    "attention": "[batch, class, cells ...], each cell's share of its logit",
    "box": "[batch, 4], centre row, centre column, height and width as fractions of the image",
    "window": "[batch, d, d + 1], affine from map fractions to image fractions, (row, column)",
    "decoder": "[batch, 1, rows, columns], logits of a decoder's map",
    "localiser_logits": "[batch, class], of the localisation branch",
    "features": "[batch, channel], what the class maps are computed from, averaged over cells",
}
"""Outputs by name. A graph has those that its network has."""


@dataclass(frozen=True)
class ModelFacts:
    """What `model.json` says.

    Attributes:
        title: of the recipe.
        run_identity: of the run.
        weights_sha256: of the weights that the graph was made from.
        classes: names in the order of the logits.
        classifies: the network says classes, or only places.
        independent: each class is judged by itself.
        join_views: how the answers of a study's views are joined.
        view: framing of pictures, plain.
        boxes: how boxes are read off maps, plain.
        cohort: name, fingerprint and `about` of the training cohort.
        size: of the input, without batch: channels, then sides.
        batch: how many images at once; 0: any number.
        outputs: names, in order.
        checked: how it was compared with the network that it was made from, and the largest differences.
        versions: of what made it.
        graph_sha256: of `model.onnx`.
    """

    title: str
    run_identity: str
    weights_sha256: str
    classes: tuple[str, ...]
    classifies: bool
    independent: bool
    view: Mapping[str, Any]
    boxes: Mapping[str, Any]
    cohort: Mapping[str, Any]
    size: tuple[int, ...]
    batch: int
    outputs: tuple[str, ...]
    checked: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    graph_sha256: str = ""
    join_views: JoinViews = "none"

    def to_plain(self) -> dict[str, Any]:
        """As it stands in the file."""
        grey = "one plane, repeated for every channel" if self.size[0] > 1 else "one plane"
        return {
            "format": FORMAT,
            "title": self.title,
            "run_identity": self.run_identity,
            "weights_sha256": self.weights_sha256,
            "graph_sha256": self.graph_sha256,
            "classes": list(self.classes),
            "classifies": self.classifies,
            "independent": self.independent,
            "input": {
                "name": "images",
                "dtype": "float32",
                "range": [0, 1],
                "size": list(self.size),
                "batch": self.batch or "any",
                "grey": grey,
            },
            "outputs": {name: MEANINGS.get(name, "") for name in self.outputs},
            "view": dict(self.view),
            "boxes": dict(self.boxes),
            "cohort": dict(self.cohort),
            "checked": dict(self.checked),
            "versions": dict(self.versions),
            "not_for_diagnosis": "research only; not a medical device",
            # graphs of before, and of pictures judged by themselves, do not say it
            **({} if self.join_views == "none" else {"join_views": self.join_views}),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ModelFacts:
        """Of what stands in the file; raises KeyError, TypeError or ValueError where it is none."""
        if plain["format"] != FORMAT:
            raise ValueError(f"format {plain['format']!r}, expected {FORMAT!r}")
        given = plain["input"]
        batch = given["batch"]
        return cls(
            title=str(plain["title"]),
            run_identity=str(plain["run_identity"]),
            weights_sha256=str(plain["weights_sha256"]),
            classes=tuple(str(name) for name in plain["classes"]),
            classifies=bool(plain["classifies"]),
            independent=bool(plain["independent"]),
            view=dict(plain["view"]),
            boxes=dict(plain["boxes"]),
            cohort=dict(plain["cohort"]),
            size=tuple(int(n) for n in given["size"]),
            batch=0 if batch == "any" else int(batch),
            outputs=tuple(plain["outputs"]),
            checked=dict(plain["checked"]),
            versions=dict(plain["versions"]),
            graph_sha256=str(plain["graph_sha256"]),
            join_views=_read_joining(str(plain.get("join_views", "none"))),
        )


def _read_joining(word: str) -> JoinViews:
    if word not in get_args(JoinViews):
        raise ValueError(f"join_views {word!r}")
    return cast(JoinViews, word)


def write_facts(folder: Path, facts: ModelFacts) -> None:
    """Write model.json."""
    write_text(folder / FACTS, json.dumps(facts.to_plain(), indent=1) + "\n")


def read_facts(folder: Path) -> ModelFacts:
    """Read model.json, and compare the graph beside it with its digest.

    Raises:
        RunError: absent, damaged, or the graph is another one.
    """
    remedy = "Export it again: sightline export RUN --as onnx"
    for name in (FACTS, GRAPH):
        if not (folder / name).is_file():
            raise RunError(f"{folder} has no {name}.", remedy)
    try:
        facts = ModelFacts.from_plain(read_json(folder / FACTS, remedy))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{folder / FACTS} is damaged ({error!r:.160}).", remedy) from None
    if digest_file(folder / GRAPH) != facts.graph_sha256:
        raise RunError(f"{folder / GRAPH} is not the graph that {FACTS} describes.", remedy)
    return facts


def find_export(folder: Path) -> Path | None:
    """Where the graph of a run folder, or of a folder that export wrote, lies; None where nothing was exported."""
    places: Sequence[Path] = (folder, folder / FOLDER)
    return next((place for place in places if (place / FACTS).is_file()), None)


def make_session(path: Path) -> Any:
    """A graph that is ready to be asked, on the CPU, with as many threads as OMP_NUM_THREADS says.

    Raises:
        RunError: onnxruntime is not installed, or cannot read the graph.
    """
    try:
        import onnxruntime
    except ImportError:
        raise RunError("onnxruntime is not installed.", "pip install 'sightline-radiology[onnx]'") from None
    options = onnxruntime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > 0:
        options.intra_op_num_threads = int(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds
        raise RunError(f"{path} is no graph that onnxruntime runs ({error!s:.200}).", "Export it again.") from None
