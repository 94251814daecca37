"""The units of a dissected network on one case: which respond most, what experts call them, where in the CT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sightline.errors import RunError
from sightline.evidence import Evidence
from sightline.frame import Frame
from sightline.io.nifti import write_volume
from sightline.io.volume import Volume
from sightline.lab.case_panel import PanelUnit, strongest
from sightline.lab.ct_patches import CutPatch, on_ct_voxels
from sightline.lab.overlay import Pixels, enlarge
from sightline.lab.planes import Facing
from sightline.lab.predict import laid_out


@dataclass(frozen=True, eq=False)
class KnownUnits:
    """What a dissection says of the units of a layer.

    Attributes:
        layer: name of the layer.
        thresholds: float [u].
        ranks: 1 for the first by c_k; by unit.
        c: c_k by unit.
        contrast: c_k less the same share of negative cases, by unit.
        names: experts' words by unit.
        named_by: author and date by unit.
        examples: pictures of a unit's gallery.
    """

    layer: str
    thresholds: NDArray[np.float64]
    ranks: Mapping[int, int] = field(default_factory=dict)
    c: Mapping[int, float] = field(default_factory=dict)
    contrast: Mapping[int, float] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    named_by: Mapping[int, str] = field(default_factory=dict)
    examples: Mapping[int, tuple[Pixels, ...]] = field(default_factory=dict)


class CaseUnits:
    """Reads the units of one network on single cases."""

    def __init__(self, network: nn.Module, known: KnownUnits, device: Any = "cpu") -> None:
        self.network, self.known, self.device = network, known, device

    def look(self, images: Tensor) -> tuple[Evidence, NDArray[np.float64]]:
        """What the network says of one case [1, c, *s], and the activations [u, *m] of the layer."""
        import torch

        from sightline.explain.unit_layer import UnitLayer

        self.network.eval()
        with torch.no_grad(), UnitLayer(self.network, self.known.layer) as layer:
            evidence, activations = layer(laid_out(images.to(self.device)))
        if activations.shape[1] != len(self.known.thresholds):
            raise RunError(
                f"Layer {self.known.layer} has {activations.shape[1]} units; the dissection knows "
                f"{len(self.known.thresholds)}.",
                "Dissect this very run.",
            )
        said = Evidence(evidence.logits.float().cpu())
        return said, activations[0].double().cpu().numpy()

    def strongest(self, activations: NDArray[np.float64], facing: Facing) -> tuple[PanelUnit, ...]:
        """The units with the largest r_k, with what is known of them; activations turned as the case's cube is."""
        known = self.known
        return tuple(
            PanelUnit(
                unit=unit,
                strength=r,
                activation=np.ascontiguousarray(facing.turned(activations[unit])),
                threshold=float(known.thresholds[unit]),
                name=known.names.get(unit, ""),
                named_by=known.named_by.get(unit, ""),
                rank=known.ranks.get(unit),
                units=len(known.thresholds),
                c=known.c.get(unit),
                contrast=known.contrast.get(unit),
                examples=known.examples.get(unit, ()),
            )
            for unit, r in strongest(activations, known.thresholds)
        )

    def write_on_ct(
        self,
        activations: NDArray[np.float64],
        units: tuple[PanelUnit, ...],
        patch: CutPatch,
        seen: Frame,
        ct: Volume,
        folder: Path,
    ) -> None:
        """`LEVEL_unit_NNN.nii.gz` of each unit: its activation above threshold, on the CT's own voxels."""
        for unit in units:
            grown = enlarge(activations[unit.unit], seen.shape)
            over = np.where(grown > unit.threshold, grown, 0.0)
            volume = on_ct_voxels(over, patch, seen, ct)
            write_volume(folder / f"{patch.vertebra.level}_unit_{unit.unit:03d}.nii.gz", volume.values, volume.affine)
