"""From a source picture to the network's input grid: one Frame a picture, one resampling.

Liao 2022, section V-A: pad to square, random crop, horizontal flip, rotation up to 30 degrees, resize; at test time
pad and resize only. Every step updates the Frame; pixels are sampled once, at the end, so nothing is blurred twice
and every region, map and box can be carried between the input grid and the source picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.errors import RecipeError
from sightline.frame import Frame


@dataclass(frozen=True)
class View:
    """How a picture is framed for the network.

    Attributes:
        size: side of the square input grid in pixels.
        crop_area: range of the share of the padded square's area that a training crop keeps.
        flip_chance: chance of a horizontal mirror in training.
        rotation_deg: training rotations are uniform in +- this many degrees.
        contrast: training intensities are scaled by a factor uniform in 1 +- this, about their mean.
        brightness: training intensities are shifted by a value uniform in +- this (of the full range).
    """

    size: int = 512
    crop_area: tuple[float, float] = (0.8, 1.0)
    flip_chance: float = 0.5
    rotation_deg: float = 30.0
    contrast: float = 0.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes and ranges that mean nothing."""
        low, high = self.crop_area
        if self.size < 16:
            raise RecipeError(f"View.size must be at least 16 pixels; got {self.size}.", "Use for example size 512.")
        if not 0.0 < low <= high <= 1.0:
            raise RecipeError(f"View.crop_area must be 0 < low <= high <= 1; got {self.crop_area}.", "Try (0.8, 1.0).")
        if not 0.0 <= self.flip_chance <= 1.0:
            raise RecipeError(f"View.flip_chance is a probability; got {self.flip_chance}.", "Use a value in 0..1.")

    def test_frame(self, source: Frame) -> Frame:
        """Pad to square and resize."""
        return source.pad_to_square().resize((self.size, self.size))

    def training_frame(self, source: Frame, rng: np.random.Generator) -> Frame:
        """Pad to square, crop, flip and turn at random, resize."""
        square = source.pad_to_square()
        side = square.shape[0] * math.sqrt(rng.uniform(*self.crop_area))
        room = square.shape[0] - side
        start = (rng.uniform(0.0, room), rng.uniform(0.0, room))
        # the crop's side need not be a whole number of source pixels: scale the grid, then cut it
        pixel = side / self.size
        grid = square.then([[pixel, 0.0, start[0]], [0.0, pixel, start[1]], [0.0, 0.0, 1.0]], (self.size, self.size))
        if rng.random() < self.flip_chance:
            grid = grid.flip(1)
        if self.rotation_deg > 0.0:
            grid = grid.rotate(rng.uniform(-self.rotation_deg, self.rotation_deg))
        return grid

    def tone(self, pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Change contrast and brightness of intensities in 0..1 at random, clipped to 0..1."""
        if self.contrast == 0.0 and self.brightness == 0.0:
            return pixels
        gain = 1.0 + rng.uniform(-self.contrast, self.contrast)
        shift = rng.uniform(-self.brightness, self.brightness)
        mean = float(pixels.mean())
        toned: NDArray[np.float32] = np.clip((pixels - mean) * gain + mean + shift, 0.0, 1.0).astype(np.float32)
        return toned

    def working_longest(self) -> int:
        """Longest side, in pixels, that a picture needs before sampling so that no training crop is magnified."""
        return math.ceil(self.size / math.sqrt(self.crop_area[0]))


@dataclass(frozen=True)
class Working:
    """A picture reduced once (anti-aliased) to little more than the resolution the network will see.

    Attributes:
        planes: one Pillow image per channel, mode `L` (8 bit) or `F` (floats 0..65535).
        frame: the reduced grid in the source picture.
        peak: the value that means 1.0.
    """

    planes: tuple[Image.Image, ...]
    frame: Frame
    peak: float

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return sum(p.size[0] * p.size[1] * (1 if p.mode == "L" else 4) for p in self.planes)


def reduce_picture(pixels: NDArray[np.uint8] | NDArray[np.uint16], frame: Frame, longest: int) -> Working:
    """Reduce a picture so that its longest side is at most `longest` pixels (never magnified).

    Args:
        pixels: [H, W] or [H, W, 3], 8 or 16 bit, full range of the type.
        frame: the picture's frame; kept as the source.
        longest: longest side allowed.
    """
    peak = float(np.iinfo(pixels.dtype).max)
    mode_type = np.uint8 if pixels.dtype == np.uint8 else np.float32
    channels = [pixels] if pixels.ndim == 2 else [pixels[..., c] for c in range(pixels.shape[2])]
    rows, columns = pixels.shape[:2]
    factor = min(1.0, longest / max(rows, columns))
    shape = (max(1, round(rows * factor)), max(1, round(columns * factor)))
    planes = []
    for channel in channels:
        plane = Image.fromarray(np.ascontiguousarray(channel.astype(mode_type, copy=False)))
        if shape != (rows, columns):
            plane = plane.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
        planes.append(plane)
    return Working(tuple(planes), frame.resize(shape), peak)


def sample(working: Working, target: Frame) -> NDArray[np.float32]:
    """The picture on a target grid: float32 [c, h, w] in 0..1, zero outside the picture (bilinear).

    Args:
        working: the reduced picture.
        target: a frame over the same source picture.
    """
    # grid of the target -> grid of the working picture
    affine = np.linalg.inv(working.frame.to_source) @ target.to_source
    rows, columns = target.shape
    # Pillow speaks (x, y), pixel centres at + 0.5 as we do
    data = (affine[1, 1], affine[1, 0], affine[1, 2], affine[0, 1], affine[0, 0], affine[0, 2])
    out = np.empty((len(working.planes), rows, columns), dtype=np.float32)
    for channel, plane in enumerate(working.planes):
        drawn = plane.transform((columns, rows), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=0)
        out[channel] = np.asarray(drawn, dtype=np.float32)
    out /= working.peak
    return out
