"""From a source picture to the network's input grid: one Frame a picture, one resampling.

Liao 2022, section V-A: pad to square, random crop, horizontal flip, rotation up to 30 degrees, resize; at test time
pad and resize only. Every step updates the Frame; pixels are sampled once, at the end, so nothing is blurred twice
and every region, map and box can be carried between the input grid and the source picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.data.views.crops import Corners, Crop, RegionJitter, find_largest_box, resize_square
from sightline.data.views.patches import Patches
from sightline.data.views.volume_view import VolumeView
from sightline.errors import CohortError, RecipeError, count_noun
from sightline.structures.case import Case, Cohort
from sightline.structures.frame import Frame
from sightline.structures.notation import Notation, drop_unset, write_fields

# longest side a network is shown, in pixels: twice that of the largest radiographs (mammograms and whole legs)
MOST_PIXELS = 16384
# draws of a crop's area and ratio before the largest that fits is taken, as torchvision has it
RATIO_TRIES = 10


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
        equalise: equalise the picture's histogram before anything else.
        crop: use the square around the expert's box instead of the whole picture; cases without a box are used whole.
        jitter: random training frames that keep the expert's box inside, instead of `crop_area` and `rotation_deg`.
            With `crop`, which follows the box, only its rotations have an effect.
        patches: train on patches of the picture and test on the whole picture, instead of `crop_area`.
        draws: number of random versions of each picture used in training; 0 draws a new one every time. The versions
            depend only on the case, not on the training's seed, so that their frozen features can be cached for all
            trainings.
        centre_crop: at test time use the middle square of the picture whose side is this share of its short side,
            instead of the whole picture padded to a square: 448 / 512 is torchvision's Resize(512), CenterCrop(448).
        crop_ratio: crop the picture itself in training, with a share of its area in `crop_area` and a ratio of width
            to height in this range (uniform in its logarithm), stretched to the square: torchvision's
            RandomResizedCrop. None crops squares of the padded square.
    """

    size: int = 512
    crop_area: tuple[float, float] = (0.8, 1.0)
    flip_chance: float = 0.5
    rotation_deg: float = 30.0
    contrast: float = 0.0
    brightness: float = 0.0
    equalise: bool = False
    crop: Crop | None = None
    jitter: RegionJitter | None = None
    patches: Patches | None = None
    draws: int = field(default=0, metadata={"since": "0.2"})
    centre_crop: float | None = field(default=None, metadata={"since": "0.2"})
    crop_ratio: tuple[float, float] | None = field(default=None, metadata={"since": "0.2"})

    def __post_init__(self) -> None:
        """Refuse sizes and ranges that mean nothing."""
        low, high = self.crop_area
        if not 16 <= self.size <= MOST_PIXELS:
            raise RecipeError(
                f"View.size must be 16 pixels or more, and at most {MOST_PIXELS}; got {self.size}.",
                "Use for example size 512.",
            )
        if not 0.0 < low <= high <= 1.0:
            raise RecipeError(f"View.crop_area must be 0 < low <= high <= 1; got {self.crop_area}.", "Try (0.8, 1.0).")
        if self.draws < 0:
            raise RecipeError(f"View.draws is 0 or more; got {self.draws}.", "Try 4; 0 draws anew every time.")
        for name, most in (("flip_chance", 1), ("contrast", 1), ("brightness", 1), ("rotation_deg", 360)):
            if not 0.0 <= getattr(self, name) <= most:
                raise RecipeError(f"View.{name} is 0 to {most}; got {getattr(self, name)}.", "Use 0 for no change.")
        if self.patches is not None and (self.crop is not None or self.jitter is not None):
            raise RecipeError("A view has patches, or a crop or jitter around boxes; not both.", "Leave one out.")
        self._check_framing()

    def _check_framing(self) -> None:
        """Refuse shares and ratios that mean nothing, or that another framing would override."""
        if self.centre_crop is not None and not 0.0 < self.centre_crop <= 1.0:
            raise RecipeError(f"View.centre_crop is a share in 0..1; got {self.centre_crop}.", "Try 0.875.")
        if self.crop_ratio is not None and not 0.0 < self.crop_ratio[0] <= self.crop_ratio[1] < math.inf:
            raise RecipeError(f"View.crop_ratio must be 0 < low <= high; got {self.crop_ratio}.", "Try (0.75, 1.3333).")
        framed = self.crop or self.jitter or self.patches
        if framed is not None and (self.centre_crop is not None or self.crop_ratio is not None):
            raise RecipeError(
                "centre_crop and crop_ratio are of views without a crop, jitter or patches.", "Leave one of them out."
            )

    def notation(self) -> Notation:
        """What names of kept features hold of it."""
        return write_fields(
            "View",
            size=self.size,
            crop_area=self.crop_area,
            flip_chance=self.flip_chance,
            rotation_deg=self.rotation_deg,
            contrast=self.contrast,
            brightness=self.brightness,
            equalise=self.equalise,
            crop=None if self.crop is None else self.crop.notation(),
            jitter=None if self.jitter is None else self.jitter.notation(),
            patches=None if self.patches is None else self.patches.notation(),
            draws=self.draws,
            **drop_unset(centre_crop=self.centre_crop, crop_ratio=self.crop_ratio),
        )

    def around(self, case: Case) -> Corners | None:
        """The box of a case that its frames are made around, or None: no such box, or the view asks for none."""
        asking = self.crop or self.jitter
        return None if asking is None else find_largest_box(case, asking.role)

    def test_frame(self, source: Frame, around: Corners | None = None) -> Frame:
        """Pad to square and resize; with a crop, the square around the box; with `centre_crop`, the middle.

        Args:
            source: frame of the picture.
            around: `self.around(case)` where the case is known.
        """
        # distances in the patient are kept: a pixel that is twice as high as wide becomes two
        source, around = _square_pixels(source, around)
        if self.centre_crop is not None:
            kept = self.centre_crop * min(source.shape)
            middle = ((source.shape[0] - kept) / 2.0, (source.shape[1] - kept) / 2.0)
            return resize_square(source, middle, kept, self.size)
        if self.crop is None or around is None:
            return source.pad_to_square().resize((self.size, self.size))
        row, column, side = self.crop.square(around)
        return resize_square(source, (row, column), side, self.size)

    def training_frame(self, source: Frame, rng: np.random.Generator, around: Corners | None = None) -> Frame:
        """Pad to square (or take the square around the box), crop, flip and turn at random, resize."""
        box = around
        source, around = _square_pixels(source, around)
        cropped = self.crop is not None and around is not None
        square = source.pad_to_square()
        side: float = square.shape[0]
        if self.crop is not None and around is not None:
            row, column, side = self.crop.square(around, rng)
            square = source.crop((row, column), (1, 1))
        if self.jitter is not None and not cropped:
            grid = self.jitter.draw(square, side, self.size, rng, box)
        elif self.jitter is not None:
            grid = resize_square(square, (0.0, 0.0), side, self.size)
            if rng.random() < self.jitter.chance:
                grid = grid.rotate(self.jitter.turn(rng))
        elif self.crop_ratio is not None:
            grid = self._stretch_crop(source, rng)
        else:
            kept = side * math.sqrt(rng.uniform(*self.crop_area))
            room = side - kept
            start = (rng.uniform(0.0, room), rng.uniform(0.0, room))
            # the crop's side need not be a whole number of source pixels: scale the grid, then cut it
            grid = resize_square(square, start, kept, self.size)
        if rng.random() < self.flip_chance:
            grid = grid.flip(1)
        if self.rotation_deg > 0.0 and self.jitter is None:
            grid = grid.rotate(rng.uniform(-self.rotation_deg, self.rotation_deg))
        return grid

    def _stretch_crop(self, source: Frame, rng: np.random.Generator) -> Frame:
        """A crop of the picture of any ratio, stretched to the square; the largest that fits where ten draws do not."""
        assert self.crop_ratio is not None
        rows, columns = source.shape
        low, high = self.crop_ratio
        for _ in range(RATIO_TRIES):
            area = rows * columns * rng.uniform(*self.crop_area)
            ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
            height, width = math.sqrt(area / ratio), math.sqrt(area * ratio)
            if height <= rows and width <= columns:
                start = (rng.uniform(0.0, rows - height), rng.uniform(0.0, columns - width))
                break
        else:
            height, width = min(float(rows), columns / low), min(float(columns), rows * high)
            start = ((rows - height) / 2.0, (columns - width) / 2.0)
        matrix = [[height / self.size, 0.0, start[0]], [0.0, width / self.size, start[1]], [0.0, 0.0, 1.0]]
        return source.then(matrix, (self.size, self.size))

    def patch_frame(self, source: Frame, rng: np.random.Generator, findings: Sequence[Corners]) -> Frame:
        """A training patch of the test-time view, flipped and turned at random.

        Args:
            source: frame of the picture.
            rng: of this draw.
            findings: boxes of the picture's findings in source pixels.
        """
        assert self.patches is not None
        grid = self.patches.draw(self.test_frame(source), source, findings, rng)
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

    def working_longest(self, shape: tuple[int, ...] = (1, 1)) -> int:
        """Longest side, in pixels, that a picture needs before sampling so that no training crop is magnified.

        Args:
            shape: of the picture; its ratio counts under a `crop_ratio`.
        """
        if self.jitter is not None:
            return math.ceil(self.size * max(self.jitter.zoom_in[1], self.jitter.zoom_out[1]))
        if self.patches is not None:
            return math.ceil(self.size * max(1.0, self.patches.zoom[1]))
        if self.crop_ratio is not None:
            least = min(self.crop_ratio[0], 1.0 / self.crop_ratio[1]) * min(shape) / max(shape)
            return math.ceil(self.size / math.sqrt(self.crop_area[0] * least))
        return math.ceil(self.size / math.sqrt(self.crop_area[0]))

    def _compute_test_longest(self, shape: tuple[int, ...]) -> int:
        """Longest side that a picture needs at test time."""
        if self.centre_crop is None:
            return self.size
        return math.ceil(self.size * max(shape) / (self.centre_crop * min(shape)))

    def reduce(
        self,
        pixels: NDArray[np.uint8] | NDArray[np.uint16],
        source: Frame,
        *,
        around: Corners | None = None,
        training: bool = False,
    ) -> ReducedPicture:
        """What is kept of a picture: as many pixels as the test frame, or any training frame, can show.

        With a crop only the box's neighbourhood is kept, at the resolution that the crop needs.
        """
        if self.equalise:
            pixels = equalise_histogram(pixels)
        if self.crop is None or around is None:
            longest = self.working_longest(source.shape) if training else self._compute_test_longest(source.shape)
            return reduce_picture(pixels, source, longest)
        least = 1.0
        if training:
            least = (1.0 - self.crop.jitter) * (1.0 if self.jitter else math.sqrt(self.crop_area[0]))
        longest = math.ceil(self.size * self.crop.reach / least)
        square, box = _square_pixels(source, around)
        low, high = square.map_points(np.reshape(self.crop.part(box or around), (2, 2))).tolist()
        return reduce_picture(pixels, source, longest, (low[0], low[1], high[0], high[1]))

    def show(
        self, pixels: NDArray[np.uint8] | NDArray[np.uint16], source: Frame, around: Corners | None = None
    ) -> tuple[NDArray[np.float32], Frame]:
        """What the network is shown of a picture at test time: float32 [c, size, size] in 0..1, and its frame."""
        frame = self.test_frame(source, around)
        return sample(self.reduce(pixels, source, around=around), frame), frame


