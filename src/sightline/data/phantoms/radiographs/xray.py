"""From bones and flesh to a picture: thickness adds up along the beam, photons are counted, a reader's grey scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import fft, ndimage

from sightline.data.phantoms.radiographs.anatomy import Bone, LimbPose, close_spline
from sightline.data.phantoms.radiographs.fracture import Break, break_bone
from sightline.structures.frame import FloatArray

# attenuation per mm near 60 kVp; bone replaces flesh, so its values are the excess over flesh
FLESH_PER_MM = 0.021
CORTEX_PER_MM = 0.066
SPONGY_PER_MM = 0.016
STEEL_PER_MM = 0.35
_MARGIN_PX = 12


@dataclass(frozen=True, eq=False)
class Shadow:
    """What one bone takes from the beam.

    Attributes:
        corner_px: (row, column) of the patch in the image; may be negative.
        attenuation: log attenuation [h, w] on the patch.
        inside: where the bone is [h, w].
        lines: how much of each pixel lies on a fracture line [h, w].
    """

    corner_px: tuple[int, int]
    attenuation: FloatArray
    inside: NDArray[np.bool_]
    lines: FloatArray


@dataclass(frozen=True)
class Technique:
    """How the exposure was made and the picture prepared.

    Attributes:
        photons: quanta per pixel that would reach the detector in air.
        blur_px: standard deviation of focal spot and detector together.
        scatter: share of the beam that arrives from elsewhere.
        heel: relative fall of the beam from one side to the other, (rows, columns).
        edge_gain: strength of the edge enhancement that digital systems add.
        gamma: of the grey scale; below 1 lightens the flesh.
        headroom: how far the white level lies above the densest bone, relative.
    """

    photons: float = 2500.0
    blur_px: float = 0.7
    scatter: float = 0.12
    heel: tuple[float, float] = (0.1, 0.0)
    edge_gain: float = 0.5
    gamma: float = 0.85
    headroom: float = 1.0


def draw_technique(rng: Generator) -> Technique:
    """A technique as departments vary it."""
    return Technique(
        photons=float(np.exp(rng.uniform(math.log(900.0), math.log(6000.0)))),
        blur_px=rng.uniform(0.5, 0.95),
        scatter=rng.uniform(0.06, 0.2),
        heel=(rng.uniform(-0.2, 0.2), rng.uniform(-0.15, 0.15)),
        edge_gain=rng.uniform(0.1, 0.8),
        gamma=rng.uniform(0.7, 1.05),
        headroom=rng.uniform(0.95, 1.15),
    )


def cast_shadow(bone: Bone, pose: LimbPose, rng: Generator, breaks: Sequence[Break] = ()) -> Shadow | None:
    """The shadow of one bone, fractures included; None when it lies wholly outside the image.

    The cross-section is an ellipse: at distance e from the silhouette's edge the beam crosses
    depth * sqrt(1 - (1 - e / r)^2), r the greatest distance; the shell is the difference of two such ellipses, which
    gives the bright cortical line and the fainter spongy middle of a real projection.
    """
    outline = pose.place(bone.silhouette())
    low = np.maximum(np.floor(outline.min(axis=0)).astype(int) - _MARGIN_PX, -_MARGIN_PX)
    high = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + _MARGIN_PX, np.array(pose.shape) + _MARGIN_PX)
    if (high - low <= 2).any():
        return None
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    inside = fill_ring(outline - low, size)
    if not inside.any():
        return None
    edge_mm = np.maximum(ndimage.distance_transform_edt(inside) - 0.5, 0.0) * pose.pixel_mm
    radius_mm = min(float(edge_mm.max()), bone.depth_mm * 0.6)
    shell_mm = _draw_shell(bone, pose, (int(low[0]), int(low[1])), size)
    uneven = np.clip(0.28 * draw_clouds(size, rng, size_px=6.0 / pose.pixel_mm), -0.6, 0.9)
    # thick shafts are even, the thin shell of a small bone is not
    shell_mm = shell_mm * (1.0 + uneven * np.minimum(1.0, 0.8 / shell_mm))
    outer_mm = bone.depth_mm * _compute_ellipse(edge_mm / radius_mm)
    inner_mm = np.maximum(bone.depth_mm - 2.0 * shell_mm, 0.0) * _compute_ellipse(
        (edge_mm - shell_mm) / np.maximum(radius_mm - shell_mm, 0.3)
    )
    inner_mm *= edge_mm > shell_mm
    struts = _draw_struts(bone, pose, rng, size)
    spongy = inner_mm * bone.density * (1.0 + np.clip(0.34 * struts, -0.8, 1.2))
    attenuation = CORTEX_PER_MM * (outer_mm - inner_mm) * (1.0 + 0.03 * struts) + SPONGY_PER_MM * spongy
    attenuation = np.maximum(attenuation, 0.0) * inside
    corner = (int(low[0]), int(low[1]))
    if not breaks:
        return Shadow(corner, attenuation, inside, np.zeros(size))
    attenuation, lines = break_bone(attenuation, corner, breaks, pose)
    moved, _ = break_bone(inside.astype(float), corner, [_make_solid(one) for one in breaks], pose)
    return Shadow(corner, attenuation, moved > 0.5, lines)


def paste(canvas: FloatArray, shadow: Shadow, values: FloatArray) -> None:
    """Add patch values [h, w] to the image [H, W] where the patch overlaps it."""
    (top, left), (height, width) = shadow.corner_px, values.shape
    r0, c0, r1, c1 = max(top, 0), max(left, 0), min(top + height, canvas.shape[0]), min(left + width, canvas.shape[1])
    if r1 > r0 and c1 > c0:
        canvas[r0:r1, c0:c1] += values[r0 - top : r1 - top, c0 - left : c1 - left]


def draw_flesh(outline_mm: FloatArray, depth_mm: float, pose: LimbPose, rng: Generator) -> FloatArray:
    """Soft tissue [H, W] within the skin line: an ellipse across the limb, muscle and fat planes, a skin rim."""
    step = 2
    reach = 60
    coarse = ((pose.shape[0] + 2 * reach) // step, (pose.shape[1] + 2 * reach) // step)
    inside = fill_ring((pose.place(close_spline(outline_mm, 240)) + reach) / step, coarse)
    edge_mm = ndimage.distance_transform_edt(inside) * pose.pixel_mm * step
    thickness = depth_mm * _compute_ellipse(edge_mm / (0.62 * depth_mm))
    muscle = draw_clouds(coarse, rng, size_px=5.0 / (pose.pixel_mm * step))
    fibres = draw_trabeculae(
        coarse,
        rng,
        angle_deg=pose.turn_deg,
        width_px=0.7 / (pose.pixel_mm * step),
        length_px=6.0 / pose.pixel_mm / step,
    )
    thickness *= 1.0 + 0.025 * muscle + 0.012 * fibres
    thickness += 2.2 * inside * np.exp(-(((edge_mm - 0.8) / 0.9) ** 2))
    thickness = ndimage.gaussian_filter(thickness, 0.8)
    # a subcutaneous layer of fat takes less from the beam than muscle
    thickness *= 1.0 - 0.12 * np.exp(-(((edge_mm - 3.5) / 2.0) ** 2))
    full: FloatArray = FLESH_PER_MM * interpolate_field(thickness, (coarse[0] * step, coarse[1] * step), step)
    return full[reach : reach + pose.shape[0], reach : reach + pose.shape[1]]


def expose(
    attenuation: FloatArray,
    lead: FloatArray,
    field: FloatArray,
    technique: Technique,
    rng: Generator,
    *,
    shutter: float = 0.0,
) -> FloatArray:
    """The picture of a log attenuation [H, W]: beam, scatter, photon noise, blur, edges and grey scale.

    Args:
        attenuation: bone and flesh summed along the beam.
        lead: the same for metal (markers, implants), which saturates and does not set the grey scale, [H, W].
        field: 1 where the collimator lets the beam through, 0 outside, [H, W].
        technique: exposure and processing.
        rng: source of the photon noise.
        shutter: grey level outside the field.

    Returns:
        Grey values 0 (air) to 1 (densest), [H, W].
    """
    height, width = attenuation.shape
    down = np.linspace(-0.5, 0.5, height)[:, None]
    across = np.linspace(-0.5, 0.5, width)[None, :]
    beam = 1.0 + technique.heel[0] * down + technique.heel[1] * across
    primary = beam * field * np.exp(-attenuation - lead)
    step = 8
    veil = ndimage.gaussian_filter(primary[::step, ::step], 5.0, mode="nearest")
    arriving = (1.0 - technique.scatter) * primary + technique.scatter * interpolate_field(veil, (height, width), step)
    arriving = ndimage.gaussian_filter(arriving, technique.blur_px)
    counts = rng.poisson(technique.photons * np.maximum(arriving, 1e-4))
    # the detector's own spread correlates neighbouring quanta a little
    counted = ndimage.gaussian_filter(counts.astype(float), 0.45)
    density = -np.log(np.maximum(counted, 0.5) / technique.photons)
    density += technique.edge_gain * (density - ndimage.gaussian_filter(density, 5.0, truncate=3.0))
    seen = density[(field > 0.98) & (lead < 0.05)]
    sample = seen[:: max(1, seen.size // 20000)]
    black, white = np.quantile(sample, [0.005, 0.985])
    black = min(float(black), 0.1)
    value = np.clip((density - black) / max((float(white) - black) * 1.12 * technique.headroom, 0.2), 0.0, 1.0)
    value = value**technique.gamma
    value = 0.02 + 0.98 * value
    # the electronic shutter closes just inside the collimator's penumbra
    open_field = np.clip(1.0 - (1.0 - ndimage.minimum_filter(field, 5)) * 3.0, 0.0, 1.0)
    shown: FloatArray = value * open_field + shutter * (1.0 - open_field)
    return shown


def draw_collimation(
    shape: tuple[int, int], rng: Generator, *, likely: float = 0.6
) -> tuple[FloatArray, tuple[float, float, float, float] | None]:
    """The open field [H, W] (1 inside) and its (top, left, bottom, right) in px, None when nothing is shut off."""
    if rng.random() > likely:
        rng.random(6)
        return np.ones(shape), None
    draw = rng.random(6)
    height, width = shape
    top, bottom = height * (0.01 + 0.06 * draw[0]), height * (0.99 - 0.06 * draw[1])
    left, right = width * (0.01 + 0.07 * draw[2]), width * (0.99 - 0.07 * draw[3])
    turn = math.radians((draw[4] - 0.5) * 9.0) if draw[5] < 0.55 else 0.0
    corners = np.array([[top, left], [top, right], [bottom, right], [bottom, left]])
    middle = corners.mean(axis=0)
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    ring = (corners - middle) @ matrix + middle
    field = fill_ring(ring, shape).astype(float)
    return ndimage.gaussian_filter(field, 1.0), (top, left, bottom, right)


def project(
    bones: Sequence[Bone], pose: LimbPose, rng: Generator, breaks: Mapping[str, Sequence[Break]]
) -> tuple[FloatArray, dict[str, Shadow]]:
    """All bones' summed attenuation [H, W] and each bone's own shadow."""
    canvas = np.zeros(pose.shape)
    shadows = {}
    for bone in bones:
        shadow = cast_shadow(bone, pose, rng, breaks.get(bone.name, ()))
        if shadow is not None:
            paste(canvas, shadow, shadow.attenuation)
            shadows[bone.name] = shadow
    return canvas, shadows


def fill_ring(ring: FloatArray, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A closed ring [n, 2] of (row, column) filled on a grid [h, w] (Pillow's scan lines; 50 times skimage's speed)."""
    tile = Image.new("1", (shape[1], shape[0]), 0)
    ImageDraw.Draw(tile).polygon([(column - 0.5, row - 0.5) for row, column in ring.tolist()], fill=1)
    return np.array(tile, dtype=bool)


