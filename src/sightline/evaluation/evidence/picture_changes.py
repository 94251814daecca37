"""Pictures changed as another hospital's may differ: text, markers, windows, resolution, noise, JPEG, borders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from sightline.data.audit.objects import find_objects, scale_grey
from sightline.data.views.frames import state_spacing
from sightline.data.views.image_view import View
from sightline.evaluation.evidence.interventions import Mask, Planes, erase
from sightline.io.image import read_image
from sightline.structures.case import Case
from sightline.structures.frame import Frame
from sightline.structures.regions import Box
from sightline.structures.resampling import resample
from sightline.structures.tag import Tag

PLAIN = "as they are"
# fields of view: the share of a side that is added at either end, as black ground, or taken away
CROPPED = "borders cropped by 10%"
FIELDS = {CROPPED: -0.1, "closer: the middle 60%": -0.2, "farther: 60% of its size": 1 / 3}


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """A picture in the network's view.

    Attributes:
        planes: float32 [c, h, w] in 0..1.
        content: bool [h, w], where the picture lies; the rest is padding.
        case_id: whose it is.
    """

    planes: Planes
    content: Mask
    case_id: str

    def random(self, name: str) -> np.random.Generator:
        """Chance that depends on the case and the change alone."""
        digest = hashlib.sha256(f"{self.case_id}|{name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


Change = Callable[[ShownPicture], Planes]


def add_text(shown: ShownPicture) -> Planes:
    """Burn a side letter and two lines of text into two corners, as another console would."""
    rows, columns = np.flatnonzero(shown.content.any(axis=1)), np.flatnonzero(shown.content.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height = max(6, round(0.035 * max(bottom - top, right - left)))
    random = shown.random("text")
    layer = Image.new("L", shown.content.shape[::-1], 0)
    draw = ImageDraw.Draw(layer)
    lines = (f"{random.integers(10**5, 10**6)}", ("PORTABLE", "ERECT", "STANDING", "60 kV 2 mAs")[random.integers(4)])
    corners = [(c, r) for c in (0, 1) for r in (0, 1)]
    for (column, row), words, size in zip(
        (corners[i] for i in random.permutation(4)[:2]), ("\n".join(lines), "RL"[random.integers(2)]),
        (height, 2 * height), strict=True,
    ):  # fmt: skip
        font = ImageFont.load_default(size)
        box = draw.multiline_textbbox((0, 0), words, font=font)
        x = left + height if column == 0 else right - height - (box[2] - box[0])
        y = top + height if row == 0 else bottom - height - (box[3] - box[1])
        draw.multiline_text((x - box[0], y - box[1]), words, font=font, fill=255)
    ink = np.asarray(layer, dtype=np.float32) / 255 * shown.content
    return np.maximum(shown.planes, ink[None] * 0.95).astype(np.float32)


def erase_small_objects(shown: ShownPicture) -> Planes:
    """Erase letters, arrows, plates and other small bright things that stand out (`data.audit.objects`)."""
    rows, columns = shown.content.shape
    where = np.zeros(shown.content.shape, dtype=bool)
    for o in find_objects(scale_grey(shown.planes.mean(axis=0))):
        (top, left), (bottom, right) = o.start, o.stop
        where[round(top * rows) : round(bottom * rows), round(left * columns) : round(right * columns)] = True
    where = ndimage.binary_dilation(where, iterations=max(1, round(0.005 * max(rows, columns))))
    return _paste_inside(shown, erase(shown.planes, where)) if where.any() else shown.planes


def apply_narrow_window(shown: ShownPicture) -> Planes:
    """Spread the grey levels between the 10th and the 90th percentile of the picture over the whole range."""
    low, high = np.quantile(shown.planes[:, shown.content], (0.1, 0.9))
    return _paste_inside(shown, (shown.planes - low) / max(float(high - low), 1e-6))


def apply_wide_window(shown: ShownPicture) -> Planes:
    """Half the contrast about the picture's mean."""
    mean = shown.planes[:, shown.content].mean()
    return _paste_inside(shown, mean + 0.5 * (shown.planes - mean))