def _square_pixels(source: Frame, around: Corners | None) -> tuple[Frame, Corners | None]:
    """A source on square pixels, and a box of it in these."""
    square = source.square_pixels()
    if square is source or around is None:
        return square, around
    low, high = square.unmap_points([around[:2], around[2:]]).tolist()
    return square, (low[0], low[1], high[0], high[1])


def refuse_unmarked(cohort: Cohort, view: View | VolumeView) -> None:
    """Refuse a view that crops around experts' boxes where cases have none.

    A case without a box is shown whole. Where only some have one, fractured ones say, the crop itself gives the label
    away, and a network that never saw a bone could tell the two apart.

    Raises:
        CohortError: naming how many cases of each class have a box.
    """
    if isinstance(view, VolumeView) or view.crop is None or len(cohort) == 0:
        return
    role = view.crop.role
    marked = cohort.where(lambda case: any(region.tag.role == role for region in case.regions))
    if len(marked) == len(cohort):
        return
    have, every = marked.counts(), cohort.counts()
    counts = ", ".join(f"{name}: {have[name]} of {n}" for name, n in every.items() if n)
    raise CohortError(
        f"The view crops around {role} boxes, but only {len(marked)} of "
        f"{count_noun(len(cohort), 'case')} of {cohort.name!r} have "
        f"one ({counts}).",
        "Mark every case, normal ones too, or use a view without a crop: where some cases are cropped and others "
        "not, the crop gives the label away.",
    )


