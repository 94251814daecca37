"""gate.json: what a run may be asked, written once beside its weights and bound to them by their SHA-256."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline import __version__
from sightline.errors import RunError, quote_command
from sightline.inference.gate.header import HeaderLimits
from sightline.inference.gate.picture import Limits
from sightline.inference.onnx.model_file import FACTS, read_facts
from sightline.io.files import digest_file

GATE = "gate.json"
FORMAT = "sightline gate 1"


@dataclass(frozen=True)
class Gate:
    """What a run may be asked.

    Attributes:
        header: header check.
        picture: picture check, (low, high) by measure.
        features: features check, as its own module wrote it; empty where it was not made.
        about: what it was made from (cohort, number of pictures), for people.
        reference: measures of a sample of training pictures, by name, which drift is measured against.
        layout: layout check, likewise.
    """

    header: HeaderLimits
    picture: Limits
    features: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Sequence[float]] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)


def write_gate(run: Path, gate: Gate) -> Path:
    """Write gate.json into a run folder.

    Raises:
        RunError: the run has no weights.
    """
    plain = {
        "format": FORMAT,
        "version": __version__,
        "weights_sha256": read_weights_digest(run),
        "header": gate.header.to_plain(),
        "picture": {name: list(limits) for name, limits in gate.picture.items()},
        "features": dict(gate.features),
        "layout": dict(gate.layout),
        "about": dict(gate.about),
        "reference": {name: list(values) for name, values in gate.reference.items()},
    }
    path = run / GATE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def read_gate(run: Path) -> Gate:
    """Read gate.json of a run.

    Raises:
        RunError: there is none, it is damaged, or it was made for other weights.
    """
    path = run / GATE
    remedy = "Make it: " + quote_command("sightline", "gate", run, "--cohort", "DIR")
    if not path.is_file():
        raise RunError(f"{run} has no {GATE}: which images it may judge is not defined.", remedy)
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["format"] != FORMAT:
            raise ValueError(f"format {plain['format']!r}, expected {FORMAT!r}")
        picture = {str(name): (float(low), float(high)) for name, (low, high) in plain["picture"].items()}
        if any(math.isnan(x) for limits in picture.values() for x in limits):
            raise ValueError("a limit is no number")
        reference = {str(name): tuple(float(x) for x in values) for name, values in plain["reference"].items()}
        header, layout = HeaderLimits.from_plain(plain["header"]), plain.get("layout", {})
        gate = Gate(header, picture, plain["features"], plain["about"], reference, layout)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error!r:.160}).", remedy) from None
    if plain.get("weights_sha256") != read_weights_digest(run):
        raise RunError(f"{path} was made for other weights than those in {run}.", remedy)
    return gate


def read_weights_digest(run: Path) -> str:
    """SHA-256 of a run's weights; of a folder that export wrote, that of the weights its graph was made from.

    Raises:
        RunError: it has neither.
    """
    if (run / "weights.safetensors").is_file():
        return digest_file(run / "weights.safetensors")
    if (run / FACTS).is_file():
        return read_facts(run).weights_sha256
    raise RunError(f"{run} has no weights.", "Point at a finished run, or at the folder that export wrote.")


def pack_array(values: NDArray[Any]) -> dict[str, Any]:
    """An array as it stands in gate.json: float32, little-endian, base64."""
    data = np.ascontiguousarray(values, dtype="<f4")
    return {"shape": list(data.shape), "float32": base64.b64encode(data.tobytes()).decode("ascii")}


def unpack_array(plain: Mapping[str, Any]) -> NDArray[np.float64]:
    """The array; raises KeyError, TypeError or ValueError where it is none."""
    data = np.frombuffer(base64.b64decode(plain["float32"], validate=True), dtype="<f4").astype(np.float64)
    if not np.isfinite(data).all():
        raise ValueError("a number is not finite")
    return data.reshape([int(n) for n in plain["shape"]])
