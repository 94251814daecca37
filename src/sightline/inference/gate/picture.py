"""The gate's second check: whether a picture looks like those of the training at all.

Brightness, contrast, size, shape, spacing and the shares of black and white pixels must lie within what the training
pictures had: their 0.5 to 99.5 % range, widened by a quarter of it at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from sightline.io.picture import Picture, require_content

LOW, HIGH, WIDENED = 0.005, 0.995, 0.25
Limits = Mapping[str, tuple[float, float]]


def measure_picture(picture: Picture) -> dict[str, float]:
    """Numbers of a picture that is ready for display.

    Returns:
        mean and contrast (standard deviation) of grey in 0..1; `black` and `white`, shares of pixels at the ends (1 %);
        `rows`, `columns`, `aspect` (their natural logarithms, so that a range is one of ratios); `spacing_mm` (its
        logarithm) where the file says it; `edges`, mean absolute difference of neighbours.

    Example:
        >>> from sightline.structures.frame import Frame
        >>> half = np.repeat(np.array([[0, 255]], dtype=np.uint8), 2, axis=0)
        >>> found = measure_picture(Picture(half, Frame.of_image((2, 2))))
        >>> found["mean"], found["black"], found["edges"]
        (0.5, 0.5, 0.5)
    """
    pixels = picture.pixels if picture.pixels.ndim == 2 else picture.pixels.mean(axis=2)
    rows, columns = pixels.shape
    step = max(1, max(rows, columns) // 512)
    grey = np.asarray(pixels[::step, ::step], dtype=np.float64) / np.iinfo(picture.pixels.dtype).max
    found = {
        "mean": float(grey.mean()),
        "contrast": float(grey.std()),
        "black": float((grey < 0.01).mean()),
        "white": float((grey > 0.99).mean()),
        "rows": math.log(rows),
        "columns": math.log(columns),
        "aspect": math.log(columns / rows),
    }
    steps = [np.abs(np.diff(grey, axis=axis)).sum() for axis in (0, 1)]
    pairs = max(1, sum(grey.size - grey.shape[1 - axis] for axis in (0, 1)))
    found["edges"] = float(sum(steps)) / pairs
    spacing = picture.frame.spacing_mm
    if spacing is not None and all(x > 0 for x in spacing):
        found["spacing_mm"] = math.log(spacing[0])
    return found


def fit_limits(measures: Iterable[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Limits of what training pictures had; a measure that a tenth of them lacks is left out.

    Raises:
        ValueError: no picture.
    """
    every = list(measures)
    if not every:
        raise ValueError("no picture to learn the limits from")
    limits = {}
    for name in sorted({name for one in every for name in one}):
        values = np.array([one[name] for one in every if name in one])
        if len(values) < 0.9 * len(every):
            continue
        low, high = (float(x) for x in np.quantile(values, (LOW, HIGH)))
        wider = max(WIDENED * (high - low), 1e-6)
        limits[name] = (low - wider, high + wider)
    return limits


def check_picture(picture: Picture, limits: Limits, file: Path) -> str:
    """Why a picture is unlike those of the training, or an empty text where it is not.

    Raises:
        UnreadableFile: one value throughout.
    """
    require_content(picture, file)
    found = measure_picture(picture)
    for name, (low, high) in limits.items():
        value = found.get(name)
        if value is not None and not low <= value <= high:
            if name in ("rows", "columns", "aspect", "spacing_mm"):
                value, low, high = math.exp(value), math.exp(low), math.exp(high)
            return f"{name.replace('_', ' ')} {value:.3g}, in training {low:.3g} to {high:.3g}"
    return ""
