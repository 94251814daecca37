"""From a trained run to `model.onnx` and `model.json`, compared with the network before either is written."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline import __version__
from sightline.data.views.volume_view import VolumeView
from sightline.errors import GeometryError, RunError
from sightline.inference.onnx.model_file import GRAPH, ModelFacts, make_session, write_facts
from sightline.io.files import digest_file
from sightline.structures.evidence import Evidence, FeatureTap
from sightline.training.preconditions import require_finished
from sightline.training.run import Run
from sightline.training.serialization import Catalogue, to_plain

if TYPE_CHECKING:
    import onnx

OPSET = 20
# differences that are allowed: of probabilities and of what lies in fractions as they are, of maps as a share of their
# range, of logits as a share of the greatest one (at least 1)
PROBABILITIES, LOGITS, MAPS, PLACES = 1e-5, 1e-4, 1e-4, 1e-4
BATCHES = (1, 3)
ROUNDS = 3
_COPIED = ("gate.json", "calibration.json", "codes.yaml", "model_card.md")
Arrays = Mapping[str, NDArray[np.float32]]


class NamedOutputs(nn.Module):
    """A network whose Evidence becomes a tuple of tensors, in the order of `names`."""

    def __init__(self, network: nn.Module, *, independent: bool) -> None:
        """Wrap a network."""
        super().__init__()
        self.network = network
        self.independent = independent
        self.tap = FeatureTap(network)
        self.names: tuple[str, ...] = ()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the network says of images [b, c, *s]."""
        evidence: Evidence = self.network(images)
        logits = evidence.logits
        outputs = {
            "logits": logits,
            "probabilities": logits.sigmoid() if self.independent else logits.softmax(dim=1),
        }
        if evidence.maps is not None:
            outputs["maps"] = evidence.maps
        outputs |= evidence.extras
        if evidence.window is not None:
            outputs["window"] = evidence.window
        features = self.tap.take()
        if features is not None:
            outputs["features"] = features
        self.names = tuple(outputs)
        return tuple(tensor.float() for tensor in outputs.values())


@dataclass(frozen=True)
class OnnxExport:
    """What export wrote.

    Attributes:
        folder: with `model.onnx` and `model.json`.
        facts: what `model.json` says.
    """

    folder: Path
    facts: ModelFacts


def export_onnx(
    run: Run, folder: Path, catalogue: Catalogue, pictures: Sequence[NDArray[np.float32]] = ()
) -> OnnxExport:
    """Write `model.onnx` and `model.json` of a run, and copy its gate, calibration, codes and model card beside them.

    Args:
        run: finished.
        folder: to write.
        catalogue: words for the view and the boxes.
        pictures: float32 [c, *s] as the network sees them, compared besides the drawn ones.

    Raises:
        RunError: not finished, a package is missing, the network has no graph, or the graph says something else than
            the network; nothing is written then.
    """
    require_finished(run)
    require_onnx()
    network = NamedOutputs(run.network(), independent=run.recipe.independent).eval()
    size = find_input_size(network, run)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / GRAPH
        batch = write_graph(network, size, path)
        checked = check_graph(network, path, size, batch, pictures)
        facts = ModelFacts(
            title=run.recipe.title,
            run_identity=run.identity,
            weights_sha256=digest_file(run.folder / "weights.safetensors"),
            classes=run.classes,
            classifies=run.recipe.classifies,
            independent=run.recipe.independent,
            join_views=run.recipe.join_views,
            view=to_plain(run.recipe.view, catalogue),
            boxes=to_plain(run.boxes, catalogue),
            cohort={name: run.cohort[name] for name in ("name", "fingerprint", "about") if name in run.cohort},
            size=size,
            batch=batch,
            outputs=network.names,
            checked=checked,
            versions=_collect_versions(),
        )
        _write_metadata(path, facts)
        facts = replace(facts, graph_sha256=digest_file(path))
        folder.mkdir(parents=True, exist_ok=True)
        # the description last: its presence marks the export as complete
        partial = folder / f"{GRAPH}.partial"
        shutil.copyfile(path, partial)
        partial.replace(folder / GRAPH)
    for name in _COPIED:
        if (run.folder / name).is_file() and folder.resolve() != run.folder.resolve():
            shutil.copyfile(run.folder / name, folder / name)
    write_facts(folder, facts)
    return OnnxExport(folder, facts)


