"""A trained network's evidence on cases: probabilities and class maps, saved so that every score can be recomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from sightline.data.loader import CohortItems, test_batches
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import CohortError, RunError
from sightline.io.progress import progress
from sightline.metrics.predictions import Predictions
from sightline.structures.case import Cohort
from sightline.structures.evidence import forward_evidence, probabilities_of, to_channels_last
from sightline.structures.frame import Frame
from sightline.structures.protocols import Explainer
from sightline.training.feature_cache import encoder_of

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
    """What a network says of cases.

    Attributes:
        predictions: class probabilities (all alike from a network that only localises).
        maps: class maps, or None.
        boxes: float64 [n, 4], the box the network itself says: centre row, centre column, height and width as
            fractions of the view; None when boxes are read off its maps.
        shown: other maps over the whole view, one a case, by name: `decoder`, what a decoder paints, 0 to 1; and
            `heatmap`, what an objective's explainer says of the case's own class.
        energies: float64 [n], log sum exp of the logits (Liu 2020): how much the network knows cases like these.
    """

    predictions: Predictions
    maps: Maps | None = None
    boxes: NDArray[np.float64] | None = None
    shown: ExtraMaps = field(default_factory=dict)
    energies: NDArray[np.float64] | None = None


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


def predict(
    network: nn.Module,
    cohort: Cohort,
    view: View | VolumeView,
    *,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
    workers: int = 0,
    quiet: bool = True,
    title: str = "predict",
    independent: bool = False,
    explainer: Explainer | None = None,
) -> NetworkOutput:
    """Predictions, maps and boxes of every case of a cohort, in its test-time view.

    Classes are judged against each other (softmax), or each by itself (sigmoid) where they are `independent`. An
    `explainer` adds its map of each case's own class.

    Raises:
        CohortError: the cohort is empty.
        RunError: the network gives something that is no number.
    """
    if len(cohort) == 0:
        raise CohortError(f"Cohort {cohort.name!r} has no case to predict.", "Choose another split.")
    items = CohortItems(cohort, view, encoder=encoder_of(network))
    network = to_channels_last(network.to(device))
    logits, windows, boxes = [], [], []
    kept_classes, kept_maps, kept_attention = [], [], []
    shown: dict[str, list[NDArray[np.float32]]] = {}
    with progress(title, len(cohort), quiet=quiet) as advance:
        for batch in test_batches(items, batch_size=batch_size, workers=workers):
            evidence = forward_evidence(network, batch.images, device)
            if not bool(torch.isfinite(evidence.logits).all()):
                bad = [i for i, row in zip(batch.case_ids, evidence.logits, strict=True) if not row.isfinite().all()]
                raise RunError(f"The network's logits are not finite for {bad[:3]}.", "The weights are damaged.")
            logits.append(evidence.logits)
            if evidence.window is not None:
                windows.append(evidence.window.double().numpy())
            if "box" in evidence.extras:
                boxes.append(evidence.extras["box"].double().numpy())
            if "decoder" in evidence.extras:
                shown.setdefault("decoder", []).append(_reduced(evidence.extras["decoder"].sigmoid()))
            if explainer is not None:
                network.eval()
                there = batch.to(device)
                shown.setdefault("heatmap", []).append(_reduced(explainer(network, there, there.labels[:, None])))
            if evidence.maps is not None:
                which = _kept(evidence.logits, batch.labels)
                kept_classes.append(which)
                kept_maps.append(_gather(evidence.maps, which))
                kept_attention.append(_gather(evidence.extras.get("attention", evidence.maps), which))
            advance(len(batch))
    probabilities = probabilities_of(torch.cat(logits), independent=independent)
    predictions = Predictions(
        classes=cohort.classes,
        case_ids=tuple(c.case_id for c in cohort),
        study_ids=tuple(c.study_id for c in cohort),
        patient_ids=tuple(c.patient_id for c in cohort),
        labels=np.array([cohort.class_index(c.label) for c in cohort], dtype=np.int64),
        probabilities=probabilities,
        independent=independent,
    )
    energies = torch.cat(logits).double().logsumexp(dim=1).numpy()
    said = np.concatenate(boxes) if boxes else None
    pictures = {name: np.concatenate(each) for name, each in shown.items()}
    if not kept_maps:
        return NetworkOutput(predictions, None, said, pictures, energies)
    maps = Maps(
        predictions.case_ids,
        torch.cat(kept_classes).numpy(),
        torch.cat(kept_maps).numpy(),
        torch.cat(kept_attention).numpy(),
        np.concatenate(windows) if windows else None,
    )
    return NetworkOutput(predictions, maps, said, pictures, energies)


def _reduced(maps: Tensor) -> NDArray[np.float32]:
    """Maps [b, 1, *m] as means over at most SHOWN_CELLS cells a side: [b, *m']."""
    sides = [min(SHOWN_CELLS, int(n)) for n in maps.shape[2:]]
    flat = len(sides) == 2
    values = maps.detach().float()
    small = adaptive_avg_pool2d(values, (sides[0], sides[1])) if flat else adaptive_avg_pool3d(values, tuple(sides))  # type: ignore[arg-type]
    return np.asarray(small[:, 0].cpu().numpy(), dtype=np.float32)


def _kept(logits: Tensor, labels: Tensor) -> Tensor:
    """Classes whose maps are kept: int64 [b, m]."""
    b, k = logits.shape
    if k <= MAPS_KEPT:
        return torch.arange(k).expand(b, k)
    return torch.stack([logits.argmax(dim=1), labels], dim=1)


def _gather(maps: Tensor, which: Tensor) -> Tensor:
    rows = torch.arange(len(which))[:, None]
    return maps[rows, which]
