"""Patches of vertebrae out of a CT: our sampling against MONAI's `SpatialResample` of the same crops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from numpy.typing import NDArray
from scipy.ndimage import zoom
from torch import Tensor

from benchmarks.timing import Result, Row, Unequal, alternate
from sightline.data.spine.placement import Placement, place_vertebrae
from sightline.data.spine.resampling import PAD_HU, sample_hu
from sightline.data.spine.vertebrae import LABELS, Vertebra
from sightline.io.volume import Volume

GOAL = 1.0
LEVELS = ("T12", "L1", "L2")


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        side: of the patches, in voxels of 1 mm.
        reach_mm: sides of the CT: left to right, front to back, head to feet.
        spacings_mm: of the CTs, along the same axes.
        pairs, warm_up: counted and uncounted pairs; a pair cuts all vertebrae of a CT on both sides.
        device: named for the page; patches are cut by the processor.
    """

    side: int = 96
    reach_mm: tuple[float, float, float] = (160.0, 160.0, 200.0)
    spacings_mm: tuple[tuple[float, float, float], ...] = ((1.0, 1.0, 1.0), (0.7, 0.7, 1.0), (0.4, 0.4, 1.0))
    pairs: int = 7
    warm_up: int = 1
    device: str = "cpu"


def settings(device: str, toy: bool) -> Settings:
    """The settings for a device, or tiny ones."""
    if toy:
        return Settings(16, (40.0, 40.0, 60.0), ((1.0, 1.0, 1.0), (0.5, 0.5, 2.0)), pairs=2, warm_up=1, device=device)
    return Settings(device=device)


def measure(chosen: Settings) -> Result:
    """Ratios for every CT: against MONAI given a box cut out by hand, and given the CT as it is."""
    rows: list[Row] = []
    gaps = []
    for spacing in chosen.spacings_mm:
        ct, placements = make(chosen, spacing)
        whole, boxed = whole_ct(ct, placements), boxed_ct(ct, placements)
        gaps += [check(ours(ct, placements), theirs) for theirs in (whole, boxed)]
        size = " x ".join(f"{s:g}" for s in spacing)
        for what, theirs in (("box cut out by hand, float32", boxed), ("whole CT, its defaults", whole)):
            a, b = alternate(
                ours(ct, placements), theirs, pairs=chosen.pairs, warm_up=chosen.warm_up, device=chosen.device
            )
            label = f"{len(placements)} patches of {chosen.side} from voxels of {size} mm / MONAI, {what}"
            rows.append(Row(label, a, b, "s", "ours / theirs", GOAL))
    return Result(
        "patches",
        asdict(chosen),
        tuple(rows),
        notes=(
            "Ours: `sightline.data.spine.resampling.sample_hu`, from the int16 CT in memory to int16 patches, "
            "trilinear in double precision. Theirs: `monai.transforms.SpatialResample` (bilinear, zeros beyond the CT) "
            "to the same affine and size, from a float32 `MetaTensor` that was made beforehand, to float32; rounding "
            "to int16 is not counted on their side. First with the smallest box of voxels cut out by hand and in "
            "single precision, then as documented, on the whole CT in double precision. Both in one process with "
            "the same threads.",
            f"Checked first: the two sides' Hounsfield units differ by at most {max(gaps):.2f} (ours are rounded).",
        ),
    )


def make(chosen: Settings, spacing: tuple[float, float, float]) -> tuple[Volume, list[Placement]]:
    """A CT of blotches, its first axis fastest in memory as files give it, and vertebrae along an S."""
    shape = tuple(round(reach / step) for reach, step in zip(chosen.reach_mm, spacing, strict=True))
    coarse = np.random.default_rng(0).normal(100.0, 400.0, (9, 9, 11)).astype(np.float32)
    values = zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
    affine = np.diag([*spacing, 1.0])
    ct = Volume(np.asfortranarray(np.clip(values, PAD_HU, 3000).astype(np.int16)), affine)
    middle = ct.world_of(np.array(ct.values.shape) / 2.0)
    down = np.linspace(0.17, -0.17, len(LEVELS)) * chosen.reach_mm[2]
    bend = 0.05 * chosen.reach_mm[0]
    turn = 12.0 * down / chosen.reach_mm[2]
    world = middle + np.stack([bend * np.sin(turn), bend * np.cos(turn), down], axis=1)
    places = ct.place_of(world).tolist()
    vertebrae = [Vertebra(LABELS[level], (i, j, k)) for level, (i, j, k) in zip(LEVELS, places, strict=True)]
    return ct, list(place_vertebrae(vertebrae, ct.affine, ct.values.shape, side=chosen.side).values())


def ours(ct: Volume, placements: list[Placement]) -> Callable[[], list[NDArray[np.int16]]]:
    """All patches of the CT, int16."""
    return lambda: [sample_hu(ct, placement) for placement in placements]


def whole_ct(ct: Volume, placements: list[Placement]) -> Callable[[], list[Tensor]]:
    """MONAI's patches out of the CT as it is; numbers count from `PAD_HU`, so that its zeros are air."""
    resample = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=True)
    image = _image(ct.values, ct.affine)
    return lambda: [_resampled(resample, image, placement) for placement in placements]


def boxed_ct(ct: Volume, placements: list[Placement]) -> Callable[[], list[Tensor]]:
    """MONAI's patches, each from the smallest box that holds it, in single precision: as fast as it can be had."""
    resample = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=True, dtype=np.float32)
    image = _image(ct.values, ct.affine).as_tensor()

    def call() -> list[Tensor]:
        patches = []
        for placement in placements:
            corners = placement.to_ct(np.array(np.meshgrid(*[(0, placement.side)] * 3)).reshape(3, -1).T)
            low = np.clip(np.floor(corners.min(axis=0)) - 1, 0, ct.values.shape).astype(int)
            high = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, ct.values.shape).astype(int)
            affine = ct.affine.copy()
            affine[:3, 3] += affine[:3, :3] @ low
            box = image[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
            patches.append(_resampled(resample, MetaTensor(box, affine=torch.from_numpy(affine)), placement))
        return patches

    return call


def check(
    ours_: Callable[[], list[NDArray[np.int16]]], theirs: Callable[[], list[Tensor]], tolerance: float = 0.75
) -> float:
    """Largest difference in Hounsfield units; half of one is our rounding.

    Raises:
        Unequal: they differ by more, or the patches are blank and would hide a difference.
    """
    gap = 0.0
    for mine, other in zip(ours_(), theirs(), strict=True):
        found = other.numpy().astype(np.float64) + PAD_HU
        if mine.shape != found.shape or np.ptp(mine) < 100:
            raise Unequal(f"Our patch is {mine.shape} within {np.ptp(mine)} HU, MONAI's is {found.shape}.")
        gap = max(gap, float(np.abs(mine - found).max()))
    if gap > tolerance:
        raise Unequal(f"Our patches and MONAI's differ by up to {gap:.2f} HU.")
    return gap


def _image(values: NDArray[np.int16], affine: NDArray[np.float64]) -> MetaTensor:
    shifted = torch.from_numpy(values.astype(np.float32) - PAD_HU)[None]
    return MetaTensor(shifted, affine=torch.from_numpy(affine.copy()))


def _resampled(resample: SpatialResample, image: MetaTensor, placement: Placement) -> Tensor:
    patch: Tensor = resample(image, dst_affine=placement.affine, spatial_size=(placement.side,) * 3)[0].as_tensor()
    return patch