def darken(shown: ShownPicture) -> Planes:
    """Gamma 1.6: mid greys darker."""
    return _paste_inside(shown, shown.planes.astype(np.float64) ** 1.6)


def brighten(shown: ShownPicture) -> Planes:
    """Gamma 0.6: mid greys brighter."""
    return _paste_inside(shown, shown.planes.astype(np.float64) ** 0.6)


def halve_resolution(shown: ShownPicture) -> Planes:
    """Half the pixels a side that the network gets, enlarged again."""
    side = shown.content.shape
    small = [_resize(plane, (side[1] // 2, side[0] // 2)) for plane in shown.planes]
    return _paste_inside(shown, np.stack([_resize(plane, (side[1], side[0])) for plane in small]))


def add_noise(shown: ShownPicture) -> Planes:
    """Gaussian noise of standard deviation 0.05 of the range."""
    noise = shown.random("noise").normal(0.0, 0.05, shown.content.shape)
    return _paste_inside(shown, shown.planes + noise[None])


def compress(shown: ShownPicture) -> Planes:
    """JPEG at quality 20."""
    planes = []
    for plane in shown.planes:
        buffer = BytesIO()
        Image.fromarray(np.rint(plane * 255).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=20)
        planes.append(np.asarray(Image.open(buffer), dtype=np.float64) / 255)
    return _paste_inside(shown, np.stack(planes))


CHANGES: Mapping[str, Change] = {
    "text and a side letter added": add_text,
    "small bright objects erased": erase_small_objects,
    "narrow window": apply_narrow_window,
    "wide window": apply_wide_window,
    "darker (gamma 1.6)": darken,
    "brighter (gamma 0.6)": brighten,
    "half the resolution": halve_resolution,
    "noise, sd 0.05": add_noise,
    "JPEG, quality 20": compress,
}


def change_picture(case: Case, view: View) -> dict[str, Planes]:
    """A case's test-time view as it is, with other fields of view, and after each of `CHANGES`, by name.

    Example:
        >>> sorted(CHANGES)[:2]
        ['JPEG, quality 20', 'brighter (gamma 0.6)']
    """
    picture = read_image(case.image)
    source = state_spacing(picture.frame, case)
    shown = _show(picture.pixels, source, case, view)
    fields = {}
    for name, more in FIELDS.items():
        part = _change_field(picture.pixels, more)
        # a source of its own: what lies outside does not exist for it
        frame = Frame.of_image(part.shape[:2], source.spacing_mm, source.aspect)
        fields[name] = _show(part, frame, case, view).planes
    return {PLAIN: shown.planes, **fields, **{name: make(shown) for name, make in CHANGES.items()}}


def _change_field(pixels: NDArray[np.uint8] | NDArray[np.uint16], more: float) -> NDArray[Any]:
    """The middle of a picture, or the picture in the middle of black ground."""
    row, column = (round(abs(more) * side) for side in pixels.shape[:2])
    if more > 0:
        return np.pad(pixels, [(row, row), (column, column)] + [(0, 0)] * (pixels.ndim - 2))
    return pixels[row : pixels.shape[0] - row, column : pixels.shape[1] - column]


def _show(pixels: NDArray[np.uint8] | NDArray[np.uint16], source: Frame, case: Case, view: View) -> ShownPicture:
    planes, frame = view.show(pixels, source)
    whole = Box((0.0, 0.0), (float(source.shape[0]), float(source.shape[1])), Tag("finding"))
    return ShownPicture(planes, whole.draw(frame) >= 0.5, case.case_id)


def _paste_inside(shown: ShownPicture, planes: NDArray[np.floating]) -> Planes:
    """Changed planes where the picture lies, and the padding as it was."""
    return np.where(shown.content, planes, shown.planes).clip(0.0, 1.0).astype(np.float32)


def _resize(plane: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    return resample(plane.astype(np.float32), (size[1], size[0]), "smoothed linear")
