"""From a patch of a CT to the network's input cube."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sightline.errors import GeometryError, RecipeError
from sightline.structures.case import Case
from sightline.structures.frame import Frame

# longest side of a cube in voxels: those of the largest CT that are in use, at 1 mm
MOST_VOXELS = 1024


@dataclass(frozen=True)
class VolumeView:
    """How a patch is framed for the network: the middle of it, in training augmented.

    Patches are larger than what is shown, so that turns and shifts bring no border into sight: the patch is augmented
    first and cropped then.

    Attributes:
        size: side of the cube in voxels.
        window_hu: Hounsfield units that become 0 and 1.
        augment: `none`, or `published`: what Engstler 2022 means to do (`volume_augment`).
        shift_mm: in training the cube moves up to this far along every axis, within the patch; in whole voxels of the
            1 mm that patches have.
    """

    size: int = 64
    window_hu: tuple[float, float] = (-1000.0, 1000.0)
    augment: Literal["none", "published"] = "published"
    shift_mm: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes, windows and shifts that mean nothing."""
        low, high = self.window_hu
        if not 8 <= self.size <= MOST_VOXELS:
            raise RecipeError(
                f"VolumeView.size must be at least 8 voxels, and at most {MOST_VOXELS}; got {self.size}.", "Try 64."
            )
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise RecipeError(
                f"VolumeView.window_hu is two Hounsfield values, low < high; got {self.window_hu}.",
                "Try (-1000, 1000).",
            )
        if not (math.isfinite(self.shift_mm) and self.shift_mm >= 0.0):
            raise RecipeError(f"VolumeView.shift_mm must be 0 or more; got {self.shift_mm}.", "Try 4.")

    def around(self, case: Case) -> None:
        """Volumes are cut around the vertebra already."""

    def test(self, values: NDArray[Any]) -> tuple[NDArray[np.float32], Frame]:
        """The middle of a patch.

        Args:
            values: Hounsfield units [i, j, k].

        Returns:
            float32 [1, s, s, s] in 0..1, and its frame; source coordinates are the patch's voxels.

        Raises:
            GeometryError: no volume, or one smaller than `size`.
        """
        placement = SampledTransform(self._frame_middle(values))
        return placement.cut(values, self.window_hu)[None], placement.frame

    def training(self, values: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[np.float32], Frame]:
        """The same, shifted and augmented as `rng` draws it: equal generators give equal cubes.

        The frame holds all of the geometry but the elastic part, which moves voxels by about one.
        """
        middle = self._frame_middle(values)
        room = [min(int(self.shift_mm), (n - self.size) // 2) for n in values.shape]
        shift = [int(rng.integers(-most, most + 1)) for most in room] if any(room) else [0, 0, 0]
        shifted = middle.crop(shift, middle.shape)
        if self.augment == "none":
            placement = SampledTransform(shifted)
            return placement.cut(values, self.window_hu)[None], placement.frame
        placement = draw_placement(shifted, rng)
        cube = draw_tone(placement.cut(values, self.window_hu), rng)
        return cube[None], placement.frame

    def _frame_middle(self, values: NDArray[Any]) -> Frame:
        if values.ndim != 3:
            raise GeometryError(f"A patch has three axes; got {values.ndim} ({values.shape}).", "Cut patches anew.")
        if min(values.shape) < self.size:
            raise GeometryError(
                f"The patch has {' x '.join(map(str, values.shape))} voxels; the view shows {self.size} a side.",
                f"Cut larger patches, or give the view and the network a size of at most {min(values.shape)}.",
            )
        return Frame.of_image(values.shape).crop([(n - self.size) // 2 for n in values.shape], (self.size,) * 3)


Cube = NDArray[np.float32]

# Printed or in the released configuration (axes: head to feet, front to back, right to left).
TURNS_DEG = (7.0, 5.0, 2.0)
TURN_CHANCE = 0.1
ZOOM = (0.9, 1.1)
MIRRORED_AXIS = 2
ELASTIC_SIGMA_VOXELS = (1.0, 2.0)
ELASTIC_MAGNITUDE_VOXELS = (2.0, 8.0)
GAMMA = 1.5
SMOOTHING_SIGMA_VOXELS = (0.25, 0.75)
# Not said: an even chance for the rest; and noise uniform up to 100 HU of the published window, that of a thin slice
# with a sharp kernel (MONAI's default, twice as much, drowns trabeculae).
CHANCE = 0.5
NOISE_STD = 0.05


@dataclass(frozen=True)
class SampledTransform:
    """Where the voxels that are shown lie in the patch.

    Attributes:
        frame: the cube's grid; source coordinates are the patch's voxels.
        offsets: float32 [3, *s], how many patch voxels each voxel is moved besides, or None.
    """

    frame: Frame
    offsets: Cube | None = None

    def cut(self, values: NDArray[Any], window_hu: tuple[float, float]) -> Cube:
        """The cube of a patch: float32 [*s] in 0..1, trilinear, edges repeated beyond the patch.

        A cube whose axes are the patch's own is cut out as it is.
        """
        linear, start = self.frame.to_source[:3, :3], self.frame.to_source[:3, 3]
        signs = np.diag(linear)
        low = np.where(signs < 0, start - self.frame.shape, start)
        aligned = np.array_equal(linear, np.diag(np.sign(signs))) and np.array_equal(low, np.round(low))
        inside = (low >= 0).all() and (low + self.frame.shape <= values.shape).all()
        if self.offsets is None and aligned and inside:
            block = values[tuple(slice(int(a), int(a) + n) for a, n in zip(low, self.frame.shape, strict=True))]
            turned = block[tuple(slice(None, None, -1 if sign < 0 else 1) for sign in signs)]
            return _apply_window(turned, window_hu)
        return _sample_values(_apply_window(values, window_hu), self.frame, self.offsets)


def draw_placement(grid: Frame, rng: np.random.Generator) -> SampledTransform:
    """Mirror, turns, zoom and elastic deformation of a grid, as `rng` draws them."""
    if rng.random() < CHANCE:
        grid = grid.flip(MIRRORED_AXIS)
    if rng.random() < TURN_CHANCE:
        for axis, most in enumerate(TURNS_DEG):
            a, b = (other for other in range(3) if other != axis)
            grid = grid.rotate(rng.uniform(-most, most), (a, b))
    if rng.random() < CHANCE:
        grid = zoom_frame(grid, rng.uniform(*ZOOM))
    if rng.random() < CHANCE:
        return SampledTransform(grid, draw_elastic(grid.shape, rng))
    return SampledTransform(grid)


def zoom_frame(grid: Frame, factor: float) -> Frame:
    """The content magnified by a factor about the grid's centre."""
    scale = np.diag([1.0 / factor] * grid.ndim + [1.0])
    scale[:-1, -1] = [n / 2.0 * (1.0 - 1.0 / factor) for n in grid.shape]
    return grid.then(scale, grid.shape)


def draw_elastic(shape: tuple[int, ...], rng: np.random.Generator) -> Cube:
    """Offsets in voxels [3, *shape]: uniform noise in -1..1, smoothed by a Gaussian, times a magnitude (MONAI's)."""
    sigma, magnitude = rng.uniform(*ELASTIC_SIGMA_VOXELS), rng.uniform(*ELASTIC_MAGNITUDE_VOXELS)
    noise = 2.0 * rng.random((len(shape), *shape), dtype=np.float32) - 1.0
    smooth: Cube = gaussian_filter(noise, (0.0, *[sigma] * len(shape)), mode="constant", truncate=3.0)
    smooth *= np.float32(magnitude)
    return smooth


def draw_tone(cube: Cube, rng: np.random.Generator) -> Cube:
    """With an even chance one of noise, contrast and smoothing (MONAI's) on intensities in 0..1, clipped to them."""
    if rng.random() >= CHANCE:
        return cube
    # MONAI takes seconds to import, and pictures need neither it nor torch
    import torch
    from monai.transforms import RandAdjustContrast, RandGaussianNoise, RandGaussianSmooth

    sigma = SMOOTHING_SIGMA_VOXELS
    change = (
        lambda: RandGaussianNoise(prob=1.0, std=NOISE_STD),
        lambda: RandAdjustContrast(prob=1.0, gamma=GAMMA),
        lambda: RandGaussianSmooth(prob=1.0, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma),
    )[int(rng.integers(3))]()
    change.set_random_state(seed=int(rng.integers(2**32)))
    # MONAI smooths as if there were zeros, air, around the cube: its edges are repeated as far as a Gaussian reaches
    reach = math.ceil(4.0 * sigma[1]) if isinstance(change, RandGaussianSmooth) else 0
    wide = np.pad(cube, reach, mode="edge")
    changed: Cube = np.asarray(change(torch.from_numpy(wide)[None])[0], dtype=np.float32)
    inner = (slice(reach, wide.shape[0] - reach),) * 3
    return np.clip(changed[inner], 0.0, 1.0)


def _apply_window(values: NDArray[Any], window_hu: tuple[float, float]) -> Cube:
    low, high = window_hu
    scaled = values.astype(np.float32)
    scaled -= np.float32(low)
    scaled /= np.float32(high - low)
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def _sample_values(values: Cube, frame: Frame, offsets: Cube | None) -> Cube:
    """Values on the frame's grid. torch's fractions from -1 to 1 run from corner to corner, as ours."""
    import torch

    sides = np.array(values.shape, dtype=np.float64)
    # grid fractions in -1..1 -> grid -> patch -> patch fractions in -1..1
    from_unit = np.diag([*(n / 2.0 for n in frame.shape), 1.0])
    from_unit[:3, 3] = [n / 2.0 for n in frame.shape]
    to_unit = np.diag([*(2.0 / sides), 1.0])
    to_unit[:3, 3] = -1.0
    affine = (to_unit @ frame.to_source @ from_unit)[:3]
    # torch's vectors are (x, y, z): our axes backwards
    theta = np.concatenate([affine[::-1, 2::-1], affine[::-1, 3:]], axis=1)
    grid = torch.nn.functional.affine_grid(
        torch.from_numpy(theta.astype(np.float32))[None], [1, 1, *frame.shape], align_corners=False
    )
    if offsets is not None:
        moves = torch.from_numpy(offsets) * torch.from_numpy((2.0 / sides).astype(np.float32)).view(3, 1, 1, 1)
        grid = grid + moves.flip(0).permute(1, 2, 3, 0)
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(values)[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    cube: Cube = sampled[0, 0].numpy()
    return cube
