"""The units of a dissected network on one case: which respond most, what experts call them, where in the CT."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.cohorts.spine_space import on_ct
from sightline.errors import RunError
from sightline.evidence import Evidence
from sightline.explain.unit_layer import UnitLayer
from sightline.frame import Frame
from sightline.io.nifti import write_volume
from sightline.lab.case_panel import PanelUnit, strongest
from sightline.lab.concepts import Concept
from sightline.lab.ct_patches import CutPatch
from sightline.lab.dissection import Dissection
from sightline.lab.overlay import enlarge
from sightline.lab.planes import Facing
from sightline.lab.run import Run


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
                f"Layer {self.layer.name} has {activations.shape[1]} units; {self.dissection.folder} knows "
                f"{len(self.thresholds)}.",
                "Dissect this very run.",
            )
        return Evidence(evidence.logits.float().cpu()), activations[0].double().cpu().numpy()

    def strongest(self, activations: NDArray[np.float64], facing: Facing) -> tuple[PanelUnit, ...]:
        """The units with the largest r_k, with what is known of them; activations turned as the case's cube is."""
        return tuple(self._unit(unit, r, activations, facing) for unit, r in strongest(activations, self.thresholds))

    def _unit(self, unit: int, r: float, activations: NDArray[np.float64], facing: Facing) -> PanelUnit:
        row = self.dissection.units[unit]
        concept = self.dissection.concepts.get(unit, Concept(unit))
        return PanelUnit(
            unit=unit,
            strength=r,
            activation=np.ascontiguousarray(facing.turned(activations[unit])),
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
            grown = enlarge(activations[unit.unit], seen.shape)
            over = np.where(grown > unit.threshold, grown, 0.0)
            volume = on_ct(over.astype(np.float32), patch.placement, grid=seen)
            write_volume(folder / f"{patch.vertebra.level}_unit_{unit.unit:03d}.nii.gz", volume.values, volume.affine)


def weights_digest(run: Run) -> str:
    """Digest of the file that holds a run's weights."""
    return hashlib.sha256((run.folder / "weights.safetensors").read_bytes()).hexdigest()[:16]


def units_of(run_weights: str, network: nn.Module, dissection: Dissection) -> CaseUnits:
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