@dataclass(frozen=True)
class ReducedPicture:
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

    def coarser(self, factor: int) -> ReducedPicture:
        """The same picture on a grid `factor` times coarser, each pixel the mean of those it covers."""
        planes = tuple(plane.reduce(factor) for plane in self.planes)
        columns, rows = planes[0].size
        return ReducedPicture(planes, self.frame.then(np.diag([factor, factor, 1.0]), (rows, columns)), self.peak)


def reduce_picture(
    pixels: NDArray[np.uint8] | NDArray[np.uint16], frame: Frame, longest: int, part: Corners | None = None
) -> ReducedPicture:
    """Reduce a picture so that its longest side is at most `longest` pixels (never magnified).

    Args:
        pixels: [H, W] or [H, W, 3], 8 or 16 bit, full range of the type.
        frame: the picture's frame; kept as the source.
        longest: longest side allowed.
        part: keep only this part (row start, column start, row stop, column stop); `longest` then holds for the part,
            which may reach outside the picture.
    """
    peak = float(np.iinfo(pixels.dtype).max)
    mode_type = np.uint8 if pixels.dtype == np.uint8 else np.float32
    # sides are counted in square pixels, as the network will see them
    tall, wide = max(1.0, frame.aspect), max(1.0, 1.0 / frame.aspect)
    if abs(frame.aspect - 1.0) < 0.01:
        tall = wide = 1.0
    side = max(pixels.shape[0] * tall, pixels.shape[1] * wide)
    if part is not None:
        low = [max(0, math.floor(x)) for x in part[:2]]
        high = [min(n, math.ceil(x)) for n, x in zip(pixels.shape[:2], part[2:], strict=True)]
        # a part wholly outside the picture shows none of it, whatever is kept
        if low[0] < high[0] and low[1] < high[1]:
            side = max((part[2] - part[0]) * tall, (part[3] - part[1]) * wide)
            pixels = pixels[low[0] : high[0], low[1] : high[1]]
            frame = frame.crop(low, pixels.shape[:2])
    channels = [pixels] if pixels.ndim == 2 else [pixels[..., c] for c in range(pixels.shape[2])]
    rows, columns = pixels.shape[:2]
    factor = min(1.0, longest / side)
    shape = (max(1, min(rows, round(rows * tall * factor))), max(1, min(columns, round(columns * wide * factor))))
    planes = []
    for channel in channels:
        plane = Image.fromarray(np.ascontiguousarray(channel.astype(mode_type, copy=False)))
        if shape != (rows, columns):
            plane = plane.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
        planes.append(plane)
    return ReducedPicture(tuple(planes), frame.resize(shape), peak)


