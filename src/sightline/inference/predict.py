"""A trained network's evidence on cases, and the network as somebody who answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from sightline.data.loader import CohortItems, iterate_test_batches
from sightline.data.views.image_view import View
from sightline.data.views.volume_view import VolumeView
from sightline.errors import CohortError, RunError
from sightline.inference.network_output import MAPS_KEPT, SHOWN_CELLS, Answers, Maps, NetworkOutput
from sightline.io.progress import show_progress
from sightline.metrics.predictions import Predictions
from sightline.structures.case import Cohort
from sightline.structures.evidence import (
    Evidence,
    FeatureTap,
    compute_probabilities,
    forward_evidence,
    to_channels_last,
)
from sightline.structures.joined_views import JoinViews, find_normal_class, join_answers
from sightline.structures.protocols import Explainer
from sightline.training.feature_cache import find_encoder
from sightline.training.run import Run


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
        raise CohortError(f"Cohort {cohort.name!r} has no case to predict.", "Choose another split, or --split all.")
    items = CohortItems(cohort, view, encoder=find_encoder(network))
    network = to_channels_last(network.to(device))
    tap = FeatureTap(network)
    logits, windows, boxes = [], [], []
    kept_classes, kept_maps, kept_attention, kept_features = [], [], [], []
    shown: dict[str, list[NDArray[np.float32]]] = {}
    with show_progress(title, len(cohort), quiet=quiet) as advance:
        for batch in iterate_test_batches(items, batch_size=batch_size, workers=workers):
            tap.take()  # what an explainer left
            evidence = forward_evidence(network, batch.images, device)
            features = tap.take()
            if features is not None:
                kept_features.append(features.cpu())
            if not bool(torch.isfinite(evidence.logits).all()):
                bad = [i for i, row in zip(batch.case_ids, evidence.logits, strict=True) if not row.isfinite().all()]
                raise RunError(f"The network's logits are not finite for {bad[:3]}.", "The weights are damaged.")
            logits.append(evidence.logits)
            if evidence.window is not None:
                windows.append(evidence.window.double().numpy())
            if "box" in evidence.extras:
                boxes.append(evidence.extras["box"].double().numpy())
            if "decoder" in evidence.extras:
                shown.setdefault("decoder", []).append(_reduce_maps(evidence.extras["decoder"].sigmoid()))
            if explainer is not None:
                network.eval()
                there = batch.to(device)
                shown.setdefault("heatmap", []).append(_reduce_maps(explainer(network, there, there.labels[:, None])))
            if evidence.maps is not None:
                which = _choose_kept(evidence.logits, batch.labels)
                kept_classes.append(which)
                kept_maps.append(_gather(evidence.maps, which))
                kept_attention.append(_gather(evidence.extras.get("attention", evidence.maps), which))
            advance(len(batch))
    probabilities = compute_probabilities(torch.cat(logits), independent=independent)
    predictions = build_predictions(cohort, probabilities, independent=independent)
    energies = torch.cat(logits).double().logsumexp(dim=1).numpy()
    tap.remove()
    known = torch.cat(kept_features).numpy() if kept_features else None
    boxes_said = np.concatenate(boxes) if boxes else None
    pictures = {name: np.concatenate(each) for name, each in shown.items()}
    if not kept_maps:
        return NetworkOutput(predictions, None, boxes_said, pictures, energies, known)
    maps = Maps(
        predictions.case_ids,
        torch.cat(kept_classes).numpy(),
        torch.cat(kept_maps).numpy(),
        torch.cat(kept_attention).numpy(),
        np.concatenate(windows) if windows else None,
    )
    return NetworkOutput(predictions, maps, boxes_said, pictures, energies, known)


def build_predictions(cohort: Cohort, probabilities: NDArray[np.float64], *, independent: bool = False) -> Predictions:
    """The table of predictions of a cohort's cases, from probabilities [n, k] in the cohort's order."""
    return Predictions(
        classes=cohort.classes,
        case_ids=tuple(c.case_id for c in cohort),
        study_ids=tuple(c.study_id for c in cohort),
        patient_ids=tuple(c.patient_id for c in cohort),
        labels=np.array([cohort.class_index(c.label) for c in cohort], dtype=np.int64),
        probabilities=probabilities,
        independent=independent,
    )


def settle_output(run: Run, output: NetworkOutput) -> NetworkOutput:
    """What a run means by what its network said: views of studies joined, probabilities calibrated where it is."""
    joined, record = join_output(output, run.recipe.join_views), run.calibration
    return joined if record is None else replace(joined, predictions=record.apply(joined.predictions))


def join_output(output: NetworkOutput, how: JoinViews) -> NetworkOutput:
    """The output with the answers of studies (`join_predictions`)."""
    return replace(output, predictions=join_predictions(output.predictions, how))


def join_predictions(own: Predictions, how: JoinViews) -> Predictions:
    """Every view's probabilities replaced by its study's; what each view says stays as `alone`."""
    if how == "none":
        return own
    joined = join_answers(own.probabilities, own.study_ids, how, find_normal_class(own.classes))
    return replace(own, probabilities=joined, alone=own.probabilities)


def _reduce_maps(maps: Tensor) -> NDArray[np.float32]:
    """Maps [b, 1, *m] as means over at most SHOWN_CELLS cells a side: [b, *m']."""
    sides = [min(SHOWN_CELLS, int(n)) for n in maps.shape[2:]]
    flat = len(sides) == 2
    values = maps.detach().float()
    small = adaptive_avg_pool2d(values, (sides[0], sides[1])) if flat else adaptive_avg_pool3d(values, tuple(sides))  # type: ignore[arg-type]
    return np.asarray(small[:, 0].cpu().numpy(), dtype=np.float32)


def _choose_kept(logits: Tensor, labels: Tensor) -> Tensor:
    """Classes whose maps are kept: int64 [b, m]."""
    b, k = logits.shape
    if k <= MAPS_KEPT:
        return torch.arange(k).expand(b, k)
    return torch.stack([logits.argmax(dim=1), labels], dim=1)


def _gather(maps: Tensor, which: Tensor) -> Tensor:
    rows = torch.arange(len(which))[:, None]
    return maps[rows, which]


class TorchNetwork:
    """A run's network that answers with torch.

    Example:
        `TorchNetwork(run)(images).logits`, of images float32 [b, c, h, w] in 0..1.
    """

    def __init__(self, run: Run, device: torch.device | str = "cpu") -> None:
        """Load the weights.

        Raises:
            RunError: missing or damaged.
        """
        self.network = run.network().to(device)
        self.device = device
        self._tap = FeatureTap(self.network)

    def __call__(self, images: NDArray[np.float32]) -> Answers:
        """Answers to images, in evaluation mode."""
        evidence = forward_evidence(self.network, torch.from_numpy(images), self.device)
        features = self._tap.take()
        return convert_evidence(evidence, None if features is None else features.cpu())


def convert_evidence(evidence: Evidence, features: Tensor | None = None) -> Answers:
    """Evidence on the CPU as arrays."""
    return Answers(
        logits=evidence.logits.numpy(),
        maps=None if evidence.maps is None else evidence.maps.numpy(),
        extras={name: tensor.numpy() for name, tensor in evidence.extras.items()},
        window=None if evidence.window is None else evidence.window.numpy(),
        features=None if features is None else features.numpy(),
    )