def require_onnx() -> None:
    """Refuse to begin where a package is missing.

    Raises:
        RunError: naming it.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise RunError(
                f"ONNX needs a package that is not installed ({name}).", "pip install 'sightline-radiology[onnx]'"
            ) from None


def find_input_size(network: nn.Module, run: Run) -> tuple[int, ...]:
    """Channels and sides of what a run's network sees: as many channels as its first layer has, of 1 and 3."""
    side = run.recipe.view.size
    if isinstance(run.recipe.view, VolumeView):
        return (1, side, side, side)
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, side, side))
    except GeometryError:
        return (1, side, side)
    return (3, side, side)


def write_graph(network: NamedOutputs, size: tuple[int, ...], path: Path) -> int:
    """Write the graph of a network; how many images it takes at once, 0 for any number.

    Raises:
        RunError: torch finds no graph.
    """
    fixed = ""
    # the exporter may fix the batch without a word, so a graph is asked for several before it is believed
    for dynamic in (True, False):
        images = torch.rand(2 if dynamic else 1, *size, generator=torch.Generator().manual_seed(0))
        shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
        try:
            with torch.no_grad():
                network(images)
                program = torch.onnx.export(
                    network,
                    (images,),
                    dynamo=True,
                    opset_version=OPSET,
                    input_names=["images"],
                    output_names=list(network.names),
                    dynamic_shapes=shapes,
                    verbose=False,
                    custom_translation_table={
                        torch.ops.aten.softplus.default: _write_softplus,
                        torch.ops.aten.expm1.default: _write_expm1,
                    },
                )
        except Exception as error:  # torch raises many kinds, and each means that there is no such graph
            fixed = " ".join(str(error).split())[:300]
            continue
        assert program is not None
        program.save(str(path), external_data=False)
        if not dynamic or _accepts_any_batch(path, size):
            return 0 if dynamic else 1
        fixed = "the exporter fixed the batch"
    raise RunError(f"There is no ONNX graph of this network: {fixed}.", "Predict with --engine torch.")


def _load_operators() -> Any:
    """The operators of OPSET, imported with the first graph."""
    from onnxscript import opset20

    return opset20