def sample(working: ReducedPicture, target: Frame) -> NDArray[np.float32]:
    """The picture on a target grid: float32 [c, h, w] in 0..1, zero outside the picture (bilinear).

    Args:
        working: the reduced picture.
        target: a frame over the same source picture.
    """
    steps = int(target.scale / working.frame.scale + 1e-9)
    if steps > 1:
        # a picture shown much smaller than it is kept would alias
        working = working.coarser(steps)
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


def equalise_histogram(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The picture with an even histogram, in its own type.

    The least level present becomes 0 and the greatest the type's maximum: (cdf - cdf of the least level) / (1 - cdf of
    the least level). Collimated borders, often a third of a radiograph, so stay black; a plain cumulative histogram
    would make them grey. One mapping serves all channels, so that grey pictures stored as colour stay grey.

    Args:
        pixels: [H, W] or [H, W, 3], 8 or 16 bit; all 65,536 levels of the latter count.
    """
    peak = int(np.iinfo(pixels.dtype).max)
    below = np.cumsum(np.bincount(pixels.ravel(), minlength=peak + 1))
    least = below[int(pixels.min())]
    room = pixels.size - least
    if room == 0:
        return pixels  # one grey level
    levels = np.rint(np.maximum(below - least, 0) / room * peak).astype(pixels.dtype)
    even: NDArray[np.uint8] | NDArray[np.uint16] = levels[pixels]
    return even
