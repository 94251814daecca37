"""The body of one vertebra: a waisted block of bone between two curved endplates, whole or deformed.

Own coordinates of a vertebra: x to the patient's right, y to the front, z to the head, mm, origin in the middle of the
body as it was before any deformity. Heights are stated on the mid-sagittal line 0.75 of half a depth in front of the
middle (anterior), in the middle, and as far behind it (posterior), where morphometry puts its six points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.interpolate import PchipInterpolator

from sightline.data.phantoms.spine.solids import Floats, blend_solids, intersect_solids
from sightline.data.spine.vertebrae import LABELS, RANKS
from sightline.structures.frame import FloatArray

# the place of the anterior and posterior height, as a share of half the depth
SIXTH = 0.75
_TABLE = np.linspace(-1.15, 1.15, 231)


@dataclass(frozen=True)
class Dent:
    """A small hollow in an endplate (Schmorl's node): place as shares of half width and half depth, size in mm."""

    right: float
    front: float
    radius_mm: float
    depth_mm: float
    upper: bool


@dataclass(frozen=True)
class Spur:
    """An osteophyte: a beak at the rim of an endplate.

    Attributes:
        angle: where, radians from the right towards the front.
        reach_mm: how far it stands out.
        width: radians.
        upper: at the upper rim.
    """

    angle: float
    reach_mm: float
    width: float
    upper: bool


@dataclass(frozen=True)
class BodyPlan:
    """One body.

    Attributes:
        measures: of a healthy one of this person.
        normal: (anterior, middle, posterior) heights before any deformity, mm.
        heights: the same as they are now.
        upper_share: how much of the loss is the upper endplate's.
        step: where the depressed part of a wedge begins, share of half the depth from the middle to the front.
        lean: asymmetry of the loss from left to right.
        central: the loss leaves the side rims standing (biconcave).
        waist: how much narrower the middle is, as a share.
        thoracic: heart-shaped rather than kidney-shaped.
        buckle_mm: bulge of the front wall.
        retropulsion_mm: bulge of the upper back corner into the canal.
        limbus_mm: size of the corner that a limbus vertebra lacks, 0 for none.
        dents, spurs: as named.
    """

    measures: Measures
    normal: tuple[float, float, float]
    heights: tuple[float, float, float]
    upper_share: float = 0.5
    step: float = 0.2
    lean: float = 0.0
    central: bool = False
    waist: float = 0.12
    thoracic: bool = False
    buckle_mm: float = 0.0
    retropulsion_mm: float = 0.0
    limbus_mm: float = 0.0
    dents: tuple[Dent, ...] = ()
    spurs: tuple[Spur, ...] = ()


@dataclass(frozen=True, eq=False)
class BodyField:
    """What is known of a body at each voxel of a part.

    Attributes:
        distance: signed distance to its surface, mm.
        wall: to its side wall.
        below_upper, above_lower: depth under the upper and over the lower endplate, mm.
        upper_loss, lower_loss: how far the endplate of this column has been pressed in, mm.
        bulge: how far the wall stands out there because it buckled or was pushed out, mm.
    """

    distance: Floats
    wall: Floats
    below_upper: Floats
    above_lower: Floats
    upper_loss: Floats
    lower_loss: Floats
    bulge: Floats


@dataclass(frozen=True, eq=False)
class VertebraBody:
    """A body ready to be evaluated."""

    plan: BodyPlan
    _loss: FloatArray = field(init=False, repr=False)
    _outline: tuple[FloatArray, FloatArray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Tabulate the loss of height along the depth, and the outline."""
        object.__setattr__(self, "_loss", _build_loss_table(self.plan))
        object.__setattr__(self, "_outline", _compute_outline(self.plan.thoracic))

    @property
    def depth(self) -> float:
        """Mean depth of the endplates, mm."""
        return (self.plan.measures.depth_up + self.plan.measures.depth_low) / 2.0

    @property
    def width(self) -> float:
        """Mean width of the endplates, mm."""
        return (self.plan.measures.width_up + self.plan.measures.width_low) / 2.0

    def plates(self, front: FloatArray | float, right: FloatArray | float = 0.0) -> tuple[FloatArray, FloatArray]:
        """Where (z) the upper and the lower endplate lie at shares of half the depth and width."""
        upper, lower, _, _ = self._compute_plates(np.asarray(front, np.float32), np.asarray(right, np.float32))
        return np.asarray(upper, dtype=float), np.asarray(lower, dtype=float)

    def rims(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(height, slope) of the planes through the rims of the upper and the lower endplate."""
        planes = []
        for plate in self.plates(np.array([-SIXTH, SIXTH])):
            back, front = plate.tolist()
            planes.append(((back + front) / 2.0, (front - back) / (SIXTH * self.depth)))
        return planes[0], planes[1]

    def evaluate(self, x: Floats, y: Floats, z: Floats) -> BodyField:
        """The body at points given in its own coordinates, mm."""
        plan, m = self.plan, self.plan.measures
        half_width, half_depth = np.float32(self.width / 2.0), np.float32(self.depth / 2.0)
        front, right = y / half_depth, x / half_width
        upper, lower, upper_loss, lower_loss = self._compute_plates(front, right)
        # -1 at the lower, 1 at the upper endplate
        level = np.clip((2.0 * z - upper - lower) / np.maximum(upper - lower, 1.0), -1.15, 1.15).astype(np.float32)
        narrow = 1.0 - np.float32(plan.waist) * np.clip(1.0 - level * level, 0.0, 1.0)
        share = (level + 1.0) / 2.0
        half_x = (m.width_low + (m.width_up - m.width_low) * share) / 2.0 * narrow
        # the waist is deepest in front; the back wall is nearly straight
        half_y = (
            (m.depth_low + (m.depth_up - m.depth_low) * share)
            / 2.0
            * np.where(y > 0.0, 0.35 + 0.65 * narrow, 0.8 + 0.2 * narrow)
        )
        u, v = x / half_x, y / half_y
        angle = np.arctan2(v, u)
        edge = np.interp(angle, *self._outline).astype(np.float32)
        reach, radius = np.sqrt(u * u + v * v), np.sqrt(x * x + y * y)
        bulge = self._compute_bulge(angle, level)
        wall = radius * (1.0 - edge / np.maximum(reach, 1e-3)) - self._compute_lips(angle, upper, lower, z) - bulge
        wall = np.maximum(wall.astype(np.float32), -half_depth)
        below_upper, above_lower = upper - z, z - lower
        slab = np.maximum(-below_upper, -above_lower)
        distance = intersect_solids(wall, slab, 2.0)
        if plan.limbus_mm > 0.0:
            # a slanting cut takes off the upper front corner
            corner = (y - half_depth + (z - upper) + np.float32(plan.limbus_mm)) * np.float32(0.7071)
            distance = np.maximum(distance, corner)
            # and lies there as a piece of its own
            rest = y - half_depth + np.float32(0.2 * plan.limbus_mm)
            piece = np.sqrt((x / 2.5) ** 2 + rest**2 + (z - upper + np.float32(0.2 * plan.limbus_mm)) ** 2)
            distance = np.minimum(distance, piece - np.float32(0.27 * plan.limbus_mm)).astype(np.float32)
        return BodyField(distance, wall, below_upper, above_lower, upper_loss, lower_loss, bulge)

    def _compute_plates(self, front: Floats, right: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        plan = self.plan
        anterior, middle, posterior = plan.normal
        rim = ((anterior + posterior) / 2.0 + (anterior - posterior) / (2.0 * SIXTH) * front) / 2.0
        hollow = (anterior + posterior) / 2.0 - middle
        across = np.clip(1.0 - right * right, 0.0, 1.0)
        bowl = np.clip(1.0 - (front / SIXTH) ** 2, 0.0, 1.0) * across
        # the lower endplate is hollow further back
        bowl_low = np.clip(1.0 - (front / SIXTH) ** 2, 0.0, 1.0) * (1.0 - 0.25 * front) * across
        loss = np.interp(front, _TABLE, self._loss)
        side = 1.0 - np.abs(np.clip(right, -1.0, 1.0)) ** 2.5 if plan.central else np.ones_like(across)
        side = side * np.clip(1.0 + plan.lean * right, 0.5, 1.25)
        upper_loss = (plan.upper_share * loss * side).astype(np.float32)
        lower_loss = ((1.0 - plan.upper_share) * loss * side).astype(np.float32)
        upper = rim - 0.45 * hollow * bowl - upper_loss
        lower = -rim + 0.55 * hollow * bowl_low + lower_loss
        for dent in plan.dents:
            away = ((right - dent.right) * self.width / 2.0) ** 2 + ((front - dent.front) * self.depth / 2.0) ** 2
            hole = dent.depth_mm * np.exp(-((away / dent.radius_mm**2) ** 2))
            upper, lower = (upper - hole, lower) if dent.upper else (upper, lower + hole)
        return upper.astype(np.float32), lower.astype(np.float32), upper_loss, lower_loss

    def _compute_lips(self, angle: Floats, upper: Floats, lower: Floats, z: Floats) -> Floats:
        """How far the wall stands out at the rims: their lips and spurs, mm."""
        to_upper, to_lower = np.abs(upper - z), np.abs(z - lower)
        out = 0.5 * np.exp(-((np.minimum(to_upper, to_lower) / 2.0) ** 2))
        for spur in self.plan.spurs:
            near = to_upper if spur.upper else to_lower
            turned = np.abs((angle - spur.angle + math.pi) % (2.0 * math.pi) - math.pi)
            thick = 1.5 + 0.25 * spur.reach_mm
            out = out + spur.reach_mm * np.exp(-((turned / spur.width) ** 2) - (near / thick) ** 2)
        return np.asarray(out, dtype=np.float32)

    def _compute_bulge(self, angle: Floats, level: Floats) -> Floats:
        """A buckled front wall, and a fragment pushed into the canal, mm."""
        plan, out = self.plan, np.zeros_like(angle)
        if plan.buckle_mm > 0.0:
            ahead = np.exp(-(((angle - math.pi / 2.0) / 0.9) ** 2))
            out = out + plan.buckle_mm * ahead * np.exp(-(((level - 0.35) / 0.28) ** 2))
        if plan.retropulsion_mm > 0.0:
            behind = np.exp(-(((angle + math.pi / 2.0) / 0.55) ** 2))
            out = out + plan.retropulsion_mm * behind * np.exp(-(((level - 0.75) / 0.55) ** 2))
        return np.asarray(out, dtype=np.float32)


def _build_loss_table(plan: BodyPlan) -> FloatArray:
    """Loss of height along the depth, exact at the three places where heights are stated."""
    anterior, middle, posterior = (n - h for n, h in zip(plan.normal, plan.heights, strict=True))
    knots = {-1.2: posterior, -SIXTH: posterior, 0.0: middle, SIXTH: anterior, 1.2: anterior}
    if plan.central:
        knots[-0.45] = posterior + 0.6 * (middle - posterior)
        knots[0.45] = anterior + 0.65 * (middle - anterior)
    elif anterior > middle + 0.5:
        # the plate breaks: in front of the step nearly all of the loss
        knots[plan.step] = middle + 0.15 * (anterior - middle)
        knots[plan.step + 0.22] = middle + 0.9 * (anterior - middle)
    places = sorted(knots)
    table: FloatArray = PchipInterpolator(places, [knots[p] for p in places])(_TABLE)
    return table


def _compute_outline(thoracic: bool) -> tuple[FloatArray, FloatArray]:
    """Radius of the outline over the angle, in halves of width and depth: rounded in front, hollow behind."""
    angle = np.linspace(-math.pi, math.pi, 361)
    cosine, sine = np.cos(angle), np.sin(angle)
    power = np.where(sine > 0.0, 1.85 if thoracic else 2.25, 2.35)
    stretch = np.where(sine > 0.0, 1.0, 1.08)
    round_edge = (np.abs(cosine) ** power + np.abs(sine / stretch) ** power) ** (-1.0 / power)
    # behind, a wall with a shallow hollow at the canal
    hollow = 0.05
    wall = np.full_like(angle, 9.0)
    behind = sine < -0.15
    x = cosine[behind] / np.abs(sine[behind])
    wall[behind] = (1.0 - hollow * np.exp(-((x / 0.5) ** 2))) / np.abs(sine[behind])
    both = -blend_solids((-round_edge).astype(np.float32), (-wall).astype(np.float32), 0.0001)
    return angle, np.asarray(np.minimum(both, np.minimum(round_edge, wall)), dtype=float)


SACRUM = 26


@dataclass(frozen=True)
class Measures:
    """One level of an average adult, mm and degrees.

    Attributes:
        height: of the body at its back.
        front: anterior height as a share of it.
        width_up, width_low: of the endplates, from side to side.
        depth_up, depth_low: of the endplates, from front to back.
        canal_width, canal_depth: of the bony canal.
        pedicle_width, pedicle_height: least diameters across.
        span: from tip to tip of the transverse processes.
        spine_length: of the spinous process behind the canal.
        spine_drop: how far its tip lies below the body's middle.
        disc: height of the disc below.
        tilt: how far the body's axis leans to the front, degrees.
    """

    height: float
    front: float
    width_up: float
    width_low: float
    depth_up: float
    depth_low: float
    canal_width: float
    canal_depth: float
    pedicle_width: float
    pedicle_height: float
    span: float
    spine_length: float
    spine_drop: float
    disc: float
    tilt: float


# height front  width up, low  depth up, low  canal w, d   pedicle w, h  span  spinous l, drop  disc  tilt
_ROWS = {
    "T1": (14.1, 0.97, 24.5, 27.8, 18.5, 19.7, 21.8, 16.4, 8.5, 9.6, 75.0, 22.0, 14.0, 4.5, 30.0),
    "T2": (15.6, 0.96, 24.9, 27.4, 19.6, 21.6, 19.5, 15.9, 8.2, 11.4, 69.0, 21.0, 17.0, 3.8, 27.0),
    "T3": (15.7, 0.95, 24.6, 25.9, 22.7, 23.3, 18.3, 15.8, 6.8, 11.9, 61.0, 20.0, 20.0, 3.6, 23.0),
    "T4": (16.2, 0.95, 24.5, 26.0, 23.3, 24.5, 17.0, 16.1, 5.6, 12.1, 58.0, 20.0, 24.0, 3.6, 18.0),
    "T5": (16.2, 0.94, 24.9, 27.0, 24.3, 25.8, 17.1, 16.2, 5.4, 11.9, 61.0, 20.0, 27.0, 3.7, 12.0),
    "T6": (17.4, 0.93, 26.2, 28.2, 26.0, 26.9, 17.2, 16.4, 5.5, 12.2, 61.0, 20.0, 29.0, 4.0, 7.0),
    "T7": (18.2, 0.93, 27.8, 29.1, 27.4, 28.5, 17.3, 15.9, 5.7, 12.1, 61.0, 20.0, 30.0, 4.3, 2.0),
    "T8": (18.7, 0.93, 29.5, 30.5, 27.9, 29.4, 17.7, 15.8, 5.9, 12.5, 60.0, 20.0, 29.0, 4.7, -3.0),
    "T9": (19.3, 0.94, 30.6, 33.0, 29.3, 31.0, 17.9, 15.8, 6.3, 13.9, 60.0, 19.5, 25.0, 5.0, -7.0),
    "T10": (20.2, 0.94, 31.9, 35.4, 30.5, 31.6, 18.2, 15.5, 7.0, 14.9, 58.0, 19.0, 20.0, 5.5, -10.0),
    "T11": (21.3, 0.92, 34.9, 39.1, 31.9, 31.8, 19.4, 16.1, 8.2, 16.4, 52.0, 18.5, 15.0, 6.0, -12.0),
    "T12": (22.7, 0.92, 39.0, 42.1, 32.8, 33.4, 22.2, 18.1, 8.6, 16.5, 47.0, 18.5, 12.0, 6.8, -13.0),
    "L1": (23.8, 0.94, 41.2, 43.3, 34.1, 35.3, 23.7, 19.0, 8.6, 15.9, 71.2, 23.0, 10.0, 7.8, -13.0),
    "L2": (24.3, 0.98, 42.6, 45.5, 34.6, 34.9, 23.8, 18.2, 8.5, 15.0, 76.1, 25.0, 9.0, 9.0, -8.0),
    "L3": (23.8, 1.03, 44.1, 48.0, 35.2, 34.8, 24.3, 17.5, 10.2, 14.4, 85.7, 25.0, 9.0, 10.0, -1.0),
    "L4": (24.1, 1.06, 46.6, 49.5, 35.5, 33.9, 25.4, 18.6, 13.0, 15.5, 79.4, 23.0, 9.0, 10.8, 9.0),
    "L5": (22.9, 1.16, 47.3, 49.4, 34.7, 33.2, 27.1, 19.7, 18.0, 18.0, 88.0, 17.0, 8.0, 10.0, 23.0),
}
MEASURES: dict[int, Measures] = {LABELS[level]: Measures(*row) for level, row in _ROWS.items()}
# drawn where the field of view ends, never labelled
MEASURES[LABELS["C7"]] = replace(
    MEASURES[LABELS["T1"]], height=13.5, depth_up=16.5, width_up=22.0, span=66.0, disc=5.0, tilt=31.0, spine_drop=10.0
)
MEASURES[LABELS["C6"]] = replace(MEASURES[LABELS["C7"]], depth_up=16.0, span=56.0, spine_length=20.0, tilt=28.0)
# a thirteenth thoracic vertebra has the size of its neighbours, a sixth lumbar one that of the fifth
MEASURES[LABELS["T13"]] = replace(MEASURES[LABELS["T12"]], height=23.2, disc=7.2, span=50.0)
MEASURES[LABELS["L6"]] = replace(MEASURES[LABELS["L5"]], tilt=27.0)

# chance of a deformity relative to the average vertebra: peaks at T7-T8 and T11-L2 (Löffler 2020; Genant 1996)
DEFORMED_AT: dict[int, float] = {
    LABELS[level]: weight
    for level, weight in {
        "T1": 0.10, "T2": 0.12, "T3": 0.25, "T4": 0.45, "T5": 0.75, "T6": 1.05, "T7": 1.55, "T8": 1.55, "T9": 1.0,
        "T10": 0.85, "T11": 1.45, "T12": 2.2, "T13": 2.2, "L1": 2.3, "L2": 1.5, "L3": 1.0, "L4": 0.75, "L5": 0.4,
        "L6": 0.3,
    }.items()
}  # fmt: skip


def is_thoracic(label: int) -> bool:
    """Whether the vertebra bears ribs."""
    return RANKS[LABELS["T1"]] <= RANKS[label] <= RANKS[LABELS["T13"]]