# onnxruntime's Softplus is 0 below -17 and the exporter writes expm1 as Exp - 1: a noisy or of low maps would be the
# logarithm of 0. Both in terms that keep every digit near 0.
def _write_softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(x)) as max(x, 0) + 2 atanh(u / (2 + u)), u = exp(-|x|)."""
    op = _load_operators()
    slope, two = (op.CastLike(op.Constant(value_float=float(value)), x) for value in (beta, 2.0))
    steep = op.Mul(x, slope)
    small = op.Exp(op.Neg(op.Abs(steep)))
    return op.Div(op.Add(op.Relu(steep), op.Mul(two, op.Atanh(op.Div(small, op.Add(small, two))))), slope)


def _write_expm1(x: Any) -> Any:
    """exp(x) - 1 as 2 t / (1 - t), t = tanh(x / 2), where x is small."""
    op = _load_operators()
    one, two = (op.CastLike(op.Constant(value_float=value), x) for value in (1.0, 2.0))
    half = op.Tanh(op.Div(x, two))
    near = op.Div(op.Mul(two, half), op.Sub(one, half))
    return op.Where(op.Less(op.Abs(x), one), near, op.Sub(op.Exp(x), one))


def check_graph(
    network: NamedOutputs, path: Path, size: tuple[int, ...], batch: int, pictures: Sequence[NDArray[np.float32]] = ()
) -> dict[str, Any]:
    """Compare a graph with its network on drawn pictures and on given ones, alone and together.

    Returns:
        batches, number of pictures, and the largest difference of every output.

    Raises:
        RunError: one is too large, or the most probable class is another one.
    """
    import onnx

    onnx.checker.check_model(str(path), full_check=True)
    session = make_session(path)
    batches = [batch] if batch else list(BATCHES)
    every = [
        *(_draw_picture(size, seed) for seed in range(ROUNDS)),
        *(_match_channels(one, size[0]) for one in pictures),
    ]
    largest = dict.fromkeys(network.names, 0.0)
    for count in batches:
        for first in range(0, len(every), count):
            # the last ones are filled up with those before
            images = np.stack([every[(first + i) % len(every)] for i in range(count)])
            with torch.no_grad():
                wanted = dict(zip(network.names, (x.numpy() for x in network(torch.from_numpy(images))), strict=True))
            outputs = dict(zip(network.names, session.run(list(network.names), {"images": images}), strict=True))
            for name, difference in measure_differences(wanted, outputs).items():
                largest[name] = max(largest[name], difference)
    for name, difference in largest.items():
        # written so that what is no number is refused, too
        if not difference <= choose_tolerance(name):
            raise RunError(
                f"The graph's {name} differ from the network's by {difference:.2g}, at most "
                f"{choose_tolerance(name):g} is "
                "allowed; nothing was written.",
                "Predict with --engine torch.",
            )
    return {"batches": batches, "pictures": len(every), "largest_differences": largest}


def measure_differences(wanted: Arrays, outputs: Arrays) -> dict[str, float]:
    """Largest difference of every output, in the terms of `choose_tolerance`; infinite if another class is called."""
    found = {}
    for name, one in wanted.items():
        other = outputs[name]
        if other.shape != one.shape:
            found[name] = float("inf")
            continue
        scale = 1.0
        if name in ("maps", "attention", "decoder", "features"):
            scale = max(float(np.ptp(one)), 1e-6)
        elif name.endswith("logits"):
            scale = max(float(np.abs(one).max()), 1.0)
        found[name] = float(np.abs(one.astype(np.float64) - other).max()) / scale
    if _changes_calls(wanted["probabilities"], outputs["probabilities"]):
        found["probabilities"] = float("inf")
    return found


def choose_tolerance(name: str) -> float:
    """The greatest difference of an output that is no error."""
    if name == "probabilities":
        return PROBABILITIES
    return PLACES if name in ("box", "window") else LOGITS if name.endswith("logits") else MAPS


def _changes_calls(wanted: NDArray[np.float32], outputs: NDArray[np.float32]) -> bool:
    """Whether another class is called somewhere; classes as probable as each other may change places."""
    rows = np.arange(len(wanted))
    return bool((wanted.max(axis=1) - wanted[rows, outputs.argmax(axis=1)] > PROBABILITIES).any())


def _accepts_any_batch(path: Path, size: tuple[int, ...]) -> bool:
    session = make_session(path)
    for count in BATCHES:
        try:
            outputs = session.run(None, {"images": np.zeros((count, *size), dtype=np.float32)})
        except Exception:  # onnxruntime's own kinds
            return False
        if any(len(one) != count for one in outputs):
            return False
    return True


def _draw_picture(size: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """A drawn picture: soft shapes and noise, as a network that was trained on pictures expects them more or less."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    noise = rng.random(size[1:])
    soft = gaussian_filter(rng.random(size[1:]), size[1] / 16)
    soft = (soft - soft.min()) / max(float(np.ptp(soft)), 1e-9)
    picture = (0.8 * soft + 0.2 * noise).astype(np.float32)
    return np.repeat(picture[None], size[0], axis=0)


def _match_channels(planes: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    return np.repeat(planes, channels, axis=0) if len(planes) == 1 else planes


def _collect_versions() -> dict[str, str]:
    names = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    return {"sightline": __version__, **{name: metadata.version(name) for name in names}}


def _write_metadata(path: Path, facts: ModelFacts) -> None:
    """The description within the graph's file, too, for those who get that alone."""
    import json

    import onnx

    model: onnx.ModelProto = onnx.load(str(path))
    model.producer_name, model.producer_version = "sightline", __version__
    model.doc_string = f"{facts.title}. Research only, not for diagnosis."
    entry = model.metadata_props.add()
    entry.key, entry.value = "sightline", json.dumps(facts.to_plain())
    _name_batch(model)
    # names of source files of this machine are nobody's business
    for part in (model.graph, *model.functions):
        for node in part.node:
            del node.metadata_props[:]
    onnx.save(model, str(path))


def _name_batch(model: onnx.ModelProto) -> None:
    """The first axis is called `batch`, not what torch numbered it."""
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if not symbol:
        return
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", "batch", dim.dim_param)