def _compute_ellipse(share: FloatArray) -> FloatArray:
    chord: FloatArray = np.sqrt(1.0 - (1.0 - np.clip(share, 0.0, 1.0)) ** 2)
    return chord


def _draw_shell(bone: Bone, pose: LimbPose, corner: tuple[int, int], size: tuple[int, int]) -> FloatArray:
    low_mm, high_mm = bone.cortex_mm
    if low_mm == high_mm:
        return np.full(size, low_mm)
    rows, columns = np.indices(size)
    y = pose.unplace(np.stack([rows + corner[0] + 0.5, columns + corner[1] + 0.5], axis=-1))[..., 1]
    return np.interp(y, bone.cortex_at_mm, bone.cortex_mm).astype(float)


def _draw_struts(bone: Bone, pose: LimbPose, rng: Generator, size: tuple[int, int]) -> FloatArray:
    """Trabeculae along the bone's axis with a weaker set across it; older bone keeps fewer, longer ones."""
    ends = pose.place(bone.axis[[0, -1]])
    angle_deg = math.degrees(math.atan2(ends[1, 1] - ends[0, 1], ends[1, 0] - ends[0, 0]))
    width_px = 0.17 / pose.pixel_mm * (1.35 - 0.35 * min(bone.density, 1.2))
    main = draw_trabeculae(size, rng, angle_deg=angle_deg, width_px=max(width_px, 0.55), length_px=1.1 / pose.pixel_mm)
    cross = draw_trabeculae(
        size, rng, angle_deg=angle_deg + 75.0, width_px=max(width_px, 0.55), length_px=0.6 / pose.pixel_mm
    )
    patches = draw_clouds(size, rng, size_px=3.5 / pose.pixel_mm)
    struts: FloatArray = 0.75 * main + 0.4 * cross + 0.45 * patches
    return struts


