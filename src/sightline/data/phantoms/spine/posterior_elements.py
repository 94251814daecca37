"""What stands behind the body: pedicles, arch, spinous, transverse and articular processes, and where ribs begin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline.data.phantoms.spine.body import Measures, is_thoracic
from sightline.data.phantoms.spine.solids import EllipticBar
from sightline.data.spine.vertebrae import LABELS, RANKS

ARCH, SPINOUS, LEFT_TRANSVERSE, LEFT_UPPER, LEFT_LOWER, PEDICLES = 41, 42, 43, 45, 47, 103


@dataclass(frozen=True, eq=False)
class Part:
    """A bar of bone with its sub-region number and the thickness of its cortex, mm."""

    region: int
    bar: EllipticBar
    cortex_mm: float


def build_arch(label: int, m: Measures, below: Measures, back_top: float, back_bottom: float) -> list[Part]:
    """The posterior elements of a vertebra in its own coordinates.

    Args:
        label: VerSe's number: thoracic facets face forward, lumbar ones sideways.
        m: measures of this vertebra.
        below: of the next one, with which its lower facets form joints.
        back_top: z of the upper endplate at the back wall.
        back_bottom: the same of the lower one.
    """
    lumbar = not is_thoracic(label) and RANKS[label] >= RANKS[LABELS["L1"]]
    wall = -(m.depth_up + m.depth_low) / 4.0
    canal = wall - m.canal_depth / 2.0
    height = back_top - back_bottom
    tall = min(m.pedicle_height, 0.85 * height)
    out = (m.canal_width + m.pedicle_width) / 2.0
    # the pedicle springs from the upper half of the back wall
    z = back_top - tall / 2.0 - 0.08 * height
    behind = canal - m.canal_depth / 2.0
    parts: list[Part] = []

    def add_both_sides(region: int, start: tuple[float, float, float], stop: tuple[float, float, float],
                   radii: tuple[float, float], end_radii: tuple[float, float], cortex_mm: float,
                   up: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> None:  # fmt: skip
        for side in (-1.0, 1.0):
            flip = np.array([side, 1.0, 1.0])
            # paired regions: the odd number is the patient's left
            number = region + (1 if side > 0 and region in (LEFT_TRANSVERSE, LEFT_UPPER, LEFT_LOWER) else 0)
            bar = EllipticBar(np.array(start) * flip, np.array(stop) * flip, radii, end_radii,
                      (up[0] * side, up[1], up[2]))  # fmt: skip
            parts.append(Part(number, bar, cortex_mm))

    wide = m.pedicle_width / 2.0
    add_both_sides(PEDICLES, (out - 0.5, wall + 4.0, z), (out, canal - 0.1 * m.canal_depth, z), (wide, tall / 2.0),
               (wide, tall / 2.0), 1.1)  # fmt: skip
    pillar = (out + 0.5, canal - 0.30 * m.canal_depth, z)
    upper_end = back_top + 8.5
    if lumbar:
        joint = out + 1.0
        add_both_sides(LEFT_UPPER, pillar, (joint + 3.8, behind + 4.0, upper_end), (4.2, 6.0), (2.8, 5.2), 1.4,
                   (-0.45, 1.0, 0.0))  # fmt: skip
    else:
        add_both_sides(LEFT_UPPER, pillar, (out, behind + 2.4, upper_end), (4.6, 3.4), (4.4, 1.9), 1.2, (0.0, 1.0, 0.0))
    low_start = (out - 0.5, behind + 1.0, z - 0.45 * height)
    if RANKS[label] >= RANKS[LABELS["T12"]]:
        joint = (below.canal_width + below.pedicle_width) / 2.0 + 1.0
        low = (joint - 4.0, behind - 3.5, back_bottom - m.disc * 0.5 - 5.5)
        add_both_sides(LEFT_LOWER, low_start, low, (4.2, 4.0), (2.9, 4.6), 1.5, (-0.45, 1.0, 0.0))
    else:
        low = (out - 0.5, behind - 2.6, back_bottom - m.disc * 0.5 - 4.0)
        add_both_sides(LEFT_LOWER, low_start, low, (4.8, 2.6), (4.2, 1.9), 1.3, (0.0, 1.0, 0.0))
    add_both_sides(ARCH, pillar, low_start, (4.4, 4.0), (4.6, 3.2), 1.4, (0.0, 1.0, 0.0))
    # the laminae: two plates that meet behind the canal, their lower edges further back
    plate = 8.5 if lumbar else 8.0
    ridge = behind - (7.0 if lumbar else 4.5)
    add_both_sides(ARCH, (out - 1.0, behind + 4.0, z - 0.30 * height), (0.0, ridge, z - 0.52 * height),
               (2.6, plate), (2.8, plate), 1.4, (0.0, 0.32, 1.0))  # fmt: skip
    root, tip = (0.0, ridge - 0.5, z - 0.55 * height), (0.0, behind - m.spine_length, -m.spine_drop)
    if lumbar:
        # lowest, where the spine is hollowest, they are small
        tall = {LABELS["L4"]: 7.0, LABELS["L5"]: 5.2, LABELS["L6"]: 5.2}.get(label, 8.3)
        spinous = EllipticBar(np.array(root), np.array(tip), (2.8, tall), (3.6, 1.05 * tall))
    else:
        spinous = EllipticBar(np.array(root), np.array(tip), (3.0, 6.5), (2.8, 3.2))
    parts.append(Part(SPINOUS, spinous, 1.2))
    tip_x = m.span / 2.0 - 3.0
    if lumbar:
        add_both_sides(LEFT_TRANSVERSE, (out + 2.5, canal - 0.15 * m.canal_depth, z - 2.0),
                       (tip_x, behind - 3.5, z - 1.0), (3.0, 5.5), (2.0, 3.8), 1.1)  # fmt: skip
    else:
        add_both_sides(LEFT_TRANSVERSE, (out + 1.5, canal - 0.30 * m.canal_depth, z - 2.0),
                       (tip_x, behind - 9.0, z + 2.0), (4.2, 5.0), (3.6, 4.6), 1.1)  # fmt: skip
    return parts


def build_ribs(label: int, m: Measures, back_top: float) -> list[EllipticBar]:
    """The ribs of a thoracic vertebra, from their heads as far as the side of the chest."""
    if not is_thoracic(label):
        return []
    short = RANKS[label] >= RANKS[LABELS["T11"]]
    wall = -(m.depth_up + m.depth_low) / 4.0
    head = np.array([m.width_up / 2.0 + 2.5, wall + 4.0, back_top - (6.0 if short else 1.0)])
    neck = np.array([m.span / 2.0 + (6.0 if short else 1.5), wall - m.canal_depth - 2.5, head[2] - 2.0])
    angle = np.array([neck[0] + 24.0, neck[1] - 9.0, head[2] - 13.0])
    flank = np.array([neck[0] + 62.0, neck[1] + 22.0, head[2] - (26.0 if short else 38.0)])
    bars = []
    for side in (-1.0, 1.0):
        flip = np.array([side, 1.0, 1.0])
        for start, stop, a, b in ((head, neck, 3.6, 3.4), (neck, angle, 3.2, 3.2), (angle, flank, 3.2, 3.0)):
            bars.append(EllipticBar(start * flip, stop * flip, (a, 1.5 * a), (b, 1.7 * b)))
    return bars
