"""Patches of the vertebrae of one CT, cut as a cohort's are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.data.spine.placement import Mode, Placement, place_vertebrae
from sightline.data.spine.resampling import sample_hu
from sightline.data.spine.series_patches import Cutting
from sightline.data.spine.vertebrae import Vertebra
from sightline.errors import GeometryError
from sightline.inference.ct.inputs import PlacedCt
from sightline.io.nifti import write_volume
from sightline.io.volume import Volume
from sightline.structures.frame import Frame

# every so many voxels a view is asked whether it lies inside the CT
STRIDE = 4


@dataclass(frozen=True, eq=False)
class CutPatch:
    """One vertebra as it was cut.

    Attributes:
        vertebra: label, and place in the CT.
        volume: Hounsfield units on the patch's grid, in the patient.
        placement: of the patch in the CT.
    """

    vertebra: Vertebra
    volume: Volume
    placement: Placement

    def outside(self, seen: Frame) -> float:
        """Share of what a view shows of the patch that lies outside the CT.

        Args:
            seen: frame of the view, in voxels of the patch.
        """
        steps = [np.arange(0.5, n, STRIDE) for n in seen.shape]
        grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
        places = self.placement.to_ct(seen.map_points(grid))
        return float(((places < 0) | (places > np.array(self.placement.ct_shape))).any(axis=-1).mean())


def parse_cutting(about: Mapping[str, str], least: int) -> tuple[Cutting, bool]:
    """How the patches of a cohort were cut, from its `about`, and whether it says so; else the usual way.

    Args:
        about: of the cohort that a run was trained on.
        least: voxels that the run's view needs.
    """
    match = re.match(r"(\d+) voxels of ([\d.]+) mm, (rigid|straightened)(, anti-aliased)?", about.get("patches", ""))
    if match is None:
        return Cutting(side=max(Cutting.side, least + least % 2)), False
    mode: Mode = "straightened" if match[3] == "straightened" else "rigid"
    return Cutting(int(match[1]), float(match[2]), mode, match[4] is not None), True


def cut_patches(placed: PlacedCt, folder: Path, cutting: Cutting) -> Iterator[CutPatch]:
    """The vertebrae of a CT from head to foot, one at a time; each is written as `LEVEL.nii`.

    Args:
        placed: the CT, with its vertebrae; the curve runs through all of them, those of the neck too.
        folder: to write.
        cutting: as the patches of the run were cut.

    Raises:
        GeometryError: centres that no spine could have.
    """
    ct, way = placed.ct, {"side": cutting.side, "spacing_mm": cutting.spacing_mm, "mode": cutting.mode}
    try:
        placements = place_vertebrae(placed.every, ct.affine, ct.values.shape, **way)  # type: ignore[arg-type]
    except GeometryError as error:
        names = ", ".join(vertebra.level for vertebra in placed.every)
        raise GeometryError(f"{error.message} The centres are of {names}.", error.remedy) from None
    for vertebra in placed.vertebrae:
        placement = placements[vertebra.level]
        volume = Volume(sample_hu(ct, placement, anti_alias=cutting.anti_alias), placement.affine)
        write_volume(folder / f"{vertebra.level}.nii", volume.values, volume.affine)
        yield CutPatch(vertebra, volume, placement)