def _make_solid(one: Break) -> Break:
    return replace(one, lucency=0.0)


def draw_trabeculae(
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
    return _standardise(fft.irfft2(spectrum, s=(height, width))[: shape[0], : shape[1]])


def draw_clouds(shape: tuple[int, int], rng: Generator, *, size_px: float) -> FloatArray:
    """Slow isotropic variation with a correlation length of about `size_px`: field [rows, columns]."""
    step = max(1, int(size_px / 3.0))
    coarse = (shape[0] // step + 3, shape[1] // step + 3)
    field = ndimage.gaussian_filter(rng.standard_normal(coarse), size_px / step / 2.0, mode="wrap")
    return _standardise(interpolate_field(field, shape, step))


def interpolate_field(coarse: FloatArray, shape: tuple[int, int], step: int) -> FloatArray:
    """A coarse field, one value every `step` pixels, interpolated linearly to `shape`."""
    rows = np.minimum((np.arange(shape[0]) + 0.5) / step, coarse.shape[0] - 1.0)
    columns = np.minimum((np.arange(shape[1]) + 0.5) / step, coarse.shape[1] - 1.0)
    top, left = np.minimum(rows.astype(int), coarse.shape[0] - 2), np.minimum(columns.astype(int), coarse.shape[1] - 2)
    down, right = (rows - top)[:, None], (columns - left)[None, :]
    tall = coarse[top] * (1.0 - down) + coarse[top + 1] * down
    field: FloatArray = tall[:, left] * (1.0 - right) + tall[:, left + 1] * right
    return field


def _standardise(field: FloatArray) -> FloatArray:
    standardised: FloatArray = (field - field.mean()) / max(float(field.std()), 1e-12)
    return standardised
