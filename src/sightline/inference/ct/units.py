"""The units of a dissected network on one case: which respond most, what experts call them, where in the CT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.data.spine.placement import place_on_ct
from sightline.data.views.volume_view import VolumeView
from sightline.dissection.case_panel import CasePanel, PanelUnit, rank_strongest
from sightline.dissection.concepts import Concept
from sightline.dissection.results import Dissection
from sightline.errors import RunError, count_noun
from sightline.explainers.units.layer import UnitLayer
from sightline.inference.ct.patches import CutPatch
from sightline.inference.network_output import Answers
from sightline.inference.predict import convert_evidence
from sightline.io.files import digest_file
from sightline.io.nifti import read_volume, write_volume
from sightline.plots.planes import Facing, find_facing, turn_cube
from sightline.structures.case import Case
from sightline.structures.evidence import Evidence, compute_probabilities, copy_to_cpu, to_channels_last
from sightline.structures.frame import Frame
from sightline.structures.resampling import upsample_map
from sightline.training.engine import Engine
from sightline.training.run import Run


class CaseUnits:
    """Reads the units of one network on single cases.

    Args:
        network: of the run that was dissected, on its device.
        dissection: what is known of its units.

    Raises:
        RecipeError: the network has no such layer.
    """

    def __init__(self, network: nn.Module, dissection: Dissection) -> None:
        self.dissection = dissection
        self.layer = UnitLayer(network, dissection.layer)
        self.thresholds = dissection.thresholds

    def look(self, images: Tensor) -> tuple[Evidence, NDArray[np.float64]]:
        """What the network says of one case [1, c, *s], and the activations [u, *m] of the layer.

        Raises:
            RunError: the layer has another number of units than the dissection.
        """
        evidence, activations = self.layer(images)
        if activations.shape[1] != len(self.thresholds):
            raise RunError(
                f"Layer {self.layer.name} has {count_noun(activations.shape[1], 'unit')}; "
                f"{self.dissection.folder} knows "
                f"{len(self.thresholds)}.",
                "Dissect this very run.",
            )
        return copy_to_cpu(evidence), activations[0].double().cpu().numpy()

    def answer(self, images: NDArray[np.float32]) -> tuple[Answers, NDArray[np.float64]]:
        """The same of one case float32 [1, c, *s], as arrays."""
        evidence, activations = self.look(torch.from_numpy(images))
        return convert_evidence(evidence), activations

    def strongest(self, activations: NDArray[np.float64], facing: Facing) -> tuple[PanelUnit, ...]:
        """The units with the largest r_k, with what is known of them; activations turned as the case's cube is."""
        return tuple(
            self._describe_unit(unit, r, activations, facing)
            for unit, r in rank_strongest(activations, self.thresholds)
        )

    def _describe_unit(self, unit: int, r: float, activations: NDArray[np.float64], facing: Facing) -> PanelUnit:
        row = self.dissection.units[unit]
        concept = self.dissection.concepts.get(unit, Concept(unit))
        return PanelUnit(
            unit=unit,
            strength=r,
            activation=np.ascontiguousarray(facing.turn_array(activations[unit])),
            threshold=row.threshold,
            name=concept.text,
            named_by=concept.signed,
            rank=row.rank,
            units=len(self.dissection.units),
            c=row.c,
            contrast=row.contrast,
            examples=self.dissection.examples(unit),
        )

    def write_on_ct(
        self, activations: NDArray[np.float64], units: tuple[PanelUnit, ...], patch: CutPatch, seen: Frame, folder: Path
    ) -> None:
        """`LEVEL_unit_NNN.nii.gz` of each unit: its activation above threshold, on the CT's own voxels."""
        folder.mkdir(parents=True, exist_ok=True)
        for unit in units:
            grown = upsample_map(activations[unit.unit], seen.shape)
            over = np.where(grown > unit.threshold, grown, 0.0)
            volume = place_on_ct(over.astype(np.float32), patch.placement, grid=seen)
            write_volume(folder / f"{patch.vertebra.level}_unit_{unit.unit:03d}.nii.gz", volume.values, volume.affine)


def digest_weights(run: Run) -> str:
    """Digest of the file that holds a run's weights."""
    return digest_file(run.folder / "weights.safetensors")[:16]


def open_units(run_weights: str, network: nn.Module, dissection: Dissection) -> CaseUnits:
    """The units of a run, once it is sure that the dissection is of that run.

    Raises:
        RunError: the dissection is of other weights.
    """
    of = dissection.about.get("weights", "")
    if of and of != run_weights:
        raise RunError(
            f"{dissection.folder} dissects the weights {of}; this run has {run_weights}.",
            "Dissect this very run: the same numbers mean other units in another network.",
        )
    return CaseUnits(network, dissection)


FACTS = ("level", "grade", "deformity", "foreign")


def build_case_panel(run: Run, case: Case, dissection: Dissection, engine: Engine | None = None) -> CasePanel:
    """A case of a cohort of volumes as `sightline predict` shows a vertebra of a CT (Engstler 2022, table 3).

    Args:
        run: the run that was dissected.
        case: of a cohort with the run's classes.
        dissection: of this run.
        engine: the device.

    Raises:
        RunError: the run sees pictures, or the dissection is of other weights.
    """
    view = run.recipe.view
    if not isinstance(view, VolumeView):
        raise RunError(f"{run.folder} sees pictures; a case panel shows volumes.", "Use sightline explain.")
    device = (engine or Engine()).find_device()
    network = to_channels_last(run.network().to(device))
    units = open_units(digest_weights(run), network, dissection)
    volume = read_volume(case.image)
    planes, frame = view.test(volume.values)
    evidence, activations = units.look(torch.from_numpy(planes)[None].to(device))
    probabilities = compute_probabilities(evidence.logits, independent=run.recipe.independent)[0]
    looked_for, predicted = run.classes.index(dissection.positive), int(probabilities.argmax())
    facing = find_facing(volume.affine)
    stated = [f"{name}: {case.facts[name]}" for name in FACTS if case.facts.get(name)]
    return CasePanel(
        title=case.case_id,
        said=run.classes[predicted],
        probability=float(probabilities[looked_for]),
        looked_for=dissection.positive,
        called=predicted == looked_for,
        cube=turn_cube(planes, Frame(frame.shape, frame.to_source, volume.spacing_mm), facing, view),
        units=units.strongest(activations, facing),
        facts=(f"truth: {case.label}", ", ".join(stated)) if stated else (f"truth: {case.label}",),
        without_units="No unit is above its threshold here.",
    )
