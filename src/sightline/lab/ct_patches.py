"""Patches of the vertebrae of one CT, cut as a cohort's are, and numbers on a patch brought back to the CT's voxels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from sightline.cohorts.spine import Spine, Vertebra
from sightline.errors import GeometryError
from sightline.frame import Frame
from sightline.io.nifti import read_volume
from sightline.io.volume import Volume, affine_within, frame_between
from sightline.lab.ct_inputs import CtInput, PlacedCt

# every so many voxels a patch is asked whether it lies inside the CT
STRIDE = 4


@dataclass(frozen=True, eq=False)
class CutPatch:
    """One vertebra as it was cut.

    Attributes:
        vertebra: label, and place in the CT.
        volume: Hounsfield units on the patch's grid, in the patient.
        frame: of the patch's grid, in voxels of the CT.
    """

    vertebra: Vertebra
    volume: Volume
    frame: Frame

    def outside(self, seen: Frame, shape: tuple[int, ...]) -> float:
        """Share of what a view shows of the patch that lies outside a CT of `shape`.

        Args:
            seen: of the view, in voxels of the patch.
            shape: of the CT.
        """
        steps = [np.arange(0.5, n, STRIDE) for n in seen.shape]
        grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
        places = self.frame.map_points(seen.map_points(grid))
        return float(((places < 0) | (places > np.array(shape))).any(axis=-1).mean())


def cut_patches(
    given: CtInput, placed: PlacedCt, folder: Path, *, side: int, mode: str = "rigid", spacing_mm: float = 1.0
) -> Iterator[CutPatch]:
    """The vertebrae of a CT from head to foot, one at a time; their files stay in `folder`.

    Args:
        given: the CT.
        placed: the same, read.
        folder: to write.
        side: of a patch in voxels.
        mode: `rigid` or `straightened`, as the run's own patches.
        spacing_mm: of a patch's voxels.

    Raises:
        SightlineError: the CT cannot be cut.
    """
    from sightline.cohorts.spine_patches import cut

    wanted = {vertebra.label for vertebra in placed.vertebrae}
    # what is not graded is not cut: these are predicted, not graded, and the grade is read by nobody
    vertebrae = tuple(replace(v, grade=0 if v.label in wanted else None) for v in placed.every)
    spine = Spine(given.name, given.name, given.path, vertebrae)
    cohort, rejects = cut((spine,), folder, side=side, spacing_mm=spacing_mm, mode=mode)
    if rejects:
        raise GeometryError(f"{given.path}: {rejects[0].reason}", rejects[0].remedy)
    by_level = {case.facts["level"]: case for case in cohort}
    for vertebra in placed.vertebrae:
        if vertebra.level not in by_level:
            raise GeometryError(f"{given.path}: {vertebra.level} was not cut.", "Check its centroid.")
        volume = read_volume(by_level[vertebra.level].image)
        yield CutPatch(vertebra, volume, frame_between(volume, placed.ct))


def on_ct_voxels(values: NDArray[np.floating[Any]], patch: CutPatch, seen: Frame, ct: Volume) -> Volume:
    """Numbers on a view's grid of a patch, on the voxels of the CT around it (trilinear); 0 outside the view.

    The volume is a piece of the CT's own grid, so that a viewer lays it over the CT voxel for voxel.

    Args:
        values: float [d, h, w] on the view's grid.
        patch: what was cut.
        seen: frame of the view, in voxels of the patch.
        ct: whose voxels are wanted.
    """
    grid = Frame(seen.shape, patch.frame.to_source @ seen.to_source, patch.frame.spacing_mm)
    corners = grid.map_points(np.array(np.meshgrid(*[(0.0, float(n)) for n in seen.shape])).reshape(3, -1).T)
    low = np.clip(np.floor(corners.min(axis=0)), 0, ct.values.shape).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), 0, ct.values.shape).astype(int)
    if (high <= low).any():
        raise GeometryError("A patch lies outside its CT.", "Check the centroid.")
    block = Frame.of_image(ct.values.shape).crop(low.tolist(), (high - low).tolist())
    centres = np.moveaxis(np.indices(block.shape), 0, -1) + 0.5
    at = grid.unmap_points(block.map_points(centres))
    sampled = map_coordinates(
        np.asarray(values, dtype=np.float32), np.moveaxis(at - 0.5, -1, 0), order=1, mode="nearest"
    )
    inside = ((at >= 0) & (at <= np.array(seen.shape))).all(axis=-1)
    return Volume(np.where(inside, sampled, 0.0).astype(np.float32), affine_within(block, ct.affine))
