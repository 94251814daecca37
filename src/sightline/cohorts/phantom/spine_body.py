"""The body of one vertebra: a waisted block of bone between two curved endplates, whole or deformed.

Own coordinates of a vertebra: x to the patient's right, y to the front, z to the head, mm, origin in the middle of the
body as it was before any deformity. Heights are stated on the mid-sagittal line 0.75 of half a depth in front of the
middle (anterior), in the middle, and as far behind it (posterior), where morphometry puts its six points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import PchipInterpolator

from sightline.cohorts.phantom.spine_levels import Measures
from sightline.cohorts.phantom.spine_solids import Floats, joined, within_both
from sightline.frame import FloatArray

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
class Body:
    """A body ready to be evaluated."""

    plan: BodyPlan
    _loss: FloatArray = field(init=False, repr=False)
    _outline: tuple[FloatArray, FloatArray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Tabulate the loss of height along the depth, and the outline."""
        object.__setattr__(self, "_loss", _loss_table(self.plan))
        object.__setattr__(self, "_outline", _outline(self.plan.thoracic))

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
        upper, lower, _, _ = self._plates(np.asarray(front, np.float32), np.asarray(right, np.float32))
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
        upper, lower, upper_loss, lower_loss = self._plates(front, right)
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
        bulge = self._bulge(angle, level)
        wall = radius * (1.0 - edge / np.maximum(reach, 1e-3)) - self._lips(angle, upper, lower, z) - bulge
        wall = np.maximum(wall.astype(np.float32), -half_depth)
        below_upper, above_lower = upper - z, z - lower
        slab = np.maximum(-below_upper, -above_lower)
        distance = within_both(wall, slab, 2.0)
        if plan.limbus_mm > 0.0:
            # a slanting cut takes off the upper front corner
            corner = (y - half_depth + (z - upper) + np.float32(plan.limbus_mm)) * np.float32(0.7071)
            distance = np.maximum(distance, corner)
            # and lies there as a piece of its own
            rest = y - half_depth + np.float32(0.2 * plan.limbus_mm)
            piece = np.sqrt((x / 2.5) ** 2 + rest**2 + (z - upper + np.float32(0.2 * plan.limbus_mm)) ** 2)
            distance = np.minimum(distance, piece - np.float32(0.27 * plan.limbus_mm)).astype(np.float32)
        return BodyField(distance, wall, below_upper, above_lower, upper_loss, lower_loss, bulge)

    def _plates(self, front: Floats, right: Floats) -> tuple[Floats, Floats, Floats, Floats]:
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

    def _lips(self, angle: Floats, upper: Floats, lower: Floats, z: Floats) -> Floats:
        """How far the wall stands out at the rims: their lips and spurs, mm."""
        to_upper, to_lower = np.abs(upper - z), np.abs(z - lower)
        out = 0.5 * np.exp(-((np.minimum(to_upper, to_lower) / 2.0) ** 2))
        for spur in self.plan.spurs:
            near = to_upper if spur.upper else to_lower
            turned = np.abs((angle - spur.angle + math.pi) % (2.0 * math.pi) - math.pi)
            thick = 1.5 + 0.25 * spur.reach_mm
            out = out + spur.reach_mm * np.exp(-((turned / spur.width) ** 2) - (near / thick) ** 2)
        return np.asarray(out, dtype=np.float32)

    def _bulge(self, angle: Floats, level: Floats) -> Floats:
        """A buckled front wall, and a fragment pushed into the canal, mm."""
        plan, out = self.plan, np.zeros_like(angle)
        if plan.buckle_mm > 0.0:
            ahead = np.exp(-(((angle - math.pi / 2.0) / 0.9) ** 2))
            out = out + plan.buckle_mm * ahead * np.exp(-(((level - 0.35) / 0.28) ** 2))
        if plan.retropulsion_mm > 0.0:
            behind = np.exp(-(((angle + math.pi / 2.0) / 0.55) ** 2))
            out = out + plan.retropulsion_mm * behind * np.exp(-(((level - 0.75) / 0.55) ** 2))
        return np.asarray(out, dtype=np.float32)


def _loss_table(plan: BodyPlan) -> FloatArray:
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


def _outline(thoracic: bool) -> tuple[FloatArray, FloatArray]:
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
    both = -joined((-round_edge).astype(np.float32), (-wall).astype(np.float32), 0.0001)
    return angle, np.asarray(np.minimum(both, np.minimum(round_edge, wall)), dtype=float)
