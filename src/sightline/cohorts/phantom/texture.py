"""Random fields for bone and soft tissue: oriented trabeculae and slow clouds, each of mean 0 and spread 1."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from scipy import fft, ndimage

from sightline.frame import FloatArray


def trabeculae(
    shape: tuple[int, int], rng: Generator, *, angle_deg: float, width_px: float, length_px: float
) -> FloatArray:
    """Struts that run along one direction.

    White noise is shaped in the Fourier domain by an anisotropic Gaussian, `length_px` along the struts and
    `width_px` across them, minus its slow part, so that struts stand out against their neighbourhood.

    Args:
        shape: (rows, columns).
        rng: source of the noise.
        angle_deg: direction of the struts, from the row axis (down) towards the column axis (right).
        width_px: standard deviation across a strut.
        length_px: standard deviation along a strut.

    Returns:
        Field [rows, columns], mean 0, standard deviation 1.
    """
    height, width = (fft.next_fast_len(n, real=True) for n in shape)
    row_frequency = fft.fftfreq(height)[:, None]
    column_frequency = fft.rfftfreq(width)[None, :]
    theta = math.radians(angle_deg)
    along = row_frequency * math.cos(theta) + column_frequency * math.sin(theta)
    across = column_frequency * math.cos(theta) - row_frequency * math.sin(theta)
    passes = np.exp(-2.0 * (math.pi * length_px * along) ** 2 - 2.0 * (math.pi * width_px * across) ** 2)
    slow = np.exp(-2.0 * (math.pi * 5.0 * width_px) ** 2 * (row_frequency**2 + column_frequency**2))
    spectrum = fft.rfft2(rng.standard_normal((height, width))) * passes * (1.0 - slow)
    return _standardised(fft.irfft2(spectrum, s=(height, width))[: shape[0], : shape[1]])


def clouds(shape: tuple[int, int], rng: Generator, *, size_px: float) -> FloatArray:
    """Slow isotropic variation with a correlation length of about `size_px`: field [rows, columns]."""
    step = max(1, int(size_px / 3.0))
    coarse = (shape[0] // step + 3, shape[1] // step + 3)
    field = ndimage.gaussian_filter(rng.standard_normal(coarse), size_px / step / 2.0, mode="wrap")
    return _standardised(enlarged(field, shape, step))


def enlarged(coarse: FloatArray, shape: tuple[int, int], step: int) -> FloatArray:
    """A coarse field, one value every `step` pixels, interpolated linearly to `shape`."""
    rows = np.minimum((np.arange(shape[0]) + 0.5) / step, coarse.shape[0] - 1.0)
    columns = np.minimum((np.arange(shape[1]) + 0.5) / step, coarse.shape[1] - 1.0)
    top, left = np.minimum(rows.astype(int), coarse.shape[0] - 2), np.minimum(columns.astype(int), coarse.shape[1] - 2)
    down, right = (rows - top)[:, None], (columns - left)[None, :]
    tall = coarse[top] * (1.0 - down) + coarse[top + 1] * down
    field: FloatArray = tall[:, left] * (1.0 - right) + tall[:, left + 1] * right
    return field


def _standardised(field: FloatArray) -> FloatArray:
    standardised: FloatArray = (field - field.mean()) / max(float(field.std()), 1e-12)
    return standardised
